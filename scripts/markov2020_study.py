"""Reproduction of the results of Markov 2020 (in Russian) on dataset distillation, and their cost.

    python scripts/markov2020_study.py [--folder outputs/markov2020] [--override trainer.max_epochs=2 ...]

Runs the experiments ``markov2020_*``, copies their figures to ``docs/experiments``, counts the runs that diverge with
and without projection of the step size, and compares synthetic set and full data in bytes and CPU seconds. Finished
parts are not repeated.
"""

import argparse
import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bench_common import markdown_table, publish
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import kdzoo
from kdzoo.config import compose
from kdzoo.data import MNIST
from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.synthetic_set import MAX_STEP_SIZE, MIN_STEP_SIZE
from kdzoo.errors import NonFiniteLossError
from kdzoo.models import ConvNet
from kdzoo.storage import atomic

DOCS = Path(__file__).parents[1] / "docs" / "experiments"


class Row(NamedTuple):
    """A row of the table: a run, the accuracy printed in the source, and names of figures by number in the source."""

    name: str
    experiment: str
    steps: int
    printed: str = ""
    figures: dict[int, str] = {}


ROWS = {
    "sigma_1": Row("regression, N(0, 0.2)", "markov2020_sigma", 1, "", {1: "examples_student", 2: "losses"}),
    "sigma_10": Row("regression, N(0, 0.2)", "markov2020_sigma", 10, "", {3: "examples_student", 4: "losses"}),
    "xavier_1": Row("regression, Xavier", "markov2020_xavier", 1),
    "xavier_10": Row("regression, Xavier", "markov2020_xavier", 10, "88.5", {5: "losses"}),
    "convnet_10": Row(
        "convnet, N(0, 0.05)", "markov2020_convnet", 10, "86 ± 1.6", {6: "examples_student", 7: "losses"}
    ),
}


def load_or_compute(path: Path, compute: Callable[[], Any]) -> Any:
    """Return the JSON value of a file; a missing file is computed and written."""
    if not path.exists():
        atomic.write_json(path, compute())
    return json.loads(path.read_text(encoding="utf-8"))


