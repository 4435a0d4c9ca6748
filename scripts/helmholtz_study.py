"""The Helmholtz machine on Old Faithful: exact KL(teacher || student) of every way to distil it, over seeds.

    python scripts/helmholtz_study.py [--seeds 20] [--steps 1000]

Each seed has a teacher (width 8, wake-sleep on all 272 points) and one initial student (width 2), which every method
trains from on the same noise: full batches of 272 roll-outs, Adam at 0.01, as in the code that comes with Chen et al.
2023. The divergence is computed by quadrature. Student's paired t-tests compare each method with local distillation and
with the surrogate loss that no estimator carries to the latents. The table goes to scripts/results/helmholtz.md.
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
"""Settings of each method. Without an estimator only the latents' own losses reach the latents, as in that code."""
BASELINES = ("local", "surrogate, no estimator")
RATE, POINTS = 1e-2, 272


def descend(distiller, batches, steps):
    """Train a distiller by Adam on what ``batches`` gives for each step."""
    optimizer = torch.optim.Adam(distiller.trainable(), lr=RATE)
    for step in range(steps):
        terms = distiller.losses(batches(step))
        loss = sum(distiller.loss_weights.get(name, 1.0) * value.mean() for name, value in terms.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def teacher_of(seed, points, steps):
    """Return a machine of width 8 that wake-sleep has trained on the points."""
    torch.manual_seed(seed)
    machine = HelmholtzMachine(in_shape=(2,), width=8)
    descend(ELBO(machine), lambda _: {"input": points}, steps)
    return machine.requires_grad_(False)


def distilled(teacher, student, seed, steps, **options):
    """Return a copy of the student after its training by one method."""
    student = copy.deepcopy(student)
    distiller = SemiAuxiliary(student, teacher, calibrated=False, **options)
    generator = torch.Generator().manual_seed(seed)

    def noise(_):
        return {"input": torch.empty(POINTS, 0), **pack_noise(distiller.draw_noise(POINTS, generator=generator))}

    descend(distiller, noise, steps)
    return student


def study(seeds, steps):
    """Return the divergences by method, and the mean log densities of the teachers."""
    data = OldFaithful()
    data.prepare_data()
    data.setup()
    points = next(iter(data.train_eval_dataloader()))["input"]
    found, densities = {name: [] for name in METHODS}, []
    for seed in range(seeds):
        teacher = teacher_of(seed, points, steps)
        densities.append(float(teacher.log_density(points).mean()))
        torch.manual_seed(10_000 + seed)
        student = HelmholtzMachine(in_shape=(2,), width=2)
        for name, options in METHODS.items():
            found[name].append(kl_by_quadrature(teacher, distilled(teacher, student, seed, steps, **options)))
        print(seed, {name: round(values[-1], 4) for name, values in found.items()}, flush=True)
    return found, densities


def row(name, values, found):
    """Return a line of the table."""
    cells = [f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}", f"{statistics.median(values):.4f}"]
    for other in BASELINES:
        if name == other:
            cells.append("-")
            continue
        test = stats.ttest_rel(values, found[other])
        cells.append(f"{statistics.mean(values) - statistics.mean(found[other]):+.4f} (p = {test.pvalue:.2g})")
    return f"| {name} | " + " | ".join(cells) + " |"


def main():
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    found, densities = study(options.seeds, options.steps)
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
        *(row(name, values, found) for name, values in found.items()),
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
