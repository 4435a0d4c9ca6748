"""A step of a matrix product state: CPU time, wall time and peak memory of each engine and of tensorkrowch.

    pip install --no-deps --target peers tensorkrowch opt_einsum
    python scripts/bench_mps.py --peers peers [--rounds 5]

The peer is no dependency of kdzoo: it goes to a folder of its own, and is left out where it is not found.
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
    added_memory,
    cpu_seconds,
    in_fresh_process,
    in_turns,
    installed,
    publish,
    ratio,
    table,
    verdict,
)
from torch.nn.functional import cross_entropy

from kdzoo.models import MPS

SITES, BATCH, CLASSES = 784, 128, 10
BONDS = (8, 16, 32, 64)
ENGINES = ("compiled", "sweep")
PEER = "tensorkrowch"
LESS_CPU = {"compiled": (20, 32, 32, 38), "sweep": (4, 10, 14, 25)}
FASTER = (25, 40, 40, 40)
OF_PEAK, LESS_MEMORY = 0.35, 30
SIDE, PRODUCTS = 1024, 3

Step = Callable[[], object]


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch of numbers in [0, 1] and classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, SITES, generator=generator), torch.arange(BATCH) % CLASSES


def ours(bond: int, engine: str) -> Step:
    """Return forward and backward of our chain, features and loss included."""
    model, (x, y) = MPS(SITES, CLASSES, bond, engine=engine), inputs()

    def step() -> None:
        model.zero_grad()
        cross_entropy(model(x), y).backward()

    return step


def peer(bond: int) -> Step:
    """Return forward and backward of the same chain of tensorkrowch by its fastest flags, its features made before."""
    tk = importlib.import_module(PEER)
    model = tk.models.MPSLayer(
        n_features=SITES + 1,
        in_dim=2,
        out_dim=CLASSES,
        bond_dim=bond,
        out_position=SITES // 2,
        init_method="randn_eye",
        std=1e-3,
    )
    model.auto_stack, model.auto_unbind = True, False
    x, y = inputs()
    features = tk.embeddings.add_ones(x)
    model.trace(features)

    def step() -> None:
        model.zero_grad()
        cross_entropy(model(features), y).backward()

    return step


def names() -> list[str]:
    """Return what is compared, the peer first if it is installed."""
    return [*([PEER] if importlib.util.find_spec(PEER) else []), *ENGINES]


def step_of(name: str, bond: int) -> Step:
    """Return forward and backward of the peer or of an engine."""
    return peer(bond) if name == PEER else ours(bond, name)


def wall_seconds(run: Step) -> float:
    """Return the seconds on the clock of a call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def product() -> object:
    """Return some products of square matrices."""
    matrix = torch.ones(SIDE, SIDE)
    return [matrix @ matrix for _ in range(PRODUCTS)]


def measured(runs: dict[str, Step], rounds: int, clock: Callable[[Step], float]) -> dict[str, list[float]]:
    """Return the times of all runs in turns, after one that does not count of each; print them, as some take long."""
    for run in runs.values():
        run()
    times = in_turns({name: functools.partial(clock, run) for name, run in runs.items()}, rounds)
    for name, some in times.items():
        print(f"  {clock.__name__}, {name}: " + ", ".join(f"{1e3 * one:.1f} ms" for one in some), flush=True)
    return times


def row(bond: int, place: int, rounds: int, peers: str) -> tuple[list[list[object]], dict[str, bool]]:
    """Return the rows of a bond dimension, and which of its targets are reached; print what is known on the way."""
    print(f"D = {bond}", flush=True)
    torch.set_num_threads(1)
    runs = {name: step_of(name, bond) for name in names()} | {"product": product}
    cpu = measured(runs, rounds, cpu_seconds)
    torch.set_num_threads(2)
    wall = measured(runs, rounds, wall_seconds)
    torch.set_num_threads(1)
    memory = {
        name: in_fresh_process(["--peak", name, str(bond), "--peers", peers], 1 if name == PEER else 3)
        for name in names()
    }
    share = 6 * SITES * BATCH * 2 * bond**2 / (PRODUCTS * 2 * SIDE**3)  # of the operations of a step to the products'
    rows, reached = [], {}
    for name in names():
        peak = share * ratio(cpu, "product", name)
        times = [f"{1e3 * statistics.median(one[name]):.1f}" for one in (cpu, wall)]
        less = [ratio(one, PEER, name) for one in (cpu, wall)] if PEER in names() else []
        cells = [times[0], *(f"{one:.1f}" for one in less[:1]), times[1], *(f"{one:.1f}" for one in less[1:])]
        rows.append([f"{bond}", name, *cells, f"{100 * peak:.0f} %", f"{memory[name]:.0f}"])
        print(*rows[-1], sep=" | ", flush=True)
        if less and name in ENGINES:
            reached[f"{name}, D = {bond}: {LESS_CPU[name][place]} times less CPU time"] = (
                less[0] >= LESS_CPU[name][place]
            )
        if less and name == "compiled":
            reached[f"{FASTER[place]} times faster on two threads at D = {bond}"] = less[1] >= FASTER[place]
            if bond >= 32:
                reached[f"{100 * OF_PEAK:.0f} % of the peak at D = {bond}"] = peak >= OF_PEAK
                reached[f"1/{LESS_MEMORY} of the memory at D = {bond}"] = memory[PEER] / memory[name] >= LESS_MEMORY
    return rows, reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--peers", default="", help="folder that tensorkrowch is installed in")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.append(options.peers)
    if options.peak:
        name, bond = options.peak
        torch.set_num_threads(1)
        step_of(name, 2)()  # what is loaded on first use
        return print(added_memory(step_of(name, int(bond))))
    rows, reached = [], {}
    for place, bond in enumerate(BONDS):
        more, also = row(bond, place, options.rounds, options.peers)
        rows += more
        reached |= also
    compared = [f"{PEER} /"] if PEER in names() else []
    publish(
        "mps",
        "A step of a matrix product state",
        f"Forward and backward of the cross entropy, {SITES} sites, [1, x], {CLASSES} outputs in the middle, batch "
        f"{BATCH}, float32. Median of {options.rounds} rounds in turns; a ratio is the median of those of the same "
        "round. CPU time with one thread, time on the clock with two. Of the peak: operations per CPU second (6 for "
        f"each sample, site, feature and pair of bond values) against those of products of {SIDE} x {SIDE} matrices in "
        "the same rounds. Memory is what a fresh process adds at its peak. "
        f"{installed(options.peers, [PEER])}, by its fastest flags, its features made before; ours makes them in the "
        "step.",
        table(
            ["D", "", "CPU, ms", *compared, "two threads, ms", *compared, "of the peak", "memory, MiB"],
            rows,
        ),
        verdict(reached),
    )
    return None


if __name__ == "__main__":
    main()
