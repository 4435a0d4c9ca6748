"""Graphical models distilled without data: the experiments ``hvae_*`` and ``vrnn_*``, compared with two baselines.

    python scripts/graphical_study.py [--folder outputs/graphical] [--only mnist_12 ...]

Runs the experiments one after the other on one thread; finished ones are not run again. For each experiment the table
has the eight distances of Chen et al. 2023 (four to the data, four to the teacher's samples on the same noise; three
seeds), the reference scores, and Student's paired t-test of the student against local distillation and against the
same student trained on data (the paper's "scratch"). It is written to scripts/results/graphical_study.md.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from bench_common import markdown_table, publish
from scipy import stats

import kdzoo
from kdzoo.config import compose

RUNS = {
    **{f"mnist_{width}": ("hvae_mnist", [f"student.width={width}"]) for width in (12, 20, 32)},
    **{f"fashion_{width}": ("hvae_fashion_mnist", [f"student.width={width}"]) for width in (12, 20, 32)},
    "jsb": ("vrnn_jsb", []),
    "kanji": ("vrnn_kanji", []),
}
"""Experiment and overrides, by section of the page."""
DISTANCES = ("frechet", "emd", "mmd", "one_nn")
DIAGNOSIS = ("surrogate", "paired_error", "dispersion")
SMALLEST_SPREAD = 1e-12
"""Values with a smaller spread, such as those of one teacher for all seeds, are taken as equal: no t-test is made."""


def run_experiment(name: str, folder: Path) -> dict[str, Any]:
    """Run an experiment unless it is finished, and return its report."""
    experiment, overrides = RUNS[name]
    paths = [f"output_dir={folder / name}", f"cache_dir={folder / 'cache'}"]
    return kdzoo.run(compose(f"experiment={experiment}", *overrides, *paths))


def metric_values(report: dict[str, Any], role: str, key: str) -> list[float]:
    """Return the values of a metric or of a fidelity to the teacher over the seeds; empty if it was not measured."""
    model = report[role] if role in ("teacher", "student", "control") else report["controls"][role]
    measurement = {**model["metrics"], **report["fidelity"].get(role, {})}.get(key)
    return [] if measurement is None else list(measurement["values"])


def mean_and_deviation(values: list[float]) -> str:
    """Return mean and standard deviation over the seeds as a cell of the table."""
    if not values:
        return "-"
    tensor = torch.tensor(values, dtype=torch.float64)
    is_constant = float(tensor.std()) <= SMALLEST_SPREAD * float(tensor.abs().max())
    return f"{tensor.mean():.4g}" if is_constant else f"{tensor.mean():.4g} ± {tensor.std():.2g}"


def difference_to(report: dict[str, Any], other: str, key: str) -> str:
    """Return the mean difference between student and another model, with the p-value of the paired t-test."""
    student, baseline = metric_values(report, "student", key), metric_values(report, other, key)
    if not student or not baseline:
        return "-"
    difference = sum(student) / len(student) - sum(baseline) / len(baseline)
    differences = torch.tensor(student) - torch.tensor(baseline)
    if float(differences.std()) <= SMALLEST_SPREAD:
        return f"{difference:+.3g}"
    return f"{difference:+.3g} (p = {stats.ttest_rel(student, baseline).pvalue:.2g})"


def make_section(name: str, report: dict[str, Any]) -> str:
    """Return the section of the page on one experiment."""
    keys = [*DISTANCES, *(f"{key}_paired" for key in DISTANCES), *DIAGNOSIS]
    roles = {"teacher": "teacher", "ours": "student", "local": "local", "scratch": "control"}
    roles |= {"data": "data", "teacher again": "teacher_again"}
    rows = [
        [label, *(mean_and_deviation(metric_values(report, role, key)) for key in keys)]
        for label, role in roles.items()
    ]
    rows += [
        [f"ours - {label}", *(difference_to(report, role, key) for key in keys)]
        for label, role in (("local", "local"), ("scratch", "control"))
    ]
    bounds = {role: metric_values(report, role, "negative_bound") for role in ("teacher", "control")}
    likelihood = (
        f"negative bound of the test part, nats: teacher {mean_and_deviation(bounds['teacher'])}, "
        f"scratch {mean_and_deviation(bounds['control'])}."
    )
    sizes = ", ".join(f"{role} {report[role]['parameters']:,}" for role in ("teacher", "student"))
    notes = [f"Parameters: {sizes}.", likelihood if bounds["teacher"] else None, report.get("recommendation")]
    return f"## {name} (`{RUNS[name][0]}`)\n\n{markdown_table(['', *keys], rows)}\n\n{' '.join(filter(None, notes))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/graphical"), help="folder of the runs and the cache"
    )
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS), help="experiments to run and show")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sections = [make_section(name, run_experiment(name, options.folder)) for name in options.only]
    publish("graphical_study", "Graphical models distilled without data", *sections)


if __name__ == "__main__":
    main()
