"""The results of a text on dataset distillation (Markov 2020, in Russian), measured again, and what they cost.

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
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bench_common import publish, table
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
    """A run: what is printed of it, and which figures of the source are which of its own."""

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


def remembered(path: Path, compute: Callable[[], Any]) -> Any:
    """Return what ``compute`` returned when it was first called for a file."""
    if not path.exists():
        atomic.write_json(path, compute())
    return json.loads(path.read_text(encoding="utf-8"))


def run(key: str, folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the report of a row's run, and copy its figures."""
    row = ROWS[key]
    settings = [f"experiment={row.experiment}", f"student.steps={row.steps}", *overrides]
    places = [f"output_dir={folder / key}", f"cache_dir={folder / 'cache'}"]
    report = kdzoo.run(compose(*settings, *places), command=f"kdzoo {' '.join(settings)}")
    for number, name in row.figures.items():
        shutil.copy(folder / key / "seed_0" / "figures" / f"{name}.png", DOCS / f"markov2020_figure_{number}.png")
    return report


def load(folder: Path) -> SyntheticSet:
    """Return the set of a seed."""
    few = kdzoo.load_student(folder / "student")
    assert isinstance(few, SyntheticSet)
    return few


def step_size(few: SyntheticSet) -> float:
    """Return the learned step size of a set with one inner network."""
    (sizes,) = few.step_sizes.values()
    return float(sizes.detach()[0])


def results(reports: dict[str, dict[str, Any]], folder: Path) -> str:
    """Return the table of accuracies."""
    lines = []
    for key, report in reports.items():
        row, metrics, seeds = ROWS[key], report["student"]["metrics"], report["seed"]
        accuracy, within = (100 * np.array(metrics[name]["values"]) for name in ("accuracy", "accuracy_std"))
        sizes = [step_size(load(folder / key / f"seed_{seed}")) for seed in seeds]
        cells = [
            f"{accuracy.mean():.1f} ± {accuracy.std(ddof=1):.1f}",
            f"{within.mean():.1f}",
            f"{100 * min(metrics['accuracy_worst']['values']):.1f}",
            f"{np.mean(sizes):.2f}",
            f"{report['cpu_seconds']['student'] / len(seeds):.0f}",
        ]
        lines.append([row.name, row.steps, row.printed, *cells])
    headers = ["inner_network", "inner steps", "printed", "accuracy", "over initial weights", "worst"]
    return table([*headers, "step size", "CPU s"], lines)


STDS = (0.05, 0.2, 0.4, 1.0)
RUNS, UPDATES, BATCH, RATE = 10, 20, 128, 0.01


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
    """Move a set by plain gradient descent; return when it was lost (None for never), and how it went until then."""
    torch.manual_seed(seed)
    inner_network = InnerNetwork(small_convnet(x), init="normal", std=std)
    options = {"steps": 10, "labels": "fixed", "step_size": 0.01, "step_sizes": "shared"}
    few = kind(in_shape=x.shape[1:], num_classes=10, inner_network={"convnet_8": inner_network}, **options)
    optimizer = torch.optim.SGD([one for one in few.parameters() if one.requires_grad], lr=RATE)
    found = {"lost": None, "loss": None, "largest": 0.0, "has_left": False}
    for update in range(UPDATES):
        rows = torch.randint(len(x), (BATCH,))
        loss = real_loss(few, inner_network, x[rows], y[rows])
        if not loss.isfinite():
            return {**found, "lost": update}
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found["loss"] = float(loss.detach())
        found["has_left"] |= not MIN_STEP_SIZE <= step_size(few) <= MAX_STEP_SIZE
        few.project_()
        found["largest"] = max(found["largest"], abs(step_size(few)))
    return found if few.images.isfinite().all() else {**found, "lost": UPDATES}


