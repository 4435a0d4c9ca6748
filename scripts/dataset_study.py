"""MNIST in ten images: the experiments ``dataset_*``, and accuracy of their sets under other training protocols.

    python scripts/dataset_study.py [--folder outputs/dataset] [--only dataset_logistic ...] [--inits 20]

Runs the experiments one after the other on one thread; finished runs are not repeated. Then networks of several
architectures, one of which is unseen by all sets, are trained on the sets by five protocols. The learning rate of plain
gradient descent is chosen on validation data for each set, the same for all architectures; all else is fixed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from bench_common import markdown_table, publish

import kdzoo
from kdzoo import config
from kdzoo.config import compose
from kdzoo.core.batch import labelled_samples
from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.protocols import ProtocolMatrix, protocol_matrix
from kdzoo.dataset_distillation.unseen_architecture import unseen_architecture
from kdzoo.runs.job import Job, for_seed
from kdzoo.storage.checkpoint import load_student

EXPERIMENTS = {
    "softmax regression": ("dataset_logistic", []),
    "softmax regression, one step": ("dataset_logistic", ["student.steps=1"]),
    "small convnet": ("dataset_convnet", []),
    "LeNet": ("dataset_lenet", ["seeds=[0]"]),
    "LeNet, fixed start": ("dataset_lenet_fixed", []),
    "LeNet, fixed start, five images": ("dataset_lenet_fixed", ["student.examples=5", "seeds=[0]"]),
    "robust": ("dataset_robust", []),
    "robust, Fashion-MNIST": ("dataset_robust", ["data=fashion_mnist"]),
    "plain, Fashion-MNIST": ("dataset_logistic", ["data=fashion_mnist"]),
}
"""Experiments with their configuration overrides, by row of the table."""
MATRIX_SETS = ("softmax regression", "robust", "plain, Fashion-MNIST", "robust, Fashion-MNIST")
"""Sets for which the protocol matrix is computed."""
ARCHITECTURES = ("logistic", "mlp")
SGD_RATES = (0.01, 0.03, 0.1, 0.3)
RATE_IMAGES = 2000
"""Number of validation images for choosing the learning rate, with 5 networks."""


def run_experiment(name: str, folder: Path) -> dict[str, Any]:
    """Run an experiment unless it is finished, and return its report."""
    experiment, experiment_overrides = EXPERIMENTS[name]
    output_dir = folder / name.replace(", ", "-").replace(" ", "_")
    overrides = [f"experiment={experiment}", *experiment_overrides]
    cfg = compose(*overrides, f"output_dir={output_dir}", f"cache_dir={folder / 'cache'}")
    return kdzoo.run(cfg, command=f"kdzoo {' '.join(overrides)}")


def make_inner_networks(synthetic_set: SyntheticSet, sizes: dict[str, Any]) -> dict[str, InnerNetwork]:
    """Return the networks to train on the sets, by name; the last one is unseen by all sets."""
    allow = config.packaged_targets()
    cfg = config.to_container(compose("distiller=dataset", f"inner_network=[{','.join(ARCHITECTURES)}]").inner_network)
    nodes = {name: config.with_sizes(cfg[name], sizes, allow) for name in ARCHITECTURES}
    return {name: config.instantiate(node, allow=allow) for name, node in nodes.items()} | unseen_architecture(
        synthetic_set
    )


def evaluate_protocols(name: str, seed: int, folder: Path, inits: int) -> tuple[ProtocolMatrix, float]:
    """Return the protocol matrix of the set of a seed on test data, and the learning rate of plain gradient descent."""
    experiment, overrides = EXPERIMENTS[name]
    settings = for_seed(compose(f"experiment={experiment}", *overrides), seed)
    data = Job(settings, seed, folder, config.packaged_targets()).data()
    synthetic_set = load_student(folder / name.replace(", ", "-").replace(" ", "_") / f"seed_{seed}" / "student")
    assert isinstance(synthetic_set, SyntheticSet)
    validation_samples = [values[:RATE_IMAGES] for values in labelled_samples(data.val_dataloader())]
    inner_networks = make_inner_networks(synthetic_set, data.sizes)
    best_rate = max(
        SGD_RATES,
        key=lambda candidate: mean_accuracy(
            protocol_matrix(
                synthetic_set, inner_networks, *validation_samples, protocols=["sgd"], inits=5, sgd_rate=candidate
            )
        ),
    )
    return protocol_matrix(
        synthetic_set, inner_networks, *labelled_samples(data.test_dataloader()), inits=inits, sgd_rate=best_rate
    ), best_rate


def mean_accuracy(matrix: ProtocolMatrix) -> float:
    """Return the mean accuracy over all cells of a protocol matrix."""
    return float(matrix.mean().mean())


def format_percent(metric: dict[str, Any], name: str = "accuracy") -> str:
    """Return mean and standard deviation of a metric over the seeds, in percent."""
    values = 100 * torch.tensor(metric["metrics"][name]["values"])
    return f"{values.mean():.2f} ± {values.std():.2f}" if len(values) > 1 else f"{values.mean():.2f}"


def format_row(name: str, report: dict[str, Any]) -> list[str]:
    """Return a row of the table of experiments."""
    student, seeds = report["student"], len(report["student"]["metrics"]["accuracy"]["values"])
    return [
        name,
        format_percent(student),
        f"{100 * student['metrics']['accuracy_std']['mean']:.2f}",
        f"{100 * student['metrics']['accuracy_worst']['mean']:.2f}",
        format_percent(report["control"]) if report["control"] else "",
        format_percent(report["controls"]["mean"]) if "mean" in report["controls"] else "",
        format_percent(report["teacher"]),
        f"{report['cpu_seconds']['student'] / seeds:.0f}",
        str(seeds),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/dataset"), help="where runs and cache are kept")
    parser.add_argument("--only", nargs="*", default=list(EXPERIMENTS), help="names of the table's rows")
    parser.add_argument("--inits", type=int, default=20, help="initial weights of each cell of a matrix")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reports = {name: run_experiment(name, options.folder) for name in options.only}
    headers = [
        "set",
        "accuracy, %",
        "± initial weights",
        "worst",
        "random images",
        "class means",
        "all data",
        "CPU s",
        "seeds",
    ]
    paragraphs = [markdown_table(headers, [format_row(name, report) for name, report in reports.items()])]
    for name in [name for name in MATRIX_SETS if name in reports]:
        matrix, rate = evaluate_protocols(name, 0, options.folder, options.inits)
        paragraphs.append(
            f"{name}, seed 0, plain gradient descent at {rate:g}; mean {100 * mean_accuracy(matrix):.1f}, "
            f"worst cell {100 * float(matrix.mean().min()):.1f}:\n\n{matrix.to_markdown()}"
        )
        (options.folder / f"matrix-{name}.json").write_text(json.dumps(matrix.accuracy.tolist()))
    publish("dataset", "MNIST and Fashion-MNIST in ten images", *paragraphs)


if __name__ == "__main__":
    main()