def run_experiment(key: str, folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Run the experiment of a row unless it is finished, copy its figures and return its report."""
    row = ROWS[key]
    settings = [f"experiment={row.experiment}", f"student.steps={row.steps}", *overrides]
    folders = [f"output_dir={folder / key}", f"cache_dir={folder / 'cache'}"]
    report = kdzoo.run(compose(*settings, *folders), command=f"kdzoo {' '.join(settings)}")
    for number, name in row.figures.items():
        shutil.copy(folder / key / "seed_0" / "figures" / f"{name}.png", DOCS / f"markov2020_figure_{number}.png")
    return report


def load_synthetic_set(folder: Path) -> SyntheticSet:
    """Return the synthetic set in the folder of a seed."""
    synthetic_set = kdzoo.load_student(folder / "student")
    assert isinstance(synthetic_set, SyntheticSet)
    return synthetic_set


def step_size(synthetic_set: SyntheticSet) -> float:
    """Return the learned step size of a set with one inner network."""
    (sizes,) = synthetic_set.step_sizes.values()
    return float(sizes.detach()[0])


def accuracy_table(reports: dict[str, dict[str, Any]], folder: Path) -> str:
    """Return the table of accuracies."""
    rows = []
    for key, report in reports.items():
        row, metrics, seeds = ROWS[key], report["student"]["metrics"], report["seed"]
        accuracies, deviations = (100 * np.array(metrics[name]["values"]) for name in ("accuracy", "accuracy_std"))
        sizes = [step_size(load_synthetic_set(folder / key / f"seed_{seed}")) for seed in seeds]
        cells = [
            f"{accuracies.mean():.1f} ± {accuracies.std(ddof=1):.1f}",
            f"{deviations.mean():.1f}",
            f"{100 * min(metrics['accuracy_worst']['values']):.1f}",
            f"{np.mean(sizes):.2f}",
            f"{report['cpu_seconds']['student'] / len(seeds):.0f}",
        ]
        rows.append([row.name, row.steps, row.printed, *cells])
    headers = ["inner_network", "inner steps", "printed", "accuracy", "over initial weights", "worst"]
    return markdown_table([*headers, "step size", "CPU s"], rows)


INITIAL_STDS = (0.05, 0.2, 0.4, 1.0)
RUNS, UPDATES, BATCH, LEARNING_RATE = 10, 20, 128, 0.01


class UnprojectedSet(SyntheticSet):
    """A synthetic set whose step size is not projected to its range."""

    def project_(self) -> None:
        """Do nothing."""


def compare_projection(x: Tensor, y: Tensor, std: float) -> dict[str, list[dict[str, Any]]]:
    """Return runs with and without projection; a run whose step size stays in its range counts for both."""
    unprojected = [run_gradient_descent(x, y, std, UnprojectedSet, seed) for seed in range(RUNS)]
    projected = [
        run_gradient_descent(x, y, std, SyntheticSet, i) if run["has_left"] else run
        for i, run in enumerate(unprojected)
    ]
    return {"projected": projected, "free": unprojected}


def run_gradient_descent(x: Tensor, y: Tensor, std: float, set_class: type[SyntheticSet], seed: int) -> dict[str, Any]:
    """Train a set by plain gradient descent; return the update at which it diverged, or None, and statistics."""
    torch.manual_seed(seed)
    inner_network = InnerNetwork(make_small_convnet(x), init="normal", std=std)
    options = {"steps": 10, "labels": "fixed", "step_size": 0.01, "step_sizes": "shared"}
    synthetic_set = set_class(
        in_shape=x.shape[1:], num_classes=10, inner_network={"convnet_8": inner_network}, **options
    )
    optimizer = torch.optim.SGD(
        [parameter for parameter in synthetic_set.parameters() if parameter.requires_grad], lr=LEARNING_RATE
    )
    record: dict[str, Any] = {"lost": None, "loss": None, "largest": 0.0, "has_left": False}
    for update in range(UPDATES):
        index = torch.randint(len(x), (BATCH,))
        loss = loss_on_real_data(synthetic_set, inner_network, x[index], y[index])
        if not loss.isfinite():
            return {**record, "lost": update}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record["loss"] = float(loss.detach())
        record["has_left"] |= not MIN_STEP_SIZE <= step_size(synthetic_set) <= MAX_STEP_SIZE
        synthetic_set.project_()
        record["largest"] = max(record["largest"], abs(step_size(synthetic_set)))
    return record if synthetic_set.images.isfinite().all() else {**record, "lost": UPDATES}


def loss_on_real_data(synthetic_set: SyntheticSet, inner_network: InnerNetwork, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss on real data of a new network after training on the set; NaN if the training diverges."""
    try:
        networks = synthetic_set.train_networks("convnet_8", inner_network.sample(1), engine="full")
    except NonFiniteLossError:
        return torch.tensor(torch.nan)
    return cross_entropy(inner_network.logits(networks, x)[0], y)


def make_small_convnet(x: Tensor) -> nn.Module:
    """Return the convolutional network of Markov 2020."""
    layers = {"channels": [8], "kernel_size": 5, "padding": "valid", "activation": "tanh", "pooling": "avg"}
    return ConvNet(in_shape=x.shape[1:], num_classes=10, hidden=64, **layers)


def divergence_table(runs_by_std: dict[float, dict[str, list[dict[str, Any]]]]) -> str:
    """Return the table of runs that diverge with and without projection."""
    rows = []
    for std, runs_by_kind in runs_by_std.items():
        cells = [f"{sum(run['has_left'] for run in runs_by_kind['free'])} of {RUNS}"]
        for runs in (runs_by_kind["free"], runs_by_kind["projected"]):
            cells.append(f"{sum(run['lost'] is not None for run in runs)} of {RUNS}")
            cells.append(f"{max(run['largest'] for run in runs):.3g}")
            cells.append(f"{np.median([run['loss'] for run in runs if run['loss'] is not None]):.3g}")
        rows.append([std, *cells])
    cells = ["non-finite", "largest step size", "last loss"]
    headers = [f"{name}: {cell}" for name in ("free", "projected") for cell in cells]
    return markdown_table(["sigma", "left the range", *headers], rows)


EVALUATION_INTERVAL, EVALUATION_IMAGES, MAX_EPOCHS = 5, 1000, {"xavier_10": 10, "convnet_10": 6}
"""Steps between two evaluations on so many validation images; maximal number of epochs on all data."""


def measure_costs(data: MNIST, folder: Path, key: str) -> dict[str, Any]:
    """Return bytes and CPU seconds of trainings on the first set of a row and on all data, from the same weights."""
    synthetic_set = load_synthetic_set(folder / "seed_0")
    set_accuracy = json.loads((folder / "report.json").read_text())["student"]["metrics"]["accuracy"]["values"][0]
    ((name, inner_network),) = synthetic_set.inner_networks.items()
    initial_weights, times = inner_network.held_out(1), []
    for _ in range(20):
        started = time.process_time()
        with torch.no_grad():
            synthetic_set.train_networks(name, initial_weights)
        times.append(time.process_time() - started)
    n_bytes = sum(parameter.numel() * parameter.element_size() for parameter in synthetic_set.parameters())
    costs_on_all_data = train_on_all_data(data, inner_network, initial_weights[0], set_accuracy, MAX_EPOCHS[key])
    return {"bytes": n_bytes, "seconds": float(np.median(times)), "accuracy": set_accuracy, **costs_on_all_data}


def train_on_all_data(
    data: MNIST, inner_network: InnerNetwork, initial_weights: Tensor, target_accuracy: float, max_epochs: int
) -> dict[str, Any]:
    """Train a network until an epoch does not improve it; measure it then, and when it is as good as the set."""
    network = copy.deepcopy(inner_network.model).requires_grad_(True)
    network.load_state_dict(inner_network.state(initial_weights))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    (x, y), validation, test = (split.tensors for split in (data.splits.train, data.splits.val, data.splits.test))
    seconds, step, validation_accuracy, as_good, epoch = 0.0, 0, 0.0, None, 0
    for epoch in range(1, max_epochs + 1):
        for index in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(256):
            started = time.process_time()
            optimizer.zero_grad()
            cross_entropy(network(x[index]), y[index]).backward()
            optimizer.step()
            seconds, step = seconds + time.process_time() - started, step + 1
            if (
                as_good is None
                and step % EVALUATION_INTERVAL == 0
                and accuracy(network, validation[0][:EVALUATION_IMAGES], validation[1][:EVALUATION_IMAGES])
                >= target_accuracy
            ):
                as_good = {"steps": step, "seconds": seconds, "accuracy": accuracy(network, *test)}
        previous_accuracy, validation_accuracy = validation_accuracy, accuracy(network, *validation)
        if validation_accuracy <= previous_accuracy:
            break
    final = {"seconds": seconds, "steps": step, "epochs": epoch, "accuracy": accuracy(network, *test)}
    return {"all": final, "as_good": as_good, "images": len(x)}


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the accuracy of a network on the given images."""
    with torch.no_grad():
        predictions = torch.cat([network(batch).argmax(1) for batch in x.split(1024)])
    return float((predictions == y).double().mean())


def cost_table(costs_by_row: dict[str, dict[str, Any]]) -> str:
    """Return the table of bytes and CPU seconds."""
    rows = []
    for key, costs in costs_by_row.items():
        name, data_bytes = ROWS[key].name, f"{costs['images'] * (28 * 28 + 1):,}"  # one byte per pixel and label
        trainings = [(f"the set, {ROWS[key].steps} steps", f"{costs['bytes']:,}", costs, ".4f")]
        if costs["as_good"]:
            description = f"all data until as good, {costs['as_good']['steps']} steps"
            trainings.append((description, data_bytes, costs["as_good"], ".2f"))
        trainings.append((f"all data, {costs['all']['epochs']} epochs", data_bytes, costs["all"], ".1f"))
        for description, n_bytes, result, digits in trainings:
            rows.append(
                [name, description, n_bytes, f"{result['seconds']:{digits}}", f"{100 * result['accuracy']:.1f}"]
            )
    return markdown_table(["inner_network", "trained on", "bytes", "CPU s", "accuracy"], rows)


def page_paragraphs(
    reports: dict[str, Any], folder: Path, divergences: dict[float, Any], costs: dict[str, Any]
) -> Iterator[str]:
    """Yield the paragraphs of the page."""
    first_report = reports["xavier_10"]
    yield (
        "Ten images of MNIST with fixed one-hot labels and one learned step size. Test accuracy in percent on "
        f"{first_report['splits']['n_test']:,} images: mean over 20 held-out initial weights and seeds "
        f"{first_report['seed']}, ± the deviation over the seeds; beside it the mean deviation over the initial "
        "weights and the worst of all. CPU seconds: of learning one set, on one thread."
    )
    yield accuracy_table(reports, folder)
    yield (
        f"The convnet of sigma, ten inner steps, under plain gradient descent of rate {LEARNING_RATE} for images and "
        f"step size without clipping: {RUNS} runs of {UPDATES} updates, on {BATCH} real images each. How many step "
        "sizes left [1e-5, 1]; then, without (free) and with the projection, how many runs became non-finite, the "
        "largest step size in absolute value and the median of the last finite losses (guessing: 2.30)."
    )
    yield divergence_table(divergences)
    yield (
        "Training one network. Bytes: of the set in float32 with labels and step size; of "
        f"{first_report['splits']['n_train']:,} training images with a byte for a pixel and one for the label. All "
        "data: Adam of rate 0.001, batches of 256, until an epoch is no better on 5,000 validation images than the one "
        f"before, at most {' and '.join(map(str, MAX_EPOCHS.values()))} epochs; it is as good as the set when it is on "
        f"{EVALUATION_IMAGES:,} validation images, which is asked every {EVALUATION_INTERVAL} steps and not timed. "
        "Accuracy on the test images: of the set of seed 0 over 20 initial weights, of all data for one network."
    )
    yield cost_table(costs)


def load_mnist() -> MNIST:
    """Return MNIST with the settings of the experiments."""
    data = MNIST(val_size=5000, batch_size=256, normalise=True, seed=0)
    data.prepare_data()
    data.setup("fit")
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/markov2020"), help="where everything is kept")
    parser.add_argument("--override", nargs="*", default=[], help="changes to the configuration of all runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder
    reports = {key: run_experiment(key, folder, options.override) for key in ROWS}
    data = load_mnist()
    training_samples = data.splits.train.tensors
    divergences = {
        std: load_or_compute(folder / f"divergence_{std}.json", partial(compare_projection, *training_samples, std))
        for std in INITIAL_STDS
    }
    costs = {
        key: load_or_compute(folder / f"costs_{key}.json", partial(measure_costs, data, folder / key, key))
        for key in MAX_EPOCHS
    }
    publish("markov2020", "MNIST in ten images: Markov 2020", *page_paragraphs(reports, folder, divergences, costs))


if __name__ == "__main__":
    main()
