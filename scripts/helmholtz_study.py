"""The Helmholtz machine on Old Faithful: exact KL(teacher || student) after every method of distillation, over seeds.

    python scripts/helmholtz_study.py [--seeds 20] [--steps 1000]

Each seed has a teacher (width 8, wake-sleep on all 272 points) and one initial student (width 2), from which every
method starts, on the same noise: full batches of 272 rollouts, Adam at 0.01, as in the code published with Chen et al.
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
"""Options of each method. Without an estimator, the networks of latents are trained by the losses of the latents alone,
as in the code published with the paper."""
BASELINES = ("local", "surrogate, no estimator")
LEARNING_RATE, POINTS = 1e-2, 272
"""Learning rate and size of the full batch, as in the code published with the paper."""
STUDENT_SEED = 10_000
"""Offset of the seed of a student from that of its teacher."""


def train(distiller, make_batch, steps):
    """Train a distiller with Adam; ``make_batch`` returns the batch of a step."""
    optimizer = torch.optim.Adam(distiller.trainable(), lr=LEARNING_RATE)
    for step in range(steps):
        terms = distiller.losses(make_batch(step))
        loss = sum(distiller.loss_weights.get(name, 1.0) * value.mean() for name, value in terms.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train_teacher(seed, points, steps):
    """Return a Helmholtz machine of width 8, trained on the points by wake-sleep."""
    torch.manual_seed(seed)
    machine = HelmholtzMachine(in_shape=(2,), width=8)
    train(ELBO(machine), lambda _: {"input": points}, steps)
    return machine.requires_grad_(False)


def distil(teacher, student, seed, steps, **options):
    """Return a copy of the student, distilled by one method."""
    student = copy.deepcopy(student)
    distiller = SemiAuxiliary(student, teacher, calibrated=False, **options)
    generator = torch.Generator().manual_seed(seed)

    def make_batch(_):
        return {"input": torch.empty(POINTS, 0), **pack_noise(distiller.draw_noise(POINTS, generator=generator))}

    train(distiller, make_batch, steps)
    return student


def run_study(seeds, steps):
    """Return the divergences by method, and the mean log densities of the teachers."""
    data = OldFaithful()
    data.prepare_data()
    data.setup()
    points = next(iter(data.train_eval_dataloader()))["input"]
    divergences: dict[str, list[float]] = {name: [] for name in METHODS}
    densities = []
    for seed in range(seeds):
        teacher = train_teacher(seed, points, steps)
        densities.append(float(teacher.log_density(points).mean()))
        torch.manual_seed(STUDENT_SEED + seed)
        student = HelmholtzMachine(in_shape=(2,), width=2)
        for name, options in METHODS.items():
            divergences[name].append(kl_by_quadrature(teacher, distil(teacher, student, seed, steps, **options)))
        print(seed, {name: round(values[-1], 4) for name, values in divergences.items()}, flush=True)
    return divergences, densities


def format_row(name, values, divergences):
    """Return a row of the table."""
    cells = [f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}", f"{statistics.median(values):.4f}"]
    for baseline in BASELINES:
        if name == baseline:
            cells.append("-")
            continue
        test = stats.ttest_rel(values, divergences[baseline])
        cells.append(f"{statistics.mean(values) - statistics.mean(divergences[baseline]):+.4f} (p = {test.pvalue:.2g})")
    return f"| {name} | " + " | ".join(cells) + " |"


def main():
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="number of teachers")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    divergences, densities = run_study(options.seeds, options.steps)
    mean_density, density_deviation = statistics.mean(densities), statistics.stdev(densities)
    lines = [
        "# The Helmholtz machine on Old Faithful",
        "",
        f"`python scripts/helmholtz_study.py --seeds {options.seeds} --steps {options.steps}`, "
        f"{datetime.date.today()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{time.process_time() - started:.0f} CPU s, one thread.",
        "",
        f"Exact KL(teacher || student), nats, {options.seeds} teachers and students; the teachers' mean log density of "
        f"the data is {mean_density:.3f} ± {density_deviation:.3f} nats. Differences of means with "
        "Student's paired t-test.",
        "",
        "| method | mean ± deviation | median | against local | against no estimator |",
        "|---|---:|---:|---:|---:|",
        *(format_row(name, values, divergences) for name, values in divergences.items()),
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
