"""The store of teacher outputs: its size per sample, and how fast it is filled and read.

    python scripts/bench_teacher_outputs.py [--samples 20480] [--rounds 5]

Sizes and rates are those of the files on the disk of this machine, whose pages are in memory by then.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import bench_common as common
import torch
from torch import Tensor

from kdzoo.core.frozen_teacher import ComputeOutputs, StoredOutputs
from kdzoo.functional import most_likely
from kdzoo.storage import teacher_outputs

CLASSES, LIKELY, STATES = 1000, 16, (16, 768)
ROW_BATCH = 128


def kinds_of_outputs() -> dict[str, Callable[[int], dict[str, Tensor]]]:
    """Return functions from a number of samples to outputs of each kind, which are random."""
    generator = torch.Generator().manual_seed(0)

    def logits(n: int) -> Tensor:
        return 3 * torch.randn(n, CLASSES, generator=generator)

    def likely(n: int) -> dict[str, Tensor]:
        values, classes = most_likely(logits(n), LIKELY, temperature=2.0)
        return {"output": values, "classes": classes.int()}

    return {
        f"logits of {CLASSES} classes, float32": lambda n: {"output": logits(n)},
        f"the {LIKELY} most likely of them and the rest": likely,
        f"hidden states {STATES[0]} x {STATES[1]}, float16": lambda n: {
            "last": torch.randn(n, *STATES, generator=generator).half()
        },
    }


def row_bytes(outputs: Mapping[str, Tensor]) -> int:
    """Return the bytes of one row of all outputs."""
    return sum(output[0].numel() * output.dtype.itemsize for output in outputs.values())


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Return the median wall time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def read_all(stored: StoredOutputs, order: Tensor) -> None:
    """Read all rows in an order, a batch at a time."""
    for index in order.split(ROW_BATCH):
        for rows in stored.values():
            rows[index]


def read_plainly(folder: Path) -> None:
    """Read the files of a store from their beginning to their end, 1 MiB at a time."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            while file.read(2**20):
                pass


def storage_row(name: str, outputs: Callable[[int], dict[str, Tensor]], samples: int, rounds: int) -> list[str]:
    """Return the row of the table of one kind of output."""
    block = outputs(teacher_outputs.SHARD_ROWS)
    batches = [{"input": torch.empty(teacher_outputs.SHARD_ROWS, 0)}] * (samples // teacher_outputs.SHARD_ROWS)
    compute: ComputeOutputs = lambda batch: block  # noqa: E731, ARG005 - what is measured is the store
    megabytes = row_bytes(block) * samples / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        fill = seconds(lambda: teacher_outputs.fill(folder, {}, compute, batches), 1)
        size = sum(path.stat().st_size for path in folder.iterdir()) / samples
        stored = teacher_outputs.read(folder, {})
        times = [
            seconds(lambda: teacher_outputs.read(folder, {}), rounds),
            seconds(lambda: read_plainly(folder), rounds),
            seconds(lambda: read_all(stored, torch.arange(samples)), rounds),
            seconds(lambda: read_all(stored, torch.randperm(samples)), rounds),
        ]
    return [name, str(row_bytes(block)), f"{size:.1f}", *(f"{megabytes / each:,.0f}" for each in (fill, *times))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_480, help="samples of the store")
    parser.add_argument("--rounds", type=int, default=5, help="number of measured rounds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    rows = [storage_row(name, outputs, options.samples, options.rounds) for name, outputs in kinds_of_outputs().items()]
    common.publish(
        "teacher_outputs",
        "Stored teacher outputs",
        f"{options.samples:,} samples in shards of {teacher_outputs.SHARD_ROWS:,}; bytes per sample, and MB per second "
        "of wall time. *Fill* is writing and flushing alone, with a teacher that takes no time. *Open* compares the "
        "checksums. *Plain* reads the files from beginning to end; *in order* and *random* read all rows through the "
        f"memory map in batches of {ROW_BATCH}. One thread; median of {options.rounds} rounds, of which fill has one.",
        common.markdown_table(["outputs", "bytes", "on disk", "fill", "open", "plain", "in order", "random"], rows),
    )


if __name__ == "__main__":
    main()
