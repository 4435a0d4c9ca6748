"""A step of a matrix product state: CPU time, wall time and peak memory of each engine and of tensorkrowch.

    pip install --no-deps --target peers tensorkrowch opt_einsum
    python scripts/bench_mps.py --peers peers [--rounds 5]

tensorkrowch is not a dependency of kdzoo: it is installed in a separate folder. Without it, only kdzoo is measured.
"""

import argparse
import functools
import importlib
import statistics
import sys
import time
from collections.abc import Callable

import torch
from bench_common import (
    added_peak_memory,
    cpu_seconds,
    installed_versions,
    markdown_table,
    median_of_fresh_processes,
    median_ratio,
    publish,
    target_summary,
    time_in_turns,
)
from torch.nn.functional import cross_entropy

from kdzoo.models import MPS

SITES, BATCH, CLASSES = 784, 128, 10
BONDS = (8, 16, 32, 64)
ENGINES = ("compiled", "sweep")
PEER = "tensorkrowch"
# Targets by bond dimension: speed-up over the peer in CPU time, and in wall time on two threads; share of the peak
# speed of matrix products; ratio of the memory of the peer to that of kdzoo.
MIN_CPU_SPEEDUP = {"compiled": (20, 32, 32, 38), "sweep": (4, 10, 14, 25)}
MIN_WALL_SPEEDUP = (25, 40, 40, 40)
MIN_PEAK_SHARE, MIN_MEMORY_RATIO = 0.35, 30
MATRIX_SIZE, MATRIX_PRODUCTS = 1024, 3

Step = Callable[[], object]


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch of inputs in [0, 1] and classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, SITES, generator=generator), torch.arange(BATCH) % CLASSES


def make_kdzoo_step(bond: int, engine: str) -> Step:
    """Return a function that runs forward and backward of kdzoo's chain, including features and loss."""
    model, (x, y) = MPS(SITES, CLASSES, bond, engine=engine), make_batch()

    def step() -> None:
        model.zero_grad()
        cross_entropy(model(x), y).backward()

    return step


def make_peer_step(bond: int) -> Step:
    """Return a function that runs the same chain in tensorkrowch, with its fastest flags and precomputed features."""
    tensorkrowch = importlib.import_module(PEER)
    model = tensorkrowch.models.MPSLayer(
        n_features=SITES + 1,
        in_dim=2,
        out_dim=CLASSES,
        bond_dim=bond,
        out_position=SITES // 2,
        init_method="randn_eye",
        std=1e-3,
    )
    model.auto_stack, model.auto_unbind = True, False
    x, y = make_batch()
    features = tensorkrowch.embeddings.add_ones(x)
    model.trace(features)

    def step() -> None:
        model.zero_grad()
        cross_entropy(model(features), y).backward()

    return step


def available_implementations() -> list[str]:
    """Return the names of the compared implementations, the peer first if it is installed."""
    return [*([PEER] if importlib.util.find_spec(PEER) else []), *ENGINES]


def make_step(name: str, bond: int) -> Step:
    """Return a function that runs forward and backward with the peer or with an engine of kdzoo."""
    return make_peer_step(bond) if name == PEER else make_kdzoo_step(bond, name)


