"""The results of a first text on dataset distillation in Russian, measured again, and what they cost.

    python scripts/markov2020_study.py [--folder outputs/markov2020] [--override trainer.max_epochs=2 ...]

Runs the experiments ``markov2020_*``, copies their figures to ``docs/experiments``, counts the runs that diverge with
and without the projection of the step size, and compares set and full data in bytes and CPU seconds. What is finished
is not done again.
"""

import argparse
import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_common import publish, table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import kdzoo
from kdzoo import atomic
from kdzoo.config import compose
from kdzoo.data import MNIST
from kdzoo.errors import NonFiniteLossError
from kdzoo.models import ConvNet
from kdzoo.synthetic import Learner, SyntheticSet
from kdzoo.synthetic.synthetic_set import LARGEST_STEP, SMALLEST_STEP

DOCS = Path(__file__).parents[1] / "docs" / "experiments"


@dataclass(frozen=True)
class Row:
    """A run of the table: what it is, how it is started, what the source prints, which of its figures it redraws."""

    name: str
    experiment: str
    steps: int
    printed: str = ""
    figures: tuple[tuple[int, str], ...] = ()


ROWS = {
    "sigma_1": Row(
        "softmax regression, N(0, 0.2)",
        "markov2020_sigma",
        1,
        figures=((1, "examples_student"), (2, "losses")),
    ),
    "sigma_10": Row(
        "softmax regression, N(0, 0.2)",
        "markov2020_sigma",
        10,
        figures=((3, "examples_student"), (4, "losses")),
    ),
    "xavier_1": Row("softmax regression, Xavier", "markov2020_xavier", 1),
    "xavier_10": Row("softmax regression, Xavier", "markov2020_xavier", 10, "88.5", ((5, "losses"),)),
    "convnet_10": Row(
        "small convnet, N(0, 0.05)",
        "markov2020_convnet",
        10,
        "86 ± 1.6",
        ((6, "examples_student"), (7, "losses")),
    ),
}


