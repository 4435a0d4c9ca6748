"""Matrix product states built from queries to a teacher: agreement, evaluations, CPU time, and further distillation.

    python scripts/bench_queries.py [--peers peers]

MNIST is read from $KDZOO_DATA. tensorkrowch is measured if it is installed in the folder (see bench_mps.py).
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_common import installed_versions, markdown_table, publish, target_summary
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

from kdzoo.data import MNIST, Digits
from kdzoo.functional import soft_target_kl
from kdzoo.models import MLP, ConvNet, MPSClassifier
from kdzoo.tensor_networks import from_queries

SEEDS = (0, 1, 2)
SAMPLES, RANK, HELD_OUT = 100, 16, 5000
TEMPERATURE, STEPS, LEARNING_RATES = 3.0, (100, 600), (3e-4, 1e-3, 3e-3, 1e-2)
SIDE, SMALL_BOND, LARGE_BOND = 20, 10, 32
MIN_AGREEMENT, MAX_SECONDS, MAX_DISAGREEMENT = 0.97, 15, 0.15


@dataclass
class Task:
    """Labelled images and a teacher that was trained on them."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    teacher: nn.Module

    def choose_images(self, seed: int, n: int, held_out: int) -> tuple[Tensor, Tensor]:
        """Return ``n`` random training images, and ``held_out`` others."""
        order = torch.randperm(len(self.train[0]), generator=torch.Generator().manual_seed(seed))
        return self.train[0][order[:n]], self.train[0][order[-held_out:]]

    def agreement(self, model: Callable[[Tensor], Tensor], images: Tensor) -> float:
        """Return the share of images for which model and teacher predict the same class."""
        with torch.no_grad():
            return float((model(images).argmax(1) == self.teacher(images).argmax(1)).double().mean())

    def accuracy(self, model: Callable[[Tensor], Tensor]) -> float:
        """Return the accuracy of a model on the test images."""
        with torch.no_grad():
            return float((model(self.test[0]).argmax(1) == self.test[1]).double().mean())


def train_teacher(
    model: nn.Module, x: Tensor, y: Tensor, steps: int, learning_rate: float, is_shifted: bool
) -> nn.Module:
    """Train a teacher on labelled images, with random shifts by up to one pixel if ``is_shifted``."""
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,), generator=generator)
        column_offset, row_offset = torch.randint(3, (2,), generator=generator).tolist() if is_shifted else (1, 1)
        images = pad(x[rows], (1, 1, 1, 1))[
            ..., row_offset : row_offset + x.shape[2], column_offset : column_offset + x.shape[3]
        ]
        optimizer.zero_grad()
        cross_entropy(model(images), y[rows]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def make_digits_tasks() -> dict[str, Task]:
    """Return the 8 x 8 digits, once with a convolutional and once with a fully connected teacher."""
    data = Digits(val_size=0, labels_per_class=None)
    data.setup()
    (x, y), test = data.splits.train.tensors, data.splits.test.tensors
    tasks = {}
    for name in ("CNN", "MLP"):
        torch.manual_seed(0)
        sizes = {"in_shape": (1, 8, 8), "num_classes": 10}
        teacher = ConvNet(**sizes, channels=[16, 32], hidden=64) if name == "CNN" else MLP(**sizes, hidden=[256, 256])
        tasks[name] = Task((x, y), test, train_teacher(teacher, x, y, 1500, 2e-3, is_shifted=True))
    return tasks


def make_mnist_task() -> Task:
    """Return MNIST, resized to 20 x 20 with antialiasing, with a fully connected teacher of 500 and 200 units."""
    data = MNIST(val_size=0)
    data.prepare_data()
    data.setup()

    def resize(images: Tensor) -> Tensor:
        return interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)

    (x, y), (test_images, test_labels) = data.splits.train.tensors, data.splits.test.tensors
    torch.manual_seed(0)
    teacher = MLP(in_shape=(1, SIDE, SIDE), num_classes=10, hidden=[500, 200])
    x = resize(x)
    return Task((x, y), (resize(test_images), test_labels), train_teacher(teacher, x, y, 3000, 1e-3, is_shifted=False))


def make_student(task: Task, rank: int, seed: int = 0) -> MPSClassifier:
    """Return a matrix product state with its default random initialisation."""
    torch.manual_seed(seed)
    return MPSClassifier(in_shape=task.test[0].shape[1:], num_classes=10, bond_dim=rank)


def measure_queries(
    name: str, task: Task, rank: int, n: int, seeds: tuple[int, ...], **options: object
) -> tuple[list[str], dict]:
    """Build a student from queries for each seed; return a row of the table and the measurements."""
    measurements: dict[str, list[float]] = {
        key: [] for key in ("agreement", "accuracy", "seconds", "evaluations", "asked")
    }
    for seed in seeds:
        model = make_student(task, rank)
        begin = time.process_time()
        cost = from_queries(model, task.teacher, task.choose_images(seed, n, HELD_OUT)[0], **options)
        measurements["seconds"].append(time.process_time() - begin)
        measurements["agreement"].append(task.agreement(model, task.test[0]))
        measurements["accuracy"].append(task.accuracy(model))
        measurements["evaluations"].append(cost.evaluations)
        measurements["asked"].append(cost.asked)
    return format_row(name, rank, n, measurements), measurements


