"""Graphical models taught without data: the experiments ``hvae_*`` and ``vrnn_*``, ours against local and scratch.

    python scripts/graphical_study.py [--folder outputs/graphical] [--only mnist_12 ...]

Runs the experiments one after the other on one thread; what is finished is not done again. For each, the eight
distances of Chen et al. 2023 (four to the data, four to the teacher's samples on the same noise; three seeds), the
floors, and Student's paired t-test of the student against local distillation and against the same student trained on
data. The table goes to scripts/results/graphical_study.md.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from bench_common import publish, table
from scipy import stats

import kdzoo
from kdzoo.config import compose

RUNS = {
    **{f"mnist_{width}": ("hvae_mnist", [f"student.width={width}"]) for width in (12, 20, 32)},
    **{f"fashion_{width}": ("hvae_fashion_mnist", [f"student.width={width}"]) for width in (12, 20, 32)},
    "jsb": ("vrnn_jsb", []),
    "kanji": ("vrnn_kanji", []),
}
"""Experiments and what is changed in them."""
DISTANCES = ("frechet", "emd", "mmd", "one_nn")
MORE = ("surrogate", "paired_error", "dispersion")


def run(name: str, folder: Path) -> dict[str, Any]:
    """Return the report of an experiment, which is run if it is not finished."""
    experiment, changes = RUNS[name]
    paths = [f"output_dir={folder / name}", f"cache_dir={folder / 'cache'}"]
    return kdzoo.run(compose(f"experiment={experiment}", *changes, *paths))


def values_of(report: dict[str, Any], role: str, key: str) -> list[float]:
    """Return a measurement of a model over the seeds: a metric, or what is measured against the teacher."""
    one = report[role] if role in ("teacher", "student", "control") else report["controls"][role]
    found = {**one["metrics"], **report["fidelity"].get(role, {})}.get(key)
    return [] if found is None else list(found["values"])


def shown(values: list[float]) -> str:
    """Return mean and deviation."""
    if not values:
        return "-"
    found = torch.tensor(values, dtype=torch.float64)
    same = float(found.std()) <= 1e-12 * float(found.abs().max())
    return f"{found.mean():.4g}" if same else f"{found.mean():.4g} ± {found.std():.2g}"


def against(report: dict[str, Any], other: str, key: str) -> str:
    """Return the mean difference of the student to another model, with the p-value of the paired t-test."""
    ours, theirs = values_of(report, "student", key), values_of(report, other, key)
    if not ours or not theirs:
        return "-"
    difference = sum(ours) / len(ours) - sum(theirs) / len(theirs)
    spread = torch.tensor(ours) - torch.tensor(theirs)
    if float(spread.std()) <= 1e-12:  # no test of differences that are all equal
        return f"{difference:+.3g}"
    return f"{difference:+.3g} (p = {stats.ttest_rel(ours, theirs).pvalue:.2g})"


def page(name: str, report: dict[str, Any]) -> str:
    """Return the part of the page on one experiment."""
    keys = [*DISTANCES, *(f"{key}_paired" for key in DISTANCES), *MORE]
    roles = {"teacher": "teacher", "ours": "student", "local": "local", "scratch": "control"}
    roles |= {"data": "data", "teacher again": "teacher_again"}
    rows = [[label, *(shown(values_of(report, role, key)) for key in keys)] for label, role in roles.items()]
    rows += [
        [f"ours - {label}", *(against(report, role, key) for key in keys)]
        for label, role in (("local", "local"), ("scratch", "control"))
    ]
    likelihood = [
        f"{key.replace('_', ' ')} of the test part, nats: teacher {shown(values_of(report, 'teacher', key))}, "
        f"scratch {shown(values_of(report, 'control', key))}"
        for key in ("negative_bound",)
        if values_of(report, "teacher", key)
    ]
    sizes = ", ".join(f"{role} {report[role]['parameters']:,}" for role in ("teacher", "student"))
    notes = [f"Parameters: {sizes}.", *(f"{line}." for line in likelihood), *filter(None, [report.get("advice")])]
    return f"## {name} (`{RUNS[name][0]}`)\n\n{table(['', *keys], rows)}\n\n{' '.join(notes)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/graphical"), help="where runs and cache are kept")
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS), help="experiments to show")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = [page(name, run(name, options.folder)) for name in options.only]
    publish("graphical_study", "Graphical models taught without data", *parts)


if __name__ == "__main__":
    main()
