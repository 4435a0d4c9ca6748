"""The Helmholtz machine on Old Faithful: exact KL(teacher || student) after every method of distillation, over seeds.

    python scripts/helmholtz_study.py [--seeds 20] [--steps 1000]

Each seed has a teacher (width 8, wake-sleep on all 272 points) and one initial student (width 2), from which every
method starts, on the same noise: full batches of 272 rollouts, Adam at 0.01, as in the code that comes with Chen et al.
2023. The divergence is computed by quadrature. Student's paired t-tests compare each method with local distillation
and with the surrogate loss without an estimator. The table is written to scripts/results/helmholtz.md.
"""

import argparse
import copy
import datetime
import platform
import statistics
import time
from pathlib import Path

import torch
from scipy import stats

from kdzoo.data import OldFaithful
from kdzoo.distillers import ELBO, SemiAuxiliary
from kdzoo.distillers.generative.batch_noise import pack_noise
from kdzoo.models import HelmholtzMachine
from kdzoo.models.helmholtz import kl_by_quadrature

RESULTS = Path(__file__).parent / "results" / "helmholtz.md"
METHODS = {
    "local": {"latents_from": "teacher"},
    "surrogate, no estimator": {"estimator": "none"},
    "surrogate, straight-through": {"estimator": "straight_through"},
    "surrogate, Gumbel-softmax": {"estimator": "gumbel", "temperature": 0.5},
    "surrogate, REINFORCE": {"estimator": "reinforce", "samples": 4},
    "surrogate, enumeration": {"estimator": "enumerate"},
    "exact marginal": {"marginal": True},
}
"""Settings of each method. Without an estimator the networks of latents learn from the latents' own losses only, as in
the code that comes with the paper."""
BASELINES = ("local", "surrogate, no estimator")
RATE, POINTS = 1e-2, 272
"""Learning rate and size of the full batch, as in that code."""
STUDENT_SEED = 10_000
"""Added to the seed of a teacher for its student, which must not start from the same weights."""


def train(distiller, batch_at, steps):
    """Train a distiller by Adam; ``batch_at`` returns the batch of each step."""
    optimizer = torch.optim.Adam(distiller.trainable(), lr=RATE)
    for step in range(steps):
        terms = distiller.losses(batch_at(step))
        loss = sum(distiller.loss_weights.get(name, 1.0) * value.mean() for name, value in terms.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def teacher_of(seed, points, steps):
    """Return a machine of width 8, trained on the points by wake-sleep."""
    torch.manual_seed(seed)
    machine = HelmholtzMachine(in_shape=(2,), width=8)
    train(ELBO(machine), lambda _: {"input": points}, steps)
    return machine.requires_grad_(False)


def distilled(teacher, student, seed, steps, **options):
    """Return a copy of the student, trained by one method."""
    student = copy.deepcopy(student)
    distiller = SemiAuxiliary(student, teacher, calibrated=False, **options)
    generator = torch.Generator().manual_seed(seed)

    def noise(_):
        return {"input": torch.empty(POINTS, 0), **pack_noise(distiller.draw_noise(POINTS, generator=generator))}

    train(distiller, noise, steps)
    return student


def study(seeds, steps):
    """Return the divergences by method, and the mean log densities of the teachers."""
    data = OldFaithful()
    data.prepare_data()
    data.setup()
    points = next(iter(data.train_eval_dataloader()))["input"]
    divergences, densities = {name: [] for name in METHODS}, []
    for seed in range(seeds):
        teacher = teacher_of(seed, points, steps)
        densities.append(float(teacher.log_density(points).mean()))
        torch.manual_seed(STUDENT_SEED + seed)
        student = HelmholtzMachine(in_shape=(2,), width=2)
        for name, options in METHODS.items():
            divergences[name].append(kl_by_quadrature(teacher, distilled(teacher, student, seed, steps, **options)))
        print(seed, {name: round(values[-1], 4) for name, values in divergences.items()}, flush=True)
    return divergences, densities


def row(name, values, divergences):
    """Return a row of the table."""
    cells = [f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}", f"{statistics.median(values):.4f}"]
    for other in BASELINES:
        if name == other:
            cells.append("-")
            continue
        test = stats.ttest_rel(values, divergences[other])
        cells.append(f"{statistics.mean(values) - statistics.mean(divergences[other]):+.4f} (p = {test.pvalue:.2g})")
    return f"| {name} | " + " | ".join(cells) + " |"


def main():
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    divergences, densities = study(options.seeds, options.steps)
    mean, spread = statistics.mean(densities), statistics.stdev(densities)
    lines = [
        "# The Helmholtz machine on Old Faithful",
        "",
        f"`python scripts/helmholtz_study.py --seeds {options.seeds} --steps {options.steps}`, "
        f"{datetime.date.today()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{time.process_time() - started:.0f} CPU s, one thread.",
        "",
        f"Exact KL(teacher || student), nats, {options.seeds} teachers and students; the teachers' mean log density of "
        f"the data is {mean:.3f} ± {spread:.3f} nats. Differences of means with Student's paired t-test.",
        "",
        "| method | mean ± deviation | median | against local | against no estimator |",
        "|---|---:|---:|---:|---:|",
        *(row(name, values, divergences) for name, values in divergences.items()),
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