def format_row(name: str, rank: int, n: int, measurements: dict[str, list[float]]) -> list[str]:
    """Return a row of the table: means over the seeds, with the lowest agreement and the longest time."""
    means = {key: statistics.mean(values) for key, values in measurements.items() if values}
    return [
        name,
        f"{rank}",
        f"{n}",
        f"{100 * means['agreement']:.1f} ({100 * min(measurements['agreement']):.1f})",
        f"{100 * means['accuracy']:.1f}",
        f"{means['evaluations']:,.0f}",
        f"{means['asked']:,.0f}" if "asked" in means else "",
        f"{means['seconds']:.1f} ({max(measurements['seconds']):.1f})",
    ]


def measure_peer(task: Task) -> list[str]:
    """Return the row of tensorkrowch for one choice of digits, with the same domain and rank."""
    tensorkrowch = importlib.import_module("tensorkrowch")
    site_order, n_evaluations = make_student(task, RANK).order, 0

    def query_teacher(points: Tensor) -> Tensor:
        nonlocal n_evaluations
        n_evaluations += len(points)
        with torch.no_grad():
            return task.teacher(points[:, site_order.argsort()].unflatten(1, task.test[0].shape[1:]))

    points = task.choose_images(0, SAMPLES, HELD_OUT)[0].flatten(1)[:, site_order]
    begin = time.process_time()
    cores = tensorkrowch.decompositions.tt_rss(
        function=query_teacher,
        embedding=lambda x: tensorkrowch.embeddings.poly(x, degree=1),
        sketch_samples=points,
        domain=torch.tensor([0.0, 1.0]),
        out_position=len(site_order) // 2,
        rank=RANK,
        cum_percentage=1 - 1e-5,
        batch_size=2048,
        verbose=False,
    )
    seconds = time.process_time() - begin
    middle = len(site_order) // 2
    cores[0], cores[-1] = cores[0][None], cores[-1][..., None]
    model = make_student(task, RANK)
    model.load_tensors([core.double() for i, core in enumerate(cores) if i != middle], cores[middle].double())
    measurements = {"agreement": [task.agreement(model, task.test[0])], "accuracy": [task.accuracy(model)]}
    measurements |= {"seconds": [seconds], "evaluations": [n_evaluations]}
    return format_row("CNN: tensorkrowch, one seed", RANK, SAMPLES, measurements)


def distil(model: MPSClassifier, task: Task, images: Tensor, learning_rate: float) -> dict[int, MPSClassifier]:
    """Distil with all images in each step; return copies of the student after the numbers of steps in STEPS."""
    with torch.no_grad():
        teacher_logits = task.teacher(images)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    copies = {}
    for step in range(1, max(STEPS) + 1):
        optimizer.zero_grad()
        soft_target_kl(model(images), teacher_logits, temperature=TEMPERATURE).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step in STEPS:
            copy = make_student(task, RANK)
            copy.load_tensors(model.sites(), model.centre.detach())
            copies[step] = copy
    return copies


