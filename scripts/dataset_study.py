"""MNIST in ten images: the experiments ``dataset_*``, and how their sets last under other trainings.

    python scripts/dataset_study.py [--folder outputs/dataset] [--only dataset_logistic ...] [--inits 20]

Runs the experiments one after the other on one thread; what is finished is not done again. Then networks of several
architectures, one of which no set was made for, are trained on the sets in five ways. The rate of plain gradient
descent is chosen for each set on validation data, the same for all architectures; everything else is fixed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from bench_common import publish, table

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
"""Experiments and what is changed in them."""
MATRICES = ("softmax regression", "robust", "plain, Fashion-MNIST", "robust, Fashion-MNIST")
"""Sets whose protocol matrix is taken."""
ARCHITECTURES = ("logistic", "mlp")
SGD_RATES = (0.01, 0.03, 0.1, 0.3)
CHOOSERS = 2000
"""Validation images by which the rate is chosen, with 5 networks."""


def run(name: str, folder: Path) -> dict[str, Any]:
    """Return the report of an experiment."""
    experiment, changes = EXPERIMENTS[name]
    place = folder / name.replace(", ", "-").replace(" ", "_")
    overrides = [f"experiment={experiment}", *changes]
    cfg = compose(*overrides, f"output_dir={place}", f"cache_dir={folder / 'cache'}")
    return kdzoo.run(cfg, command=f"kdzoo {' '.join(overrides)}")


def architectures(few: SyntheticSet, sizes: dict[str, Any]) -> dict[str, InnerNetwork]:
    """Return the networks that are trained on the sets; the last is unseen by all of them."""
    allow = config.packaged_targets()
    cfg = config.to_container(compose("distiller=dataset", f"inner_network=[{','.join(ARCHITECTURES)}]").inner_network)
    nodes = {name: config.with_sizes(cfg[name], sizes, allow) for name in ARCHITECTURES}
    return {name: config.instantiate(node, allow=allow) for name, node in nodes.items()} | unseen_architecture(few)


def matrix(name: str, seed: int, folder: Path, inits: int) -> tuple[ProtocolMatrix, float]:
    """Return the protocol matrix of one seed's set on the test part, and the rate of plain gradient descent."""
    experiment, changes = EXPERIMENTS[name]
    settings = for_seed(compose(f"experiment={experiment}", *changes), seed)
    data = Job(settings, seed, folder, config.packaged_targets()).data()
    few = load_student(folder / name.replace(", ", "-").replace(" ", "_") / f"seed_{seed}" / "student")
    assert isinstance(few, SyntheticSet)
    feature_extractors = [values[:CHOOSERS] for values in labelled_samples(data.val_dataloader())]
    inner_networks = architectures(few, data.sizes)
    rate = max(
        SGD_RATES,
        key=lambda one: _mean(
            protocol_matrix(few, inner_networks, *feature_extractors, protocols=["sgd"], inits=5, sgd_rate=one)
        ),
    )
    return protocol_matrix(
        few, inner_networks, *labelled_samples(data.test_dataloader()), inits=inits, sgd_rate=rate
    ), rate


def _mean(found: ProtocolMatrix) -> float:
    return float(found.mean().mean())


def percent(metric: dict[str, Any], name: str = "accuracy") -> str:
    """Return the mean of a metric over seeds, and its deviation."""
    values = 100 * torch.tensor(metric["metrics"][name]["values"])
    return f"{values.mean():.2f} ± {values.std():.2f}" if len(values) > 1 else f"{values.mean():.2f}"


def row(name: str, report: dict[str, Any]) -> list[str]:
    """Return a row of the table of experiments."""
    student, seeds = report["student"], len(report["student"]["metrics"]["accuracy"]["values"])
    return [
        name,
        percent(student),
        f"{100 * student['metrics']['accuracy_std']['mean']:.2f}",
        f"{100 * student['metrics']['accuracy_worst']['mean']:.2f}",
        percent(report["control"]) if report["control"] else "",
        percent(report["controls"]["mean"]) if "mean" in report["controls"] else "",
        percent(report["teacher"]),
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
    reports = {name: run(name, options.folder) for name in options.only}
    head = [
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
    parts = [table(head, [row(name, report) for name, report in reports.items()])]
    for name in [name for name in MATRICES if name in reports]:
        found, rate = matrix(name, 0, options.folder, options.inits)
        parts.append(
            f"{name}, seed 0, plain gradient descent at {rate:g}; mean {100 * _mean(found):.1f}, "
            f"worst cell {100 * float(found.mean().min()):.1f}:\n\n{found.to_markdown()}"
        )
        (options.folder / f"matrix-{name}.json").write_text(json.dumps(found.accuracy.tolist()))
    publish("dataset", "MNIST and Fashion-MNIST in ten images", *parts)


if __name__ == "__main__":
    main()
