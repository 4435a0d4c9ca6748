"""Matrix product states from queries to a teacher: agreement, evaluations and CPU time, and distillation from there.

    python scripts/bench_queries.py [--peers peers]

MNIST is looked for in $KDZOO_DATA. tensorkrowch is measured where the folder has it (see bench_mps.py).
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_common import installed, publish, table, verdict
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

from kdzoo.data import MNIST, Digits
from kdzoo.functional import soft_target_kl
from kdzoo.models import MLP, ConvNet, MPSClassifier
from kdzoo.tensor_networks import from_queries

SEEDS = (0, 1, 2)
SAMPLES, RANK, HELD_OUT = 100, 16, 5000
TEMPERATURE, STEPS, RATES = 3.0, (100, 600), (3e-4, 1e-3, 3e-3, 1e-2)
SIDE, SMALL, LARGE = 20, 10, 32
AGREE, SECONDS, DISAGREE = 0.97, 15, 0.15


@dataclass
class Task:
    """Images with labels, and a teacher of them."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    teacher: nn.Module

    def chosen(self, seed: int, n: int, held_out: int) -> tuple[Tensor, Tensor]:
        """Return some training images, and others that are held out."""
        order = torch.randperm(len(self.train[0]), generator=torch.Generator().manual_seed(seed))
        return self.train[0][order[:n]], self.train[0][order[-held_out:]]

    def agreement(self, model: Callable[[Tensor], Tensor], images: Tensor) -> float:
        """Return the share of images for which a model decides as the teacher."""
        with torch.no_grad():
            return float((model(images).argmax(1) == self.teacher(images).argmax(1)).double().mean())

    def accuracy(self, model: Callable[[Tensor], Tensor]) -> float:
        """Return the share of test images that a model recognises."""
        with torch.no_grad():
            return float((model(self.test[0]).argmax(1) == self.test[1]).double().mean())


