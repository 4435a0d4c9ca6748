"""CPU time of one training step: kdzoo, a bare PyTorch loop and torchdistill (if installed) on the same training.

    python scripts/bench_step.py [--samples 60000] [--rounds 5]

An MLP 1200-1200 teaches an MLP 800-800 on data of the shape of MNIST: batches of 128, Adam, T = 4.
"""

import argparse
import ctypes
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import bench_torchdistill  # isort: skip - must precede everything that imports torchvision
import bench_common as common
import torch
from bench_common import mlp

from kdzoo.data import ArrayData

# Targets for the CPU time of a step over that of the bare loop. With cached outputs the bare step is shorter, so that
# the overhead of Lightning is a larger share of it.
MAX_RATIO_LIVE, MAX_RATIO_CACHED = 1.05, 1.08
LIVE, CACHED = "kdzoo, live teacher", "kdzoo, cached outputs"
BARE_LIVE, BARE_CACHED = "bare loop, live teacher", "bare loop, cached outputs"
TORCHDISTILL, TORCHDISTILL_LOADER = "torchdistill, batches given", "torchdistill, its own loader"


def make_variants(data: ArrayData) -> dict[str, common.TimedEpoch]:
    """Return the trainings to compare, which all start from the same weights."""
    teacher = mlp(1200, 1200, seed=1).eval().requires_grad_(False)
    teacher_outputs = common.teacher_outputs(teacher, data)
    loops = {
        BARE_LIVE: (common.time_bare_epoch, None),
        LIVE: (common.time_kdzoo_epoch, None),
        BARE_CACHED: (common.time_bare_epoch, teacher_outputs),
        CACHED: (common.time_kdzoo_epoch, teacher_outputs),
    }
    variants: dict[str, common.TimedEpoch] = {
        name: lambda time_epoch=time_epoch, cached_outputs=cached_outputs: time_epoch(
            mlp(800, 800), teacher, data, cached_outputs
        )
        for name, (time_epoch, cached_outputs) in loops.items()
    }
    if bench_torchdistill.IMPORT_ERROR:
        return variants
    torchdistill_loops = {
        TORCHDISTILL: bench_torchdistill.time_epoch_on_given_batches,
        TORCHDISTILL_LOADER: bench_torchdistill.time_epoch_on_its_loader,
    }
    return variants | {
        name: lambda time_epoch=time_epoch: time_epoch(mlp(800, 800), teacher, data)
        for name, time_epoch in torchdistill_loops.items()
    }


def peak_memory(name: str) -> int:
    """Return by how many MiB one epoch of a variant raises the peak memory of a new process."""
    command = [sys.executable, __file__, "--memory-of", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak_memory(name: str) -> None:
    """Print the number that :func:`peak_memory` reads, including student and optimizer; Linux only."""
    time_epoch = make_variants(common.make_mnist_shaped_data(6400))[name]
    time_epoch()  # loads everything that is loaded on first use
    ctypes.CDLL(None).malloc_trim(0)  # otherwise freed memory would be reused without being counted
    Path("/proc/self/clear_refs").write_text("5")  # resets the recorded peak
    before = common.peak_resident_memory()
    time_epoch()
    print((common.peak_resident_memory() - before) // 1024)


def relative_logit_difference() -> float:
    """Return the largest difference between the logits of both students after 20 steps, over the largest logit."""
    data, teacher, logits = common.make_mnist_shaped_data(20 * common.BATCH), mlp(1200, 1200, seed=1), []
    for time_epoch in (common.time_bare_epoch, common.time_kdzoo_epoch):
        student = mlp(800, 800)
        time_epoch(student, teacher.eval(), data, None)
        with torch.no_grad():
            logits.append(student.eval()(data.splits.test.inputs))
    return float((logits[0] - logits[1]).abs().max() / logits[0].abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60_000, help="training samples of the epoch")
    parser.add_argument("--rounds", type=int, default=5, help="number of measured rounds")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    if options.memory_of:
        return print_peak_memory(options.memory_of)
    data = common.make_mnist_shaped_data(options.samples)
    times = common.time_in_turns(make_variants(data), options.rounds)
    rows = []
    for name, milliseconds in times.items():
        baseline = BARE_CACHED if "cached" in name else BARE_LIVE
        spread = f"{min(milliseconds):.2f} to {max(milliseconds):.2f}"
        median = statistics.median(milliseconds)
        rows.append(
            [name, f"{median:.2f}", spread, f"{common.median_ratio(times, name, baseline):.3f}", peak_memory(name)]
        )
    live_ratio = common.median_ratio(times, LIVE, BARE_LIVE)
    cached_ratio = common.median_ratio(times, CACHED, BARE_CACHED)
    reached = {"live": live_ratio <= MAX_RATIO_LIVE, "cached outputs": cached_ratio <= MAX_RATIO_CACHED}
    import_error = bench_torchdistill.IMPORT_ERROR
    note = f" torchdistill was not measured: {import_error}." if import_error else ""
    common.publish(
        "step",
        "CPU time of a training step",
        f"{__doc__.splitlines()[-1]} One epoch of {options.samples:,} samples, one thread, median of "
        f"{options.rounds} rounds; the ratio is to the bare loop of the same round. Memory is what an "
        f"epoch adds to a fresh process at its peak.{note}",
        common.markdown_table(["", "ms / step", "range", "ratio", "memory, MiB"], rows),
        f"Ratios of at most {MAX_RATIO_LIVE:.2f} live and {MAX_RATIO_CACHED:.2f} cached are wanted. "
        f"{common.target_summary(reached)} "
        "After 20 steps the "
        f"logits of the two students differ by {relative_logit_difference():.1e} of their size.",
    )
    return None


if __name__ == "__main__":
    main()
