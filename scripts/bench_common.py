"""Functions that the benchmarks share: MNIST-shaped data, a plain training loop, a timed run of kdzoo, Markdown tables.

Times are CPU times of the process on one thread, which other processes affect least. The compared variants run in turns
within one process, and the median over the rounds is reported.
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

TimedEpoch = Callable[[], float]
"""Trains for one epoch from the initial weights and returns the CPU milliseconds per step."""


def make_mnist_shaped_data(n: int) -> ArrayData:
    """Return n noisy samples of the shape of MNIST, with one pattern per class."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % CLASSES
    x = torch.rand(CLASSES, PIXELS, generator=generator)[y] + torch.rand(n, PIXELS, generator=generator)
    data = ArrayData((x, y), (x[:100], y[:100]), val_size=0, batch_size=BATCH)
    data.setup()
    return data


def mlp(*hidden: int, seed: int = 0) -> nn.Module:
    """Return a multilayer perceptron for the data, whose initial weights depend on the seed alone."""
    torch.manual_seed(seed)
    return MLP(in_shape=(PIXELS,), num_classes=CLASSES, hidden=list(hidden))


def teacher_outputs(teacher: nn.Module, data: ArrayData) -> Tensor:
    """Return the teacher's outputs for all training samples."""
    with torch.no_grad():
        return torch.cat([teacher(batch["input"]) for batch in data.train_eval_dataloader()])


def bare_loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """Return the loss of logit distillation, written in plain torch."""
    log_q, log_p = ((z / TEMPERATURE).log_softmax(1) for z in (student, teacher))
    soft = kl_div(log_q, log_p, reduction="batchmean", log_target=True) * TEMPERATURE**2
    return SOFT * soft + HARD * cross_entropy(student, target)


def time_bare_epoch(student: nn.Module, teacher: nn.Module, data: ArrayData, cached_outputs: Tensor | None) -> float:
    """Train for one epoch in a plain loop, on the same batches as kdzoo and with the same optimizer."""
    x, y = data.splits.train.tensors
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    data.train_sampler.epoch = 0
    student.train()
    start = time.process_time()
    for _, index in data.train_sampler:
        inputs = x.index_select(0, index)
        if cached_outputs is None:
            with torch.no_grad():
                teacher_logits = teacher(inputs)
        else:
            teacher_logits = cached_outputs.index_select(0, index)
        optimizer.zero_grad()
        bare_loss(student(inputs), teacher_logits, y.index_select(0, index)).backward()
        optimizer.step()
    return 1e3 * (time.process_time() - start) / len(data.train_sampler)


class Stopwatch(pl.Callback):
    """Measures CPU time from the first step to the end of the training, including checkpoints and logging."""

    def on_train_start(self, *_: object) -> None:
        """Start the measurement."""
        self.start = time.process_time()

    def on_train_end(self, *_: object) -> None:
        """Stop the measurement."""
        self.seconds = time.process_time() - self.start


def time_kdzoo_epoch(student: nn.Module, teacher: nn.Module, data: ArrayData, cached_outputs: Tensor | None) -> float:
    """Train for one epoch as a run of kdzoo does, with its trainer, logging and checkpoint."""
    distiller = LogitKD(student, teacher, temperature=TEMPERATURE, loss_weights={"soft": SOFT, "hard": HARD})
    distiller.frozen_teacher.cache = {} if cached_outputs is None else {"train": {"output": cached_outputs}}
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        fit(distiller, data, Training(trainer_settings(), Path(folder), seed=0, label="", callbacks=[stopwatch]))
    return 1e3 * stopwatch.seconds / len(data.train_sampler)


@functools.cache
def trainer_settings() -> dict[str, object]:
    """Return the arguments of the Lightning trainer of a run, for one epoch on the CPU."""
    settings = config.to_container(config.compose("trainer=cpu", "trainer.max_epochs=1").trainer)
    return {key: value for key, value in settings.items() if key != "_target_"}


def time_in_turns(variants: Mapping[str, TimedEpoch], rounds: int) -> dict[str, list[float]]:
    """Run every variant once in each round and return the times of all rounds."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            times[name].append(run())
    return times


def cpu_seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def added_peak_memory(run: Callable[[], object]) -> float:
    """Return by how many MiB a call raises the peak resident memory of this process; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the recorded peak
    before = peak_resident_memory()
    run()
    return (peak_resident_memory() - before) / 1024


def peak_resident_memory() -> int:
    """Return the peak resident memory of this process in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def median_of_fresh_processes(arguments: Sequence[str], rounds: int) -> float:
    """Run this script with other arguments in new processes on one thread; return the median of the printed numbers."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(sys.argv[0]).resolve()), *arguments]
    runs = (subprocess.run(command, env=environment, check=True, capture_output=True, text=True) for _ in range(rounds))
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)


def installed_versions(folder: str, names: Iterable[str]) -> str:
    """Return names and versions of the given packages that are installed in a folder."""
    versions = (
        {distribution.name: distribution.version for distribution in distributions(path=[folder])} if folder else {}
    )
    descriptions = [f"{name} {versions[name]}" for name in names if name in versions]
    return ", ".join(descriptions) or "No peer was found: see the script"


def target_summary(reached: Mapping[str, bool]) -> str:
    """Return a sentence that lists the targets and whether each is reached."""
    return (
        "Targets: "
        + "; ".join(f"{name}: {'reached' if is_reached else 'MISSED'}" for name, is_reached in reached.items())
        + "."
    )


def median_ratio(times: Mapping[str, Sequence[float]], numerator: str, denominator: str) -> float:
    """Return the ratio of the times of two variants in the same round, as the median over the rounds."""
    return statistics.median(a / b for a, b in zip(times[numerator], times[denominator], strict=True))


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table whose first column is left-aligned and whose other columns are right-aligned."""
    lines = ["| " + " | ".join(headers) + " |", "|---" + "|---:" * (len(headers) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def publish(name: str, title: str, *paragraphs: str) -> None:
    """Print a page and write it to ``scripts/results/<name>.md``, with the date and the versions."""
    packages = ("kdzoo", "torch", "pytorch-lightning", "numpy")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    date_and_versions = (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}; Python {platform.python_version()}, {versions}."
    )
    page = "\n\n".join([f"# {title}", *paragraphs, f"{date_and_versions}\nWritten by `scripts/{script_name()}`.\n"])
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    print(page)


def script_name() -> str:
    """Return the file name of the running script."""
    import __main__

    return Path(__main__.__file__).name