def wall_seconds(run: Step) -> float:
    """Return the wall-clock seconds of a call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def multiply_matrices() -> object:
    """Multiply square matrices, as a measure of the peak speed of the processor."""
    matrix = torch.ones(MATRIX_SIZE, MATRIX_SIZE)
    return [matrix @ matrix for _ in range(MATRIX_PRODUCTS)]


def time_runs(runs: dict[str, Step], rounds: int, clock: Callable[[Step], float]) -> dict[str, list[float]]:
    """Return the times of all runs, measured in turns after one warm-up run of each; print them as progress."""
    for run in runs.values():
        run()
    times = time_in_turns({name: functools.partial(clock, run) for name, run in runs.items()}, rounds)
    for name, seconds in times.items():
        print(f"  {clock.__name__}, {name}: " + ", ".join(f"{1e3 * value:.1f} ms" for value in seconds), flush=True)
    return times


def measure_bond(bond: int, index: int, rounds: int, peers: str) -> tuple[list[list[object]], dict[str, bool]]:
    """Return the rows of a bond dimension, and which of its targets are reached; print times as progress."""
    print(f"D = {bond}", flush=True)
    torch.set_num_threads(1)
    runs = {name: make_step(name, bond) for name in available_implementations()} | {"product": multiply_matrices}
    cpu = time_runs(runs, rounds, cpu_seconds)
    torch.set_num_threads(2)
    wall = time_runs(runs, rounds, wall_seconds)
    torch.set_num_threads(1)
    memory = {
        name: median_of_fresh_processes(["--peak", name, str(bond), "--peers", peers], 1 if name == PEER else 3)
        for name in available_implementations()
    }
    # Number of operations of a step over that of the matrix products.
    operation_ratio = 6 * SITES * BATCH * 2 * bond**2 / (MATRIX_PRODUCTS * 2 * MATRIX_SIZE**3)
    rows: list[list[object]] = []
    reached: dict[str, bool] = {}
    for name in available_implementations():
        peak_share = operation_ratio * median_ratio(cpu, "product", name)
        time_cells = [f"{1e3 * statistics.median(times[name]):.1f}" for times in (cpu, wall)]
        speedups = (
            [median_ratio(times, PEER, name) for times in (cpu, wall)] if PEER in available_implementations() else []
        )
        cells = [
            time_cells[0],
            *(f"{speedup:.1f}" for speedup in speedups[:1]),
            time_cells[1],
            *(f"{speedup:.1f}" for speedup in speedups[1:]),
        ]
        rows.append([f"{bond}", name, *cells, f"{100 * peak_share:.0f} %", f"{memory[name]:.0f}"])
        print(*rows[-1], sep=" | ", flush=True)
        if speedups and name in ENGINES:
            reached[f"{name}, D = {bond}: {MIN_CPU_SPEEDUP[name][index]} times less CPU time"] = (
                speedups[0] >= MIN_CPU_SPEEDUP[name][index]
            )
        if speedups and name == "compiled":
            reached[f"{MIN_WALL_SPEEDUP[index]} times faster on two threads at D = {bond}"] = (
                speedups[1] >= MIN_WALL_SPEEDUP[index]
            )
            if bond >= 32:
                reached[f"{100 * MIN_PEAK_SHARE:.0f} % of the peak at D = {bond}"] = peak_share >= MIN_PEAK_SHARE
                reached[f"1/{MIN_MEMORY_RATIO} of the memory at D = {bond}"] = (
                    memory[PEER] / memory[name] >= MIN_MEMORY_RATIO
                )
    return rows, reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of measured rounds")
    parser.add_argument("--peers", default="", help="folder that tensorkrowch is installed in")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.append(options.peers)
    if options.peak:
        name, bond = options.peak
        torch.set_num_threads(1)
        make_step(name, 2)()  # loads everything that is loaded on first use
        return print(added_peak_memory(make_step(name, int(bond))))
    rows: list[list[object]] = []
    reached: dict[str, bool] = {}
    for index, bond in enumerate(BONDS):
        bond_rows, reached_by_bond = measure_bond(bond, index, options.rounds, options.peers)
        rows += bond_rows
        reached |= reached_by_bond
    ratio_header = [f"{PEER} /"] if PEER in available_implementations() else []
    publish(
        "mps",
        "A step of a matrix product state",
        f"Forward and backward of the cross entropy, {SITES} sites, [1, x], {CLASSES} outputs in the middle, batch "
        f"{BATCH}, float32. Median of {options.rounds} rounds in turns; a ratio is the median of those of the same "
        "round. CPU time with one thread, time on the clock with two. Of the peak: operations per CPU second (6 for "
        f"each sample, site, feature and pair of bond values) against those of products of {MATRIX_SIZE} x "
        f"{MATRIX_SIZE} matrices in the same rounds. Memory is what a fresh process adds at its peak. "
        f"{installed_versions(options.peers, [PEER])}, by its fastest flags, its features made before; ours makes "
        "them in the step.",
        markdown_table(
            ["D", "", "CPU, ms", *ratio_header, "two threads, ms", *ratio_header, "of the peak", "memory, MiB"],
            rows,
        ),
        target_summary(reached),
    )
    return None


if __name__ == "__main__":
    main()
