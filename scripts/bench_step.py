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

import bench_torchdistill  # isort: skip - before anything that imports torchvision if it is there
import bench_common as common
import torch
from bench_common import mlp

from kdzoo.data import ArrayData

# How many times the bare loop's step kdzoo's may cost. Without the teacher's pass the bare step is shorter, and what
# Lightning's loop costs is a larger share of it.
TARGET_LIVE, TARGET_CACHED = 1.05, 1.08
LIVE, CACHED = "kdzoo, live teacher", "kdzoo, cached outputs"
BARE_LIVE, BARE_CACHED = "bare loop, live teacher", "bare loop, cached outputs"
BOX, BOX_LOADER = "torchdistill, batches given", "torchdistill, its own loader"


def variants(data: ArrayData) -> dict[str, common.Steps]:
    """Return the trainings to compare; each starts from the same weights."""
    teacher = mlp(1200, 1200, seed=1).eval().requires_grad_(False)
    outputs = common.answers(teacher, data)
    ways = {
        BARE_LIVE: (common.bare_steps, None),
        LIVE: (common.kdzoo_steps, None),
        BARE_CACHED: (common.bare_steps, outputs),
        CACHED: (common.kdzoo_steps, outputs),
    }
    found: dict[str, common.Steps] = {
        name: lambda steps=steps, given=given: steps(mlp(800, 800), teacher, data, given)
        for name, (steps, given) in ways.items()
    }
    if bench_torchdistill.ABSENT:
        return found
    boxes = {BOX: bench_torchdistill.steps_on_given, BOX_LOADER: bench_torchdistill.steps_on_its_loader}
    return found | {name: lambda steps=steps: steps(mlp(800, 800), teacher, data) for name, steps in boxes.items()}


def memory_of(name: str) -> int:
    """Return by how many MiB one epoch of a variant raises the memory of a fresh process at its peak."""
    line = [sys.executable, __file__, "--memory-of", name]
    return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_memory(name: str) -> None:
    """Print by how many MiB one epoch raises the resident memory, student and optimizer included; Linux."""
    steps = variants(common.mnist_shaped(6400))[name]
    steps()  # what is loaded and built once, in any run
    ctypes.CDLL(None).malloc_trim(0)  # give back what is free, or it would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = high_water()
    steps()
    print((high_water() - before) // 1024)


def high_water() -> int:
    """Return the largest resident memory of this process in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def check_same_training() -> float:
    """Return by how much the logits of kdzoo's student differ from the bare loop's after 20 steps, over their size."""
    data, teacher, logits = common.mnist_shaped(20 * common.BATCH), mlp(1200, 1200, seed=1), []
    for steps in (common.bare_steps, common.kdzoo_steps):
        student = mlp(800, 800)
        steps(student, teacher.eval(), data, None)
        with torch.no_grad():
            logits.append(student.eval()(data.splits.test.inputs))
    return float((logits[0] - logits[1]).abs().max() / logits[0].abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60_000, help="training samples of the epoch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    if options.memory_of:
        return print_memory(options.memory_of)
    data = common.mnist_shaped(options.samples)
    times = common.in_turns(variants(data), options.rounds)
    rows = []
    for name, milliseconds in times.items():
        bare = BARE_CACHED if "cached" in name else BARE_LIVE
        spread = f"{min(milliseconds):.2f} to {max(milliseconds):.2f}"
        median = statistics.median(milliseconds)
        rows.append([name, f"{median:.2f}", spread, f"{common.ratio(times, name, bare):.3f}", memory_of(name)])
    live, cached = common.ratio(times, LIVE, BARE_LIVE), common.ratio(times, CACHED, BARE_CACHED)
    reached = {"live": live <= TARGET_LIVE, "cached outputs": cached <= TARGET_CACHED}
    absent = bench_torchdistill.ABSENT
    why = f" torchdistill was not measured: {absent}." if absent else ""
    common.publish(
        "step",
        "CPU time of a training step",
        f"{__doc__.splitlines()[-1]} One epoch of {options.samples:,} samples, one thread, median of "
        f"{options.rounds} rounds; the ratio is to the bare loop of the same round. Memory is what an "
        f"epoch adds to a fresh process at its peak.{why}",
        common.table(["", "ms / step", "range", "ratio", "memory, MiB"], rows),
        f"Ratios of at most {TARGET_LIVE:.2f} live and {TARGET_CACHED:.2f} cached are wanted. "
        f"{common.verdict(reached)} "
        "After 20 steps the "
        f"logits of the two students differ by {check_same_training():.1e} of their size.",
    )
    return None


if __name__ == "__main__":
    main()
