"""What the benchmarks share: MNIST-shaped data, a bare training loop, a timed run of kdzoo, Markdown tables.

CPU time of the process on one thread, so that other processes matter as little as they can; what is compared
runs in turns within one process, and the median of the rounds counts.
"""

import contextlib
import datetime
import functools
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import distributions, version
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from kdzoo import config
from kdzoo.data import ArrayData
from kdzoo.distillers import LogitKD
from kdzoo.models import MLP
from kdzoo.runs.training import Training, fit

RESULTS = Path(__file__).parent / "results"
PIXELS, CLASSES, BATCH = 784, 10, 128
TEMPERATURE, SOFT, HARD = 4.0, 0.9, 0.1

Steps = Callable[[], float]
"""Trains one epoch from the start and returns its CPU milliseconds per step."""


def mnist_shaped(n: int) -> ArrayData:
    """Return n samples of the shape of MNIST with a pattern for each class, ready to use."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % CLASSES
    x = torch.rand(CLASSES, PIXELS, generator=generator)[y] + torch.rand(n, PIXELS, generator=generator)
    data = ArrayData((x, y), (x[:100], y[:100]), val_size=0, batch_size=BATCH)
    data.setup()
    return data


def mlp(*hidden: int, seed: int = 0) -> nn.Module:
    """Return a perceptron for the data; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return MLP(in_shape=(PIXELS,), num_classes=CLASSES, hidden=list(hidden))


def answers(teacher: nn.Module, data: ArrayData) -> Tensor:
    """Return the teacher's outputs for all training samples."""
    with torch.no_grad():
        return torch.cat([teacher(batch["input"]) for batch in data.train_eval_dataloader()])


def bare_loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """The loss of logit distillation in plain torch."""
    log_q, log_p = ((z / TEMPERATURE).log_softmax(1) for z in (student, teacher))
    soft = kl_div(log_q, log_p, reduction="batchmean", log_target=True) * TEMPERATURE**2
    return SOFT * soft + HARD * cross_entropy(student, target)


def bare_steps(student: nn.Module, teacher: nn.Module, data: ArrayData, outputs: Tensor | None) -> float:
    """Train one epoch in a plain loop, on the batches of kdzoo in their order, with its optimizer."""
    x, y = data.splits.train.tensors
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    data.train_sampler.epoch = 0
    student.train()
    start = time.process_time()
    for _, index in data.train_sampler:
        inputs = x.index_select(0, index)
        if outputs is None:
            with torch.no_grad():
                wanted = teacher(inputs)
        else:
            wanted = outputs.index_select(0, index)
        optimizer.zero_grad()
        bare_loss(student(inputs), wanted, y.index_select(0, index)).backward()
        optimizer.step()
    return 1e3 * (time.process_time() - start) / len(data.train_sampler)


class Stopwatch(pl.Callback):
    """CPU time from the first step to the end of the training, checkpoints and logging included."""

    def on_train_start(self, *_: object) -> None:
        """Start."""
        self.start = time.process_time()

    def on_train_end(self, *_: object) -> None:
        """Stop."""
        self.seconds = time.process_time() - self.start


def kdzoo_steps(student: nn.Module, teacher: nn.Module, data: ArrayData, outputs: Tensor | None) -> float:
    """Train one epoch as a run does, with its trainer, its logging and its checkpoint."""
    distiller = LogitKD(student, teacher, temperature=TEMPERATURE, loss_weights={"soft": SOFT, "hard": HARD})
    distiller.frozen_teacher.cache = {} if outputs is None else {"train": {"output": outputs}}
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fit(distiller, data, Training(trainer_settings(), Path(folder), seed=0, label="", callbacks=[watch]))
    return 1e3 * watch.seconds / len(data.train_sampler)


@functools.cache
def trainer_settings() -> dict[str, object]:
    """Return what a run gives to its Lightning trainer, for one epoch on the CPU."""
    settings = config.to_container(config.compose("trainer=cpu", "trainer.max_epochs=1").trainer)
    return {key: value for key, value in settings.items() if key != "_target_"}


def in_turns(variants: Mapping[str, Steps], rounds: int) -> dict[str, list[float]]:
    """Run every variant once in each round; return the times of the rounds."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, steps in variants.items():
            times[name].append(steps())
    return times


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def added_memory(run: Callable[[], object]) -> float:
    """Return by how many MiB a call raises the memory of this process at its peak; Linux."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = high_water()
    run()
    return (high_water() - before) / 1024


def high_water() -> int:
    """Return the largest resident memory of this process in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def in_fresh_process(arguments: Sequence[str], rounds: int) -> float:
    """Return the median of the numbers that runs of this script with other arguments print, on one thread."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(sys.argv[0]).resolve()), *arguments]
    runs = (subprocess.run(command, env=settings, check=True, capture_output=True, text=True) for _ in range(rounds))
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)


def installed(folder: str, names: Iterable[str]) -> str:
    """Return the versions of the peers in a folder."""
    found = {one.name: one.version for one in distributions(path=[folder])} if folder else {}
    known = [f"{name} {found[name]}" for name in names if name in found]
    return ", ".join(known) or "No peer was found: see the script"


def verdict(reached: Mapping[str, bool]) -> str:
    """Return a sentence for the targets."""
    return "Targets: " + "; ".join(f"{name}: {'reached' if is_ else 'MISSED'}" for name, is_ in reached.items()) + "."


def ratio(times: Mapping[str, Sequence[float]], of: str, to: str) -> float:
    """Return the median over the rounds of the ratio of two variants, both from the same round."""
    return statistics.median(a / b for a, b in zip(times[of], times[to], strict=True))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, the first column to the left and the others to the right."""
    lines = ["| " + " | ".join(headers) + " |", "|---" + "|---:" * (len(headers) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def publish(name: str, title: str, *paragraphs: str) -> None:
    """Print a page and write it to ``scripts/results/<name>.md``, with date and versions."""
    packages = ("kdzoo", "torch", "pytorch-lightning", "numpy")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    when = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; Python {platform.python_version()}, {versions}."
    page = "\n\n".join([f"# {title}", *paragraphs, f"{when}\nWritten by `scripts/{name_of_script()}`.\n"])
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    print(page)


def name_of_script() -> str:
    """Return the file name of the running script."""
    import __main__

    return Path(__main__.__file__).name