def compare_starts(task: Task) -> tuple[list[list[str]], dict[str, bool]]:
    """Distil from random students and from queried ones; return the rows of the table and which targets are reached."""
    held_out_agreement: dict[tuple[str, int, float], list[float]] = {}
    test_scores: dict[tuple[str, int, float], list[tuple[float, float]]] = {}
    initial_scores: dict[str, list[tuple[float, float]]] = {"noise": [], "queries": []}
    for seed in SEEDS:
        images, held_out_images = task.choose_images(seed, SAMPLES, len(task.train[0]) - SAMPLES)
        for start in initial_scores:
            for rate in LEARNING_RATES:
                model = make_student(task, RANK, seed)
                if start == "queries":
                    from_queries(model, task.teacher, images)
                if rate == LEARNING_RATES[0]:
                    initial_scores[start].append((task.agreement(model, task.test[0]), task.accuracy(model)))
                for steps, copy in distil(model, task, images, rate).items():
                    held_out_agreement.setdefault((start, steps, rate), []).append(
                        task.agreement(copy, held_out_images)
                    )
                    copy_scores = (task.agreement(copy, task.test[0]), task.accuracy(copy))
                    test_scores.setdefault((start, steps, rate), []).append(copy_scores)
    best_rates = {
        (start, steps): max(LEARNING_RATES, key=lambda rate: statistics.mean(held_out_agreement[start, steps, rate]))
        for start in initial_scores
        for steps in STEPS
    }
    rows, reached = [], {}
    for steps in (0, *STEPS):
        cells = [f"{steps}"]
        scores_by_start = {}
        for start in initial_scores:
            scores = test_scores[start, steps, best_rates[start, steps]] if steps else initial_scores[start]
            scores_by_start[start] = scores
            agreement, accuracy = (100 * statistics.mean(values) for values in zip(*scores, strict=True))
            cells += [f"{best_rates[start, steps]:g}" if steps else "", f"{agreement:.1f}", f"{accuracy:.1f}"]
        gain = [
            100 * (query_scores[1] - noise_scores[1])
            for noise_scores, query_scores in zip(scores_by_start["noise"], scores_by_start["queries"], strict=True)
        ]
        rows.append([*cells, f"{statistics.mean(gain):+.1f} ({min(gain):+.1f} to {max(gain):+.1f})"])
        if steps:
            reached[f"a gain of 4 points after {steps} steps ({statistics.mean(gain):+.1f})"] = (
                statistics.mean(gain) >= 4
            )
    return rows, reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="", help="folder that tensorkrowch is installed in")
    options = parser.parse_args()
    sys.path.append(options.peers)
    torch.set_num_threads(1)
    digits_tasks, rows, reached = make_digits_tasks(), [], {}
    for name, task in digits_tasks.items():
        row, measurements = measure_queries(f"{name}: sketching", task, RANK, SAMPLES, SEEDS)
        rows.append(row)
        agreement, seconds = statistics.mean(measurements["agreement"]), max(measurements["seconds"])
        reached[f"{name}: {100 * MIN_AGREEMENT:.0f} % agreement ({100 * agreement:.1f})"] = agreement >= MIN_AGREEMENT
        reached[f"{name}: {MAX_SECONDS} CPU seconds ({seconds:.1f})"] = seconds <= MAX_SECONDS
        rows.append(measure_queries(f"{name}: cross", task, RANK, SAMPLES, SEEDS, method="cross")[0])
    if importlib.util.find_spec("tensorkrowch"):
        rows.append(measure_peer(digits_tasks["CNN"]))
    distillation_rows, reached_gains = compare_starts(digits_tasks["CNN"])
    mnist_task = make_mnist_task()
    mnist_rows = []
    for rank, n in ((SMALL_BOND, SAMPLES), (SMALL_BOND, 2 * SAMPLES), (LARGE_BOND, 2 * SAMPLES)):
        row, measurements = measure_queries("sketching, 10 ends", mnist_task, rank, n, SEEDS, ends=10)
        mnist_rows.append(row)
        disagreement = 1 - statistics.mean(measurements["agreement"])
        max_disagreement = MAX_DISAGREEMENT if rank == SMALL_BOND else 0.08
        reached[
            f"MNIST, bond {rank}, {n} samples: {100 * max_disagreement:.0f} % disagreement ({100 * disagreement:.1f})"
        ] = disagreement <= max_disagreement
    mnist_rows.append(measure_queries("cross", mnist_task, SMALL_BOND, SAMPLES, SEEDS[:1], method="cross")[0])
    headers = ["", "bond", "samples", "agreement, %", "accuracy, %", "evaluations", "asked", "CPU, s"]
    teachers = ", ".join(f"{name} {100 * task.accuracy(task.teacher):.1f} %" for name, task in digits_tasks.items())
    publish(
        "queries",
        "Matrix product states from queries",
        "A student from the teacher's outputs on recombined samples without labels, before any training. One thread; "
        f"seeds choose the samples among the training images ({len(SEEDS)} seeds; in parentheses the least agreement "
        "and the longest time). Agreement and accuracy are of the test part. Evaluations are those of the teacher; "
        "asked counts repetitions too, which cost no evaluation.",
        f"## Digits, 8 x 8\n\nAccuracy of the teachers: {teachers}. "
        f"{installed_versions(options.peers, ['tensorkrowch'])}.",
        markdown_table(headers, rows),
        "## Distillation from there\n\n"
        f"Teacher CNN. KL alone, T = {TEMPERATURE:g}, all of the {SAMPLES} samples in each step of Adam, gradients "
        "clipped at norm 1. The learning rate is the best of "
        f"{', '.join(f'{rate:g}' for rate in LEARNING_RATES)} for each column and number of steps, by the agreement on "
        "the other training images. The gain is that in accuracy, with its range over seeds.",
        markdown_table(
            ["steps", "rate", "noise: agreement", "accuracy", "rate", "queries: agreement", "accuracy", "gain"],
            distillation_rows,
        ),
        f"## MNIST, {SIDE} x {SIDE}\n\nA fully connected teacher of 500 and 200 units, "
        f"{100 * mnist_task.accuracy(mnist_task.teacher):.1f} %.",
        markdown_table(headers, mnist_rows),
        target_summary({**reached, **reached_gains}),
    )


if __name__ == "__main__":
    main()