def remembered(path: Path, compute: Callable[[], Any]) -> Any:
    """Return what ``compute`` returned when it was first called for a file."""
    if not path.exists():
        atomic.write_json(path, compute())
    return json.loads(path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- the experiments


def run(key: str, folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the report of a row's run."""
    row = ROWS[key]
    settings = [f"experiment={row.experiment}", f"student.steps={row.steps}", *overrides]
    places = [f"output_dir={folder / key}", f"cache_dir={folder / 'cache'}"]
    report = kdzoo.run(compose(*settings, *places), command=f"kdzoo {' '.join(settings)}")
    for number, name in row.figures:
        shutil.copy(folder / key / "seed_0" / "figures" / f"{name}.png", DOCS / f"markov2020_figure_{number}.png")
    return report


def results(reports: dict[str, dict[str, Any]], folder: Path) -> str:
    """Return the table of accuracies."""
    lines = []
    for key, report in reports.items():
        row, metrics = ROWS[key], report["student"]["metrics"]
        accuracy, within = (100 * np.array(metrics[name]["values"]) for name in ("accuracy", "accuracy_std"))
        sizes = [step_size(folder / key / f"seed_{seed}") for seed in report["seed"]]
        lines.append(
            [
                row.name,
                row.steps,
                row.printed,
                f"{accuracy.mean():.1f} ± {accuracy.std(ddof=1):.1f}",
                f"{within.mean():.1f}",
                f"{100 * min(metrics['accuracy_worst']['values']):.1f}",
                f"{100 * report['teacher']['metrics']['accuracy']['mean']:.1f}",
                f"{np.mean(sizes):.2f}",
                f"{report['cpu_seconds']['student'] / len(sizes):.0f}",
            ]
        )
    headers = ["learner", "inner steps", "printed", "accuracy", "over initial weights", "worst", "all data"]
    return table([*headers, "step size", "CPU s a set"], lines)


def step_size(folder: Path) -> float:
    """Return the learned step size of a seed's set."""
    sizes = load(folder).step_sizes
    return float(next(iter(sizes.values()))[0].detach())


def load(folder: Path) -> SyntheticSet:
    """Return the set of a seed."""
    few = kdzoo.load_student(folder / "student")
    assert isinstance(few, SyntheticSet)
    return few


# ---------------------------------------------------------------- with and without the projection

STDS = (0.05, 0.2, 0.4, 1.0)
RUNS, UPDATES, BATCH, RATE = 10, 30, 128, 0.01


class Unprojected(SyntheticSet):
    """A set whose step size may leave its range."""

    def project_(self) -> None:
        """Leave everything as it is."""


def divergence(x: Tensor, y: Tensor, std: float) -> dict[str, list[dict[str, Any]]]:
    """Return the runs with and without the projection; they are the same where the step size stays in its range."""
    free = [plain_run(x, y, std, Unprojected, seed) for seed in range(RUNS)]
    projected = [plain_run(x, y, std, SyntheticSet, i) if one["has_left"] else one for i, one in enumerate(free)]
    return {"projected": projected, "free": free}


def plain_run(x: Tensor, y: Tensor, std: float, kind: type[SyntheticSet], seed: int) -> dict[str, Any]:
    """Move a set by plain gradient descent.

    Returns:
        The number of updates before it was not finite (None for never), the last finite loss, the largest step size in
        absolute value, and whether an update took the step size out of its range.
    """
    torch.manual_seed(seed)
    learner = Learner(small_convnet(x), init="normal", std=std)
    options = {"steps": 10, "labels": "fixed", "step_size": 0.01, "step_sizes": "shared"}
    few = kind(in_shape=x.shape[1:], num_classes=10, learner={"convnet": learner}, **options)
    optimizer = torch.optim.SGD([one for one in few.parameters() if one.requires_grad], lr=RATE)
    (size,) = few.step_sizes.values()
    found = {"lost": None, "loss": None, "largest": 0.0, "has_left": False}
    for update in range(UPDATES):
        rows = torch.randint(len(x), (BATCH,))
        loss = real_loss(few, learner, x[rows], y[rows])
        if not loss.isfinite():
            return {**found, "lost": update}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved = float(size.detach())
        few.project_()
        found["loss"] = float(loss.detach())
        found["largest"] = max(found["largest"], abs(float(size.detach())))
        found["has_left"] |= not SMALLEST_STEP <= moved <= LARGEST_STEP
    is_finite = all(bool(one.isfinite().all()) for one in few.parameters())
    return found if is_finite else {**found, "lost": UPDATES}


def real_loss(few: SyntheticSet, learner: Learner, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss on real data of a new network that is trained on the set; NaN if it diverges."""
    try:
        networks = few.train_networks("convnet", learner.sample(1), engine="full")
    except NonFiniteLossError:
        return torch.tensor(torch.nan)
    return cross_entropy(learner.logits(networks, x)[0], y)


def small_convnet(x: Tensor) -> nn.Module:
    """Return the source's convolutional network."""
    layers = {"channels": [8], "kernel_size": 5, "padding": "valid", "activation": "tanh", "pooling": "avg"}
    return ConvNet(in_shape=x.shape[1:], num_classes=10, hidden=64, **layers)


def divergences(parts: dict[float, dict[str, list[dict[str, Any]]]]) -> str:
    """Return the table of runs that diverged."""
    lines = []
    for std, part in parts.items():
        cells = [f"{sum(one['has_left'] for one in part['free'])} of {RUNS}"]
        for runs in (part["free"], part["projected"]):
            cells.append(f"{sum(one['lost'] is not None for one in runs)} of {RUNS}")
            cells.append(f"{max(one['largest'] for one in runs):.3g}")
            cells.append(f"{np.median([one['loss'] for one in runs if one['loss'] is not None]):.3g}")
        lines.append([std, *cells])
    cells = ["non-finite", "largest step size", "last loss"]
    headers = [f"{name}: {cell}" for name in ("free", "projected") for cell in cells]
    return table(["sigma", "left [1e-5, 1]", *headers], lines)


# ---------------------------------------------------------------- what it saves

EVERY, JUDGES = 5, 1000
"""Steps between two looks at so many validation images."""
EPOCHS = {"xavier_10": 10, "convnet_10": 6}
"""Of a training on all data, at most."""


def costs(data: MNIST, folder: Path, key: str) -> dict[str, Any]:
    """Return bytes and CPU seconds of a training on a row's first set and on all data, from the same initial weights."""
    few = load(folder / "seed_0")
    accuracy = json.loads((folder / "report.json").read_text())["student"]["metrics"]["accuracy"]["values"][0]
    name, learner = next(iter(few.learners.items()))
    begin = learner.held_out(1)
    times = []
    for _ in range(20):
        started = time.process_time()
        with torch.no_grad():
            few.train_networks(name, begin)
        times.append(time.process_time() - started)
    size = sum(one.numel() * one.element_size() for one in few.parameters())
    full = on_all_data(data, learner, begin[0], accuracy, EPOCHS[key])
    return {"bytes": size, "seconds": float(np.median(times)), "accuracy": accuracy, **full}


def on_all_data(data: MNIST, learner: Learner, begin: Tensor, wanted: float, epochs: int) -> dict[str, Any]:
    """Train one network by Adam until an epoch is no better than the one before it.

    Returns:
        CPU seconds, steps, epochs and test accuracy at the end, and the same from when it was first as accurate on
        validation images as wanted.
    """
    network = copy.deepcopy(learner.model).requires_grad_(True)
    network.load_state_dict(learner.state(begin))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    (x, y), (val_x, val_y), (test_x, test_y), _ = data.splits
    spent, step, best, as_good, epoch = 0.0, 0, 0.0, None, 0
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(256):
            started = time.process_time()
            optimizer.zero_grad()
            cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            spent, step = spent + time.process_time() - started, step + 1
            if as_good is None and step % EVERY == 0 and right(network, val_x[:JUDGES], val_y[:JUDGES]) >= wanted:
                as_good = {"steps": step, "seconds": spent, "accuracy": right(network, test_x, test_y)}
        before, best = best, right(network, val_x, val_y)
        if best <= before:
            break
    found = {"seconds": spent, "steps": step, "epochs": epoch, "accuracy": right(network, test_x, test_y)}
    return {"all": found, "as_good": as_good, "images": len(x)}


def right(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the accuracy of a network."""
    with torch.no_grad():
        said = torch.cat([network(few).argmax(1) for few in x.split(1024)])
    return float((said == y).double().mean())


def savings(parts: dict[str, dict[str, Any]]) -> str:
    """Return the table of bytes and CPU seconds."""
    lines = []
    for key, part in parts.items():
        full, as_good = part["all"], part["as_good"]
        stored = part["images"] * (28 * 28 + 1)  # a byte for a pixel and one for the label
        name = ROWS[key].name
        lines.append(
            [
                f"{name}, the set",
                f"{part['bytes']:,}",
                10,
                f"{part['seconds']:.4f}",
                f"{100 * part['accuracy']:.1f}",
            ]
        )
        if as_good:
            cells = [f"{stored:,}", as_good["steps"], f"{as_good['seconds']:.2f}", f"{100 * as_good['accuracy']:.1f}"]
            lines.append([f"{name}, all data until it is as good as the set", *cells])
        cells = [f"{stored:,}", f"{full['steps']:,}", f"{full['seconds']:.1f}", f"{100 * full['accuracy']:.1f}"]
        lines.append([f"{name}, all data, {full['epochs']} epochs", *cells])
    return table(["learner and data", "bytes", "steps", "CPU s", "accuracy"], lines)


# ---------------------------------------------------------------- the page


def mnist() -> MNIST:
    """Return the data as the experiments have them."""
    data = MNIST(val_size=5000, batch_size=256, normalise=True, seed=0)
    data.prepare_data()
    data.setup("fit")
    return data


def page(
    reports: dict[str, Any], folder: Path, parts: dict[float, Any], saved: dict[str, dict[str, Any]]
) -> Iterator[str]:
    """Yield the paragraphs of the page."""
    first = reports["xavier_10"]
    yield (
        "Ten images of MNIST with fixed one-hot labels and one learned step size. Test accuracy in percent on "
        f"{first['splits']['n_test']:,} images: mean over 20 held-out initial weights and seeds {first['seed']}, "
        "± the deviation over the seeds; beside it the mean deviation over the initial weights and the worst of all. "
        "`all data` is one network of the same architecture trained on all training images by Adam for as many steps; "
        "CPU seconds are those of learning one set, on one thread."
    )
    yield results(reports, folder)
    yield (
        f"The convnet of sigma with ten inner steps under plain gradient descent of rate {RATE} for images and step "
        f"size, without clipping: {RUNS} runs of {UPDATES} updates on {BATCH} real images each. How many left "
        "[1e-5, 1] with their step size, became non-finite without and with the projection, the largest step size in "
        "absolute value and the median of the last finite losses (guessing: 2.30)."
    )
    yield divergences(parts)
    yield (
        "Training one network. Bytes are those of a set as float32 with labels and step size, and of "
        f"{first['splits']['n_train']:,} training images with one byte for a pixel and one for the label. All data: "
        "Adam of rate 0.001, batches of 256, until an epoch is no better on 5,000 validation images than the one "
        f"before, at most {' and '.join(map(str, EPOCHS.values()))} epochs; it counts as as good as the set when it is "
        f"on {JUDGES:,} validation images, which is asked every {EVERY} steps and not timed. Accuracy on the test "
        "images: of a set over 20 initial weights, of all data of one network."
    )
    yield savings(saved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/markov2020"), help="where everything is kept")
    parser.add_argument("--override", nargs="*", default=[], help="changes to the configuration of all runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder
    reports = {key: run(key, folder, options.override) for key in ROWS}
    data = mnist()
    parts = {
        std: remembered(folder / f"divergence_{std}.json", partial(divergence, *data.splits.train, std)) for std in STDS
    }
    saved = {key: remembered(folder / f"costs_{key}.json", partial(costs, data, folder / key, key)) for key in EPOCHS}
    publish("markov2020", "MNIST in ten images: Markov 2020", *page(reports, folder, parts, saved))
