"""Four methods of distillation into a small residual network on 9,000 images of CIFAR-10, compared with the control.

    python scripts/cifar10_study.py [--folder outputs/cifar10] [--override trainer.max_epochs=30 ...]

Runs the experiments ``cifar10_*`` one after the other, with the same seeds and one teacher; finished runs are not
repeated. The control, a student trained without a teacher, does not depend on the method: only the first run trains it,
and all students are compared with the control of the same seed.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_common import markdown_table, publish
from scipy import stats

import kdzoo
from kdzoo.config import compose

METHODS = {
    "logit distillation": "cifar10_resnet",
    "decoupled distillation": "cifar10_dkd",
    "hint, middle stage": "cifar10_hint",
    "attention, three stages": "cifar10_attention",
}


def run_experiment(experiment: str, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Run an experiment unless it is finished, and return its report."""
    folders = [f"output_dir={folder / experiment}", f"cache_dir={folder / 'cache'}"]
    return kdzoo.run(
        compose(f"experiment={experiment}", *folders, *overrides), command=f"kdzoo experiment={experiment}"
    )


def test_accuracies(model: dict[str, Any]) -> np.ndarray:
    """Return the test accuracy of every seed, in percent."""
    return 100 * np.array(model["metrics"]["accuracy"]["values"])


def mean_and_deviation(values: np.ndarray, sign: str = "") -> str:
    """Return mean and standard deviation of a sample."""
    return f"{values.mean():{sign}.2f} ± {values.std(ddof=1):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/cifar10"), help="where runs and cache are kept")
    parser.add_argument("--override", nargs="*", default=[], help="changes to the configuration of all runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reports = {
        name: run_experiment(experiment, options.folder, options.override) for name, experiment in METHODS.items()
    }
    first_report = next(iter(reports.values()))
    control = test_accuracies(first_report["control"])
    rows = [
        ["teacher", f"{test_accuracies(first_report['teacher'])[0]:.2f}", "", ""],
        ["control, labels alone", mean_and_deviation(control), "", ""],
    ]
    for name, report in reports.items():
        student = test_accuracies(report["student"])
        p = stats.ttest_rel(student, control).pvalue
        gain = mean_and_deviation(student - control, "+")
        rows.append([name, mean_and_deviation(student), gain, f"{p:.2f}"])
    splits = first_report["splits"]
    publish(
        "cifar10",
        "A small residual network distilled on part of CIFAR-10",
        f"{first_report['student']['parameters']:,} parameters distilled from "
        f"{first_report['teacher']['parameters']:,}; {splits['n_train']:,} training and {splits['n_test']:,} test "
        f"images; seeds {first_report['seed']}, one teacher. Test accuracy in percent, mean and standard deviation "
        "over the seeds; the gain is over the control of the same seed, p is that of a paired t-test.",
        markdown_table(["", "accuracy", "gain", "p"], rows),
    )


if __name__ == "__main__":
    main()
