"""Four ways to teach a small residual network on 9,000 photographs of CIFAR-10, against the control trained without a teacher.

    python scripts/cifar10_study.py [--folder outputs/cifar10] [--override trainer.max_epochs=30 ...]

Runs the experiments ``cifar10_*`` one after the other, with the same seeds and one teacher; what is finished is not
done again. Only the first run trains the control: it does not depend on the method, so the other students of the same
seed are compared with it.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_common import publish, table
from scipy import stats

import kdzoo
from kdzoo.config import compose

METHODS = {
    "logit distillation": "cifar10_resnet",
    "decoupled distillation": "cifar10_dkd",
    "hint, middle stage": "cifar10_hint",
    "attention, three stages": "cifar10_attention",
}


def run(experiment: str, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Return the report of an experiment."""
    places = [f"output_dir={folder / experiment}", f"cache_dir={folder / 'cache'}"]
    return kdzoo.run(compose(f"experiment={experiment}", *places, *overrides), command=f"kdzoo experiment={experiment}")


def accuracies(model: dict[str, Any]) -> np.ndarray:
    """Return the test accuracy of every seed, in percent."""
    return 100 * np.array(model["metrics"]["accuracy"]["values"])


def spread(values: np.ndarray, sign: str = "") -> str:
    """Return mean and standard deviation of a sample."""
    return f"{values.mean():{sign}.2f} ± {values.std(ddof=1):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/cifar10"), help="where runs and cache are kept")
    parser.add_argument("--override", nargs="*", default=[], help="changes to the configuration of all runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reports = {name: run(experiment, options.folder, options.override) for name, experiment in METHODS.items()}
    first = next(iter(reports.values()))
    control = accuracies(first["control"])
    rows = [
        ["teacher", f"{accuracies(first['teacher'])[0]:.2f}", "", ""],
        ["control, labels alone", spread(control), "", ""],
    ]
    for name, report in reports.items():
        student = accuracies(report["student"])
        p = stats.ttest_rel(student, control).pvalue
        gain = spread(student - control, "+")
        rows.append([name, spread(student), gain, f"{p:.2f}"])
    splits = first["splits"]
    publish(
        "cifar10",
        "A small residual network taught on part of CIFAR-10",
        f"{first['student']['parameters']:,} parameters taught by {first['teacher']['parameters']:,}; "
        f"{splits['n_train']:,} training and {splits['n_test']:,} test images; seeds {first['seed']}, one teacher. "
        "Test accuracy in percent, mean and standard deviation over the seeds; the gain is over the control of the "
        "same seed, p is that of a paired t-test.",
        table(["", "accuracy", "gain", "p"], rows),
    )


if __name__ == "__main__":
    main()
