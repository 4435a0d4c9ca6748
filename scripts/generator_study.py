"""Distilled generators of three sizes beside the same generators that are trained on the data for as many steps.

    python scripts/generator_study.py gan_mnist [--data fashion_mnist] [--widths 21 10 1] [--seeds 3] [--folder ...]

The first argument is an experiment of conf/experiment whose student has a width. Finished runs are not repeated. The
table is written to scripts/results/generators_EXPERIMENT.md, with the data in the name if they are others.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_common import markdown_table, publish
from generator_common import cell, run, values

COLUMNS = ["parameters of the generator", "distilled", "from scratch", "difference", "CPU s"]
ACCURACIES = {"gan_test_accuracy": "GAN-test", "gan_train_accuracy": "GAN-train"}


def row(report: dict[str, Any]) -> list[str]:
    """Return the cells of a student's size."""
    comparison = report["comparison"]
    parameters, largest = (values(report, role, "generative_parameters")[0] for role in ("student", "teacher"))
    p = comparison["p"]
    certainty = "" if p is None else f" (p = {p:.2g})"
    seconds = report["cpu_seconds"]["student"] / len(values(report, "student", "frechet"))
    return [
        f"{parameters:,.0f} (1/{largest / parameters:.3g})",
        *(cell(report, role, "frechet") for role in ("student", "control")),
        f"{comparison['difference']:+.2f}{certainty}",
        f"{seconds:.0f}",
    ]


def accuracy_rows(reports: Mapping[int, dict[str, Any]]) -> list[list[str]]:
    """Return the label accuracies of a conditional teacher, its students and their controls; none for other models."""
    first = next(iter(reports.values()))
    if "gan_test_accuracy" not in first["student"]["metrics"]:
        return []
    rows = [["teacher", *(percent(first, "teacher", metric) for metric in ACCURACIES)]]
    for width, report in reports.items():
        for role, name in (("student", "distilled"), ("control", "from scratch")):
            rows.append([f"{name}, width {width}", *(percent(report, role, metric) for metric in ACCURACIES)])
    return rows


def percent(report: dict[str, Any], role: str, metric: str) -> str:
    """Return the mean of a share over the seeds, in percent."""
    return f"{100 * statistics.mean(values(report, role, metric)):.1f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="name of the experiment file")
    parser.add_argument("--data", help="other data than the experiment's")
    parser.add_argument("--widths", type=int, nargs="+", default=[21, 10, 1], help="widths of the students")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of each run")
    parser.add_argument("--folder", type=Path, default=Path("outputs/generator_study"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = [f"experiment={options.experiment}", *([f"data={options.data}"] if options.data else [])]
    reports = {
        width: run(options.folder, options.seeds, *settings, f"student.width={width}") for width in options.widths
    }
    first = next(iter(reports.values()))
    name = f"{options.experiment}_{options.data}" if options.data else options.experiment
    text = (
        f"Frechet distance to the test images, {options.seeds} seeds, mean and deviation; the teacher has "
        f"{cell(first, 'teacher', 'frechet')}, training images {cell(first, 'data', 'frechet')}. Made by `kdzoo "
        f"{' '.join(settings)} student.width=...`."
    )
    tables = [markdown_table(COLUMNS, [row(report) for report in reports.values()])]
    if accuracies := accuracy_rows(reports):
        reached = percent(first, "data", "classifier_accuracy")
        tables += [
            f"Label accuracy in both directions; of the classifier on test images it is {reached}.",
            markdown_table(["model", *ACCURACIES.values()], accuracies),
        ]
    publish(f"generators_{name}", f"`{name}`", text, *tables)


if __name__ == "__main__":
    main()