def real_loss(few: SyntheticSet, inner_network: InnerNetwork, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss on real data of a new network that is trained on the set; NaN if it diverges."""
    try:
        networks = few.train_networks("convnet_8", inner_network.sample(1), engine="full")
    except NonFiniteLossError:
        return torch.tensor(torch.nan)
    return cross_entropy(inner_network.logits(networks, x)[0], y)


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
    return table(["sigma", "left the range", *headers], lines)


EVERY, JUDGES, EPOCHS = 5, 1000, {"xavier_10": 10, "convnet_10": 6}
"""Steps between two looks at so many validation images; epochs on all data at most."""


def costs(data: MNIST, folder: Path, key: str) -> dict[str, Any]:
    """Return bytes and CPU seconds of a training on a row's first set and on all data, from the same weights."""
    few = load(folder / "seed_0")
    accuracy = json.loads((folder / "report.json").read_text())["student"]["metrics"]["accuracy"]["values"][0]
    ((name, inner_network),) = few.inner_networks.items()
    begin, times = inner_network.held_out(1), []
    for _ in range(20):
        started = time.process_time()
        with torch.no_grad():
            few.train_networks(name, begin)
        times.append(time.process_time() - started)
    size = sum(one.numel() * one.element_size() for one in few.parameters())
    full = on_all_data(data, inner_network, begin[0], accuracy, EPOCHS[key])
    return {"bytes": size, "seconds": float(np.median(times)), "accuracy": accuracy, **full}


def on_all_data(data: MNIST, inner_network: InnerNetwork, begin: Tensor, wanted: float, epochs: int) -> dict[str, Any]:
    """Train one network by Adam until an epoch is no better than the one before; measure it then, and once as good."""
    network = copy.deepcopy(inner_network.model).requires_grad_(True)
    network.load_state_dict(inner_network.state(begin))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    (x, y), val, test = (split.tensors for split in (data.splits.train, data.splits.val, data.splits.test))
    spent, step, last, as_good, epoch = 0.0, 0, 0.0, None, 0
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(256):
            started = time.process_time()
            optimizer.zero_grad()
            cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            spent, step = spent + time.process_time() - started, step + 1
            if as_good is None and step % EVERY == 0 and right(network, val[0][:JUDGES], val[1][:JUDGES]) >= wanted:
                as_good = {"steps": step, "seconds": spent, "accuracy": right(network, *test)}
        before, last = last, right(network, *val)
        if last <= before:
            break
    end = {"seconds": spent, "steps": step, "epochs": epoch, "accuracy": right(network, *test)}
    return {"all": end, "as_good": as_good, "images": len(x)}


def right(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the accuracy of a network."""
    with torch.no_grad():
        said = torch.cat([network(few).argmax(1) for few in x.split(1024)])
    return float((said == y).double().mean())


def savings(parts: dict[str, dict[str, Any]]) -> str:
    """Return the table of bytes and CPU seconds."""
    lines = []
    for key, part in parts.items():
        name, stored = ROWS[key].name, f"{part['images'] * (28 * 28 + 1):,}"  # a byte for a pixel, one for the label
        trained = [(f"the set, {ROWS[key].steps} steps", f"{part['bytes']:,}", part, ".4f")]
        if part["as_good"]:
            about = f"all data until as good, {part['as_good']['steps']} steps"
            trained.append((about, stored, part["as_good"], ".2f"))
        trained.append((f"all data, {part['all']['epochs']} epochs", stored, part["all"], ".1f"))
        for about, size, one, digits in trained:
            lines.append([name, about, size, f"{one['seconds']:{digits}}", f"{100 * one['accuracy']:.1f}"])
    return table(["inner_network", "trained on", "bytes", "CPU s", "accuracy"], lines)


def page(reports: dict[str, Any], folder: Path, parts: dict[float, Any], saved: dict[str, Any]) -> Iterator[str]:
    """Yield the paragraphs of the page."""
    first = reports["xavier_10"]
    yield (
        "Ten images of MNIST with fixed one-hot labels and one learned step size. Test accuracy in percent on "
        f"{first['splits']['n_test']:,} images: mean over 20 held-out initial weights and seeds {first['seed']}, "
        "± the deviation over the seeds; beside it the mean deviation over the initial weights and the worst of all. "
        "CPU seconds: of learning one set, on one thread."
    )
    yield results(reports, folder)
    yield (
        f"The convnet of sigma, ten inner steps, under plain gradient descent of rate {RATE} for images and step size "
        f"without clipping: {RUNS} runs of {UPDATES} updates, on {BATCH} real images each. How many step sizes left "
        "[1e-5, 1]; then, without (free) and with the projection, how many runs became non-finite, the largest step "
        "size in absolute value and the median of the last finite losses (guessing: 2.30)."
    )
    yield divergences(parts)
    yield (
        "Training one network. Bytes: of the set in float32 with labels and step size; of "
        f"{first['splits']['n_train']:,} training images with a byte for a pixel and one for the label. All data: Adam "
        "of rate 0.001, batches of 256, until an epoch is no better on 5,000 validation images than the one before, "
        f"at most {' and '.join(map(str, EPOCHS.values()))} epochs; it is as good as the set when it is on {JUDGES:,} "
        f"validation images, which is asked every {EVERY} steps and not timed. Accuracy on the test images: of the set "
        "of seed 0 over 20 initial weights, of all data for one network."
    )
    yield savings(saved)


def mnist() -> MNIST:
    """Return the data as the experiments have them."""
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
    reports = {key: run(key, folder, options.override) for key in ROWS}
    data = mnist()
    train = data.splits.train.tensors
    parts = {std: remembered(folder / f"divergence_{std}.json", partial(divergence, *train, std)) for std in STDS}
    saved = {key: remembered(folder / f"costs_{key}.json", partial(costs, data, folder / key, key)) for key in EPOCHS}
    publish("markov2020", "MNIST in ten images: Markov 2020", *page(reports, folder, parts, saved))


if __name__ == "__main__":
    main()