def trained(model: nn.Module, x: Tensor, y: Tensor, steps: int, rate: float, shift: bool) -> nn.Module:
    """Train a teacher by labels, on images that are shifted by up to a pixel if asked."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(x), (128,), generator=generator)
        right, down = torch.randint(3, (2,), generator=generator).tolist() if shift else (1, 1)
        images = pad(x[chosen], (1, 1, 1, 1))[..., down : down + x.shape[2], right : right + x.shape[3]]
        optimizer.zero_grad()
        cross_entropy(model(images), y[chosen]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def digits() -> dict[str, Task]:
    """Return the embedded digits, 8 x 8, with a convolutional and a fully connected teacher."""
    data = Digits(val_size=0, labels_per_class=None)
    data.setup()
    (x, y), test = data.splits.train.tensors, data.splits.test.tensors
    found = {}
    for name in ("CNN", "MLP"):
        torch.manual_seed(0)
        sizes = {"in_shape": (1, 8, 8), "num_classes": 10}
        teacher = ConvNet(**sizes, channels=[16, 32], hidden=64) if name == "CNN" else MLP(**sizes, hidden=[256, 256])
        found[name] = Task((x, y), test, trained(teacher, x, y, 1500, 2e-3, shift=True))
    return found


def mnist() -> Task:
    """Return MNIST, resized by averages to 20 x 20, with a fully connected teacher of 500 and 200 units."""
    data = MNIST(val_size=0)
    data.prepare_data()
    data.setup()

    def resized(images: Tensor) -> Tensor:
        return interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)

    (x, y), (test, labels) = data.splits.train.tensors, data.splits.test.tensors
    torch.manual_seed(0)
    teacher = MLP(in_shape=(1, SIDE, SIDE), num_classes=10, hidden=[500, 200])
    x = resized(x)
    return Task((x, y), (resized(test), labels), trained(teacher, x, y, 3000, 1e-3, shift=False))


def student(task: Task, rank: int, seed: int = 0) -> MPSClassifier:
    """Return a chain that starts from noise about 1."""
    torch.manual_seed(seed)
    return MPSClassifier(in_shape=task.test[0].shape[1:], num_classes=10, bond_dim=rank)


def queried(name: str, task: Task, rank: int, n: int, seeds: tuple[int, ...], **how: object) -> tuple[list[str], dict]:
    """Build students from queries; return a row of a table and what was measured."""
    found: dict[str, list[float]] = {key: [] for key in ("agreement", "accuracy", "seconds", "evaluations", "asked")}
    for seed in seeds:
        model = student(task, rank)
        begin = time.process_time()
        cost = from_queries(model, task.teacher, task.chosen(seed, n, HELD_OUT)[0], **how)
        found["seconds"].append(time.process_time() - begin)
        found["agreement"].append(task.agreement(model, task.test[0]))
        found["accuracy"].append(task.accuracy(model))
        found["evaluations"].append(cost.evaluations)
        found["asked"].append(cost.asked)
    return row(name, rank, n, found), found


def row(name: str, rank: int, n: int, found: dict[str, list[float]]) -> list[str]:
    """Return a row of a table: means over seeds, and the least agreement and longest time."""
    mean = {key: statistics.mean(values) for key, values in found.items() if values}
    return [
        name,
        f"{rank}",
        f"{n}",
        f"{100 * mean['agreement']:.1f} ({100 * min(found['agreement']):.1f})",
        f"{100 * mean['accuracy']:.1f}",
        f"{mean['evaluations']:,.0f}",
        f"{mean['asked']:,.0f}" if "asked" in mean else "",
        f"{mean['seconds']:.1f} ({max(found['seconds']):.1f})",
    ]


def peer(task: Task) -> list[str]:
    """Return the row of tensorkrowch on one choice of digits, its domain and rank those of the others."""
    tk = importlib.import_module("tensorkrowch")
    walk, counted = student(task, RANK).order, [0]

    def function(points: Tensor) -> Tensor:
        counted[0] += len(points)
        with torch.no_grad():
            return task.teacher(points[:, walk.argsort()].unflatten(1, task.test[0].shape[1:]))

    points = task.chosen(0, SAMPLES, HELD_OUT)[0].flatten(1)[:, walk]
    begin = time.process_time()
    cores = tk.decompositions.tt_rss(
        function=function,
        embedding=lambda x: tk.embeddings.poly(x, degree=1),
        sketch_samples=points,
        domain=torch.tensor([0.0, 1.0]),
        out_position=len(walk) // 2,
        rank=RANK,
        cum_percentage=1 - 1e-5,
        batch_size=2048,
        verbose=False,
    )
    seconds = time.process_time() - begin
    m = len(walk) // 2
    cores[0], cores[-1] = cores[0][None], cores[-1][..., None]
    model = student(task, RANK)
    model.load_tensors([one.double() for i, one in enumerate(cores) if i != m], cores[m].double())
    found = {"agreement": [task.agreement(model, task.test[0])], "accuracy": [task.accuracy(model)]}
    found |= {"seconds": [seconds], "evaluations": [counted[0]]}
    return row("CNN: tensorkrowch, one seed", RANK, SAMPLES, found)


def distilled(model: MPSClassifier, task: Task, images: Tensor, rate: float) -> dict[int, nn.Module]:
    """Distil on some images, all in each step; return copies after so many steps."""
    with torch.no_grad():
        wanted = task.teacher(images)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    kept = {}
    for step in range(1, max(STEPS) + 1):
        optimizer.zero_grad()
        soft_target_kl(model(images), wanted, temperature=TEMPERATURE).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step in STEPS:
            copy = student(task, RANK)
            copy.load_tensors(model.sites(), model.centre.detach())
            kept[step] = copy
    return kept


def starts(task: Task) -> tuple[list[list[str]], dict[str, bool]]:
    """Distil from both starts; return the rows of a table, and which targets are reached."""
    held: dict[tuple[str, int, float], list[float]] = {}
    tested: dict[tuple[str, int, float], list[tuple[float, float]]] = {}
    zero: dict[str, list[tuple[float, float]]] = {"noise": [], "queries": []}
    for seed in SEEDS:
        images, others = task.chosen(seed, SAMPLES, len(task.train[0]) - SAMPLES)
        for start in zero:
            for rate in RATES:
                model = student(task, RANK, seed)
                if start == "queries":
                    from_queries(model, task.teacher, images)
                if rate == RATES[0]:
                    zero[start].append((task.agreement(model, task.test[0]), task.accuracy(model)))
                for steps, copy in distilled(model, task, images, rate).items():
                    held.setdefault((start, steps, rate), []).append(task.agreement(copy, others))
                    both = (task.agreement(copy, task.test[0]), task.accuracy(copy))
                    tested.setdefault((start, steps, rate), []).append(both)
    best = {
        (start, steps): max(RATES, key=lambda rate: statistics.mean(held[start, steps, rate]))
        for start in zero
        for steps in STEPS
    }
    rows, gains = [], {}
    for steps in (0, *STEPS):
        cells = [f"{steps}"]
        seen = {}
        for start in zero:
            found = tested[start, steps, best[start, steps]] if steps else zero[start]
            seen[start] = found
            agree, accurate = (100 * statistics.mean(values) for values in zip(*found, strict=True))
            cells += [f"{best[start, steps]:g}" if steps else "", f"{agree:.1f}", f"{accurate:.1f}"]
        gap = [100 * (b[1] - a[1]) for a, b in zip(seen["noise"], seen["queries"], strict=True)]
        rows.append([*cells, f"{statistics.mean(gap):+.1f} ({min(gap):+.1f} to {max(gap):+.1f})"])
        if steps:
            gains[f"a gain of 4 points after {steps} steps ({statistics.mean(gap):+.1f})"] = statistics.mean(gap) >= 4
    return rows, gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="", help="folder that tensorkrowch is installed in")
    options = parser.parse_args()
    sys.path.append(options.peers)
    torch.set_num_threads(1)
    small, rows, reached = digits(), [], {}
    for name, task in small.items():
        line, found = queried(f"{name}: sketching", task, RANK, SAMPLES, SEEDS)
        rows.append(line)
        agree, seconds = statistics.mean(found["agreement"]), max(found["seconds"])
        reached[f"{name}: {100 * AGREE:.0f} % agreement ({100 * agree:.1f})"] = agree >= AGREE
        reached[f"{name}: {SECONDS} CPU seconds ({seconds:.1f})"] = seconds <= SECONDS
        rows.append(queried(f"{name}: cross", task, RANK, SAMPLES, SEEDS, method="cross")[0])
    if importlib.util.find_spec("tensorkrowch"):
        rows.append(peer(small["CNN"]))
    further, gains = starts(small["CNN"])
    large = mnist()
    more = []
    for rank, n in ((SMALL, SAMPLES), (SMALL, 2 * SAMPLES), (LARGE, 2 * SAMPLES)):
        line, found = queried("sketching, 10 ends", large, rank, n, SEEDS, ends=10)
        more.append(line)
        missed = 1 - statistics.mean(found["agreement"])
        wanted = DISAGREE if rank == SMALL else 0.08
        reached[f"MNIST, bond {rank}, {n} samples: {100 * wanted:.0f} % disagreement ({100 * missed:.1f})"] = (
            missed <= wanted
        )
    more.append(queried("cross", large, SMALL, SAMPLES, SEEDS[:1], method="cross")[0])
    headers = ["", "bond", "samples", "agreement, %", "accuracy, %", "evaluations", "asked", "CPU, s"]
    teachers = ", ".join(f"{name} {100 * task.accuracy(task.teacher):.1f} %" for name, task in small.items())
    publish(
        "queries",
        "Matrix product states from queries",
        "A student from the teacher's answers on recombined samples without labels, before any training. One thread; "
        f"seeds choose the samples among the training images ({len(SEEDS)} seeds; in parentheses the least agreement "
        "and the longest time). Agreement and accuracy are of the test part. Evaluations are those of the teacher; "
        "asked counts repetitions too, which cost no evaluation.",
        f"## Digits, 8 x 8\n\nAccuracy of the teachers: {teachers}. {installed(options.peers, ['tensorkrowch'])}.",
        table(headers, rows),
        "## Distillation from there\n\n"
        f"Teacher CNN. KL alone, T = {TEMPERATURE:g}, all of the {SAMPLES} samples in each step of Adam, gradients "
        "clipped at norm 1. The learning rate is the best of "
        f"{', '.join(f'{rate:g}' for rate in RATES)} for each column and number of steps, by the agreement on the "
        "other training images. The gain is that in accuracy, with its range over seeds.",
        table(
            ["steps", "rate", "noise: agreement", "accuracy", "rate", "queries: agreement", "accuracy", "gain"], further
        ),
        f"## MNIST, {SIDE} x {SIDE}\n\nA fully connected teacher of 500 and 200 units, "
        f"{100 * large.accuracy(large.teacher):.1f} %.",
        table(headers, more),
        verdict({**reached, **gains}),
    )


if __name__ == "__main__":
    main()
