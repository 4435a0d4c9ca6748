"""Savings by the store of teacher outputs: CPU time of an epoch with a live teacher and with stored outputs.

    python scripts/bench_teacher_cache.py [--samples 12800] [--rounds 3]

Teachers of 6 and of 15 times the size of the student, an MLP 800-800, on data of the shape of MNIST.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import bench_common as common
import torch
from bench_common import mlp
from torch import nn

from kdzoo.data import ArrayData
from kdzoo.storage import teacher_outputs

MIN_SHARE = 0.8  # target for the speed-up of kdzoo by the cache over that of the bare loop
STUDENT = (800, 800)
TEACHERS = {"6x": (2400, 2400), "15x": (4000, 4000)}
LOOPS = {"bare": common.time_bare_epoch, "kdzoo": common.time_kdzoo_epoch}
"""A bare loop keeps the outputs in memory, kdzoo reads them from its store on the disk."""


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def time_epochs(teacher: nn.Module, data: ArrayData, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Return the times per step of both loops, live and cached, and the CPU seconds for filling the store."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        stored = teacher_outputs.load_or_compute(
            Path(folder), {}, lambda batch: {"output": teacher(batch["input"])}, data.train_eval_dataloader()
        )
        fill_seconds = time.process_time() - start
        cached = {"bare": common.teacher_outputs(teacher, data), "kdzoo": stored["output"]}
        variants: dict[str, common.TimedEpoch] = {
            f"{name} {mode}": lambda time_epoch=time_epoch, outputs=outputs: time_epoch(
                mlp(*STUDENT), teacher, data, outputs
            )
            for name, time_epoch in LOOPS.items()
            for mode, outputs in (("live", None), ("cached", cached[name]))
        }
        return common.time_in_turns(variants, rounds), fill_seconds


def format_row(name: str, times: Mapping[str, list[float]], fill_seconds: float) -> tuple[list[str], float]:
    """Return a row of the table, and the ratio of kdzoo over that of the bare loop."""
    ratios = {loop: common.median_ratio(times, f"{loop} live", f"{loop} cached") for loop in LOOPS}
    share = ratios["kdzoo"] / ratios["bare"]
    cells = [f"{statistics.median(milliseconds):.1f}" for milliseconds in times.values()]
    cells += [f"{ratio:.2f}" for ratio in ratios.values()]
    return [name, *cells, f"{share:.0%}", f"{fill_seconds:.1f}"], share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=12_800, help="training samples of the epoch")
    parser.add_argument("--rounds", type=int, default=3, help="number of measured rounds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    data = common.make_mnist_shaped_data(options.samples)
    student_size, rows, shares = count_parameters(mlp(*STUDENT)), [], []
    for hidden in TEACHERS.values():
        teacher = mlp(*hidden, seed=1).eval().requires_grad_(False)
        name = f"{hidden[0]}-{hidden[1]}, {count_parameters(teacher) / student_size:.1f} times"
        cells, share = format_row(name, *time_epochs(teacher, data, options.rounds))
        rows.append(cells)
        shares.append(share)
    loops = [f"{loop} {mode}" for loop in LOOPS for mode in ("live", "cached")]
    common.publish(
        "teacher_cache",
        "Epochs with the teacher's outputs cached",
        f"{__doc__.splitlines()[-1]} CPU milliseconds per step over an epoch of {options.samples:,} samples in batches "
        f"of {common.BATCH}, one thread, median of {options.rounds} rounds; a ratio is live over cached. The last "
        "column is what it takes to fill the cache, once for all runs.",
        common.markdown_table(["teacher", *loops, "bare ratio", "kdzoo ratio", "kdzoo / bare", "fill, s"], rows),
        f"Target: at least {MIN_SHARE:.0%} of the bare loop's ratio; "
        f"{'reached' if min(shares) >= MIN_SHARE else 'MISSED'}.",
    )


if __name__ == "__main__":
    main()
