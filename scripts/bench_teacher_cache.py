"""What the cache of the teacher's outputs saves: CPU time of an epoch with a live teacher against a cached one.

    python scripts/bench_teacher_cache.py [--samples 12800] [--rounds 3]

Teachers of 6 and of 15 times the size of the student, an MLP 800-800, on data of the shape of MNIST.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Mapping

import bench_common as common
import torch
from bench_common import mlp
from torch import nn

from kdzoo.data import ArrayData

TARGET = 0.8  # share of the bare loop's saving that is left to kdzoo
STUDENT = (800, 800)
TEACHERS = {"6x": (2400, 2400), "15x": (4000, 4000)}
LOOPS = {"bare": common.bare_steps, "kdzoo": common.kdzoo_steps}


def size(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure(teacher: nn.Module, data: ArrayData, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Return the times per step of both loops, live and cached, and the CPU seconds that the cache takes once."""
    start = time.process_time()
    outputs = common.answers(teacher, data)
    filled = time.process_time() - start
    variants: dict[str, common.Steps] = {
        f"{name} {how}": lambda steps=steps, given=given: steps(mlp(*STUDENT), teacher, data, given)
        for name, steps in LOOPS.items()
        for how, given in (("live", None), ("cached", outputs))
    }
    return common.in_turns(variants, rounds), filled


def row(name: str, times: Mapping[str, list[float]], filled: float) -> tuple[list[str], float]:
    """Return a line of the table, and the share of the bare loop's ratio that kdzoo reaches."""
    ratios = {loop: common.ratio(times, f"{loop} live", f"{loop} cached") for loop in LOOPS}
    share = ratios["kdzoo"] / ratios["bare"]
    cells = [f"{statistics.median(milliseconds):.1f}" for milliseconds in times.values()]
    return [name, *cells, *(f"{ratio:.2f}" for ratio in ratios.values()), f"{share:.0%}", f"{filled:.1f}"], share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=12_800, help="training samples of the epoch")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    data = common.mnist_shaped(options.samples)
    student, rows, shares = size(mlp(*STUDENT)), [], []
    for hidden in TEACHERS.values():
        teacher = mlp(*hidden, seed=1).eval().requires_grad_(False)
        name = f"{hidden[0]}-{hidden[1]}, {size(teacher) / student:.1f} times"
        cells, share = row(name, *measure(teacher, data, options.rounds))
        rows.append(cells)
        shares.append(share)
    loops = [f"{loop} {how}" for loop in LOOPS for how in ("live", "cached")]
    common.publish(
        "teacher_cache",
        "Epochs with the teacher's outputs cached",
        f"{__doc__.splitlines()[-1]} CPU milliseconds per step over an epoch of {options.samples:,} samples in batches "
        f"of {common.BATCH}, one thread, median of {options.rounds} rounds; a ratio is live over cached. The last "
        "column is what it takes to fill the cache, once for all runs.",
        common.table(["teacher", *loops, "bare ratio", "kdzoo ratio", "kdzoo / bare", "fill, s"], rows),
        f"Target: at least {TARGET:.0%} of the bare loop's ratio; {'reached' if min(shares) >= TARGET else 'MISSED'}.",
    )


if __name__ == "__main__":
    main()
