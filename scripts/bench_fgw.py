"""Frank-Wolfe steps of the fused Gromov-Wasserstein barycenter: CPU time and memory against POT, and at a larger size.

    python scripts/bench_fgw.py [--rounds 5] [--points 200000]

POT compares one N x N matrix of transitions; the sparse sums take any number of tokens.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import ot
import torch
from bench_common import in_turns, publish, ratio, table
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits
from torch import Tensor

from kdzoo.functional import BarycenterSettings, Edges, fgw_barycenter
from kdzoo.functional.fgw.frank_wolfe import FrankWolfe
from kdzoo.functional.fgw.graph import Graph
from kdzoo.functional.fgw.plan import SoftPlan
from kdzoo.functional.fgw.transition_cost import transition_cost

CLUSTERS, STRUCTURE = 10, 0.5
STEPS = {500: 31, 2000: 31, 5000: 9}
SPEED, MEMORY, MEMORY_AT = {500: 8, 2000: 50, 5000: 80}, 100, 5000
BIG_SECONDS, BIG_MEBIBYTES, AGREEMENT = 0.15, 1024, 0.95
BIG = [(10, 5, torch.float64), (10, 5, torch.float32), (50, 20, torch.float64), (50, 20, torch.float32)]
RING, ALPHA, SMALL = 6, 0.5, 2000


class Case:
    """A random chain of points with random costs, transitions of the clusters and a random soft plan."""

    def __init__(self, n: int, clusters: int, tokens: int, dtype: torch.dtype = torch.float64) -> None:
        g = torch.Generator().manual_seed(0)
        i = torch.arange(n - 1)[torch.rand(n - 1, generator=g) < 0.9]
        self.edges = Edges(i, i + 1, torch.randint(tokens, (len(i),), generator=g))
        self.p = torch.full((n,), 1 / n, dtype=dtype)
        self.D = torch.rand(tokens, clusters, clusters, generator=g, dtype=torch.float64)
        self.D += 4 * torch.eye(clusters)  # keeps the plans soft, so that both take all their steps
        self.M = torch.rand(n, clusters, generator=g, dtype=dtype) / n
        rows = torch.rand(n, clusters, generator=g, dtype=dtype)
        self.T = rows / rows.sum(1, keepdim=True) / n
        self.tokens = tokens

    def sparse(self) -> FrankWolfe:
        """Return the descent, ready to step."""
        cost = transition_cost("l2", self.D, torch.ones_like(self.D[0])).scaled(STRUCTURE)
        costs, graph = (1 - STRUCTURE) * self.M, Graph(self.edges, self.p, self.tokens)
        return FrankWolfe(costs, graph, cost, SoftPlan(self.p, self.T))

    def pot(self, steps: int) -> np.ndarray:
        """Return POT's plan after some steps."""
        n = len(self.p)
        adjacency = np.zeros((n, n))
        adjacency[self.edges.source, self.edges.target] = 1
        return ot.gromov.semirelaxed_fused_gromov_wasserstein(
            self.M.numpy(),
            adjacency,
            self.D[0].numpy(),
            self.p.numpy(),
            symmetric=False,
            alpha=STRUCTURE,
            G0=self.T.numpy(),
            max_iter=steps,
            tol_rel=0,
            tol_abs=0,
        )


def sparse_step(case: Case, steps: int) -> float:
    """Return the CPU milliseconds of a step."""
    descent = case.sparse()
    descent.step()
    start = time.process_time()
    with torch.inference_mode():
        for _ in range(steps - 1):
            assert descent.step()
    return 1e3 * (time.process_time() - start) / (steps - 1)


def pot_step(case: Case, steps: int) -> float:
    """Return the CPU milliseconds of a step, without what comes before the second."""
    times = []
    for count in (1, steps):
        start = time.process_time()
        case.pot(count)
        times.append(time.process_time() - start)
    return 1e3 * (times[1] - times[0]) / (steps - 1)


def difference(case: Case, steps: int) -> float:
    """Return the largest difference of the two plans after some steps."""
    descent = case.sparse()
    for _ in range(steps):
        descent.step()
    return float((descent.plan.dense() - torch.from_numpy(case.pot(steps))).abs().max())


def against_pot(rounds: int) -> tuple[list[list[str]], bool]:
    """Return the lines of the comparison and whether all targets are reached."""
    rows, reached = [], True
    for n, steps in STEPS.items():
        case = Case(n, CLUSTERS, 1)
        apart = difference(case, steps)
        times = in_turns({"pot": partial(pot_step, case, steps), "sparse": partial(sparse_step, case, steps)}, rounds)
        faster = ratio(times, "pot", "sparse")
        reached &= faster >= SPEED[n] and apart <= 1e-10
        cells = [f"{statistics.median(times[name]):.3f}" for name in ("pot", "sparse")]
        rows.append([f"{n:,}", *cells, f"{faster:.1f}", str(SPEED[n]), f"{apart:.0e}"])
    return rows, reached


def large(n: int, rounds: int) -> tuple[list[list[str]], bool]:
    """Return the lines of the larger size and whether the first one reaches its targets."""
    rows, reached = [], []
    for clusters, tokens, dtype in BIG:
        case, times, starts = Case(n, clusters, tokens, dtype), [], []
        for _ in range(rounds):
            start = time.process_time()
            case.sparse()
            starts.append(time.process_time() - start)
            times.append(sparse_step(case, 6))
        step, memory = statistics.median(times), peak("sparse", n, clusters, tokens, dtype)
        reached.append(step <= 1e3 * BIG_SECONDS and memory <= BIG_MEBIBYTES)
        name = f"{n:,} points, {clusters} clusters, {tokens} tokens, {str(dtype).removeprefix('torch.')}"
        rows.append([name, f"{step:.1f}", f"{1e3 * statistics.median(starts):.0f}", f"{memory:.0f}"])
    return rows, reached[0]


def peak(name: str, *case: object) -> float:
    """Return the MiB that a fresh process gains at its peak through the data and three steps."""
    command = [sys.executable, __file__, "--peak", name, *map(str, case)]
    settings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, env=settings, check=True, capture_output=True, text=True).stdout)


def print_peak(name: str, n: str, clusters: str, tokens: str, dtype: str = "torch.float64") -> None:
    """Print what `peak` asks for."""

    def work(points: int) -> None:
        case = Case(points, int(clusters), int(tokens), getattr(torch, dtype.removeprefix("torch.")))
        if name == "pot":
            case.pot(3)
        else:
            descent = case.sparse()
            for _ in range(3):
                descent.step()

    work(50)  # what is loaded on first use
    before = _status("VmRSS")
    with contextlib.suppress(PermissionError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    work(int(n))
    print((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    """Return a line of the process's status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def ring(n: int) -> tuple[Tensor, Edges]:
    """Noisy points of one long walk round a ring: token 0 moves on, token 1 stays."""
    g = torch.Generator().manual_seed(0)
    stays = (torch.rand(n - 1, generator=g) < 0.15).long()
    states = torch.cat([torch.zeros(1, dtype=torch.int64), (1 - stays).cumsum(0)]) % RING
    angle = 2 * torch.pi * torch.arange(RING, dtype=torch.float64) / RING
    x = torch.stack([angle.cos(), angle.sin()], 1)[states]
    i = torch.arange(n - 1)
    return x + 0.3 * torch.randn(n, 2, generator=g, dtype=torch.float64), Edges(i, i + 1, stays)


def same_alpha(n: int) -> tuple[list[list[str]], bool]:
    """Return the agreement of labels between sample sizes, with the terms scaled and without."""
    rows, reached = [], True
    for loss, power in (("kl", 1), ("l2", 2)):
        found = {}
        unscaled = 1 / (1 + (1 / ALPHA - 1) * (SMALL / n) ** power)
        for name, points, alpha in (("small", SMALL, ALPHA), ("scaled", n, ALPHA), ("unscaled", n, unscaled)):
            x, edges = ring(points)
            settings = BarycenterSettings(alpha, loss)
            found[name] = fgw_barycenter(x, edges, RING, settings, init="kmeans").labels[:SMALL]
        scores = [adjusted_rand_score(found["small"], found[name]) for name in ("scaled", "unscaled")]
        reached &= scores[0] >= AGREEMENT > scores[1]
        rows.append([loss, *(f"{score:.3f}" for score in scores)])
    return rows, reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--points", type=int, default=200_000, help="points of the larger size")
    parser.add_argument("--peak", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        return print_peak(*options.peak)
    memory = {name: peak(name, MEMORY_AT, CLUSTERS, 1) for name in ("pot", "sparse")}
    smaller = memory["pot"] / memory["sparse"]
    with threadpool_limits(1):
        steps, faster = against_pot(options.rounds)
        sizes, fits = large(options.points, options.rounds)
        labels, agree = same_alpha(options.points)
    heads = ["points", "POT, ms", "sparse, ms", "times faster", "target", "plans apart"]
    publish(
        "fgw",
        "Frank-Wolfe steps of the fused Gromov-Wasserstein barycenter",
        f"Chains of points, {CLUSTERS} clusters, one token, squared difference. CPU milliseconds per step after the "
        f"first, one thread, median of {options.rounds} rounds; a ratio is of the same round. Both take the same steps "
        "from the same soft plan: the last column is the largest difference of the plans at the end. POT "
        f"{version('POT')}.",
        table(heads, steps),
        f"Targets: the ratios in the table; {'reached' if faster else 'MISSED'}.",
        f"What the data and three steps add to a fresh process at its peak, {MEMORY_AT:,} points: {memory['pot']:.0f} "
        f"MiB for POT, {memory['sparse']:.1f} MiB for the sparse sums, {smaller:.0f} times less. Target: {MEMORY} "
        f"times; {'reached' if smaller >= MEMORY else 'MISSED'}.",
        "POT would need one matrix of points times points for every token at the next sizes. Setting up sorts the "
        "edges and takes the first gradient, at a soft plan.",
        table(["", "step, ms", "setting up, ms", "MiB"], sizes),
        f"Targets for the first line: {1e3 * BIG_SECONDS:.0f} ms and {BIG_MEBIBYTES} MiB; "
        f"{'reached' if fits else 'MISSED'}.",
        f"Labels of the same {SMALL:,} points among {SMALL:,} and among {options.points:,} of one source, adjusted "
        f"Rand index, at alpha = {ALPHA} for both; in the last column the transitions' term of the larger sample is "
        "not scaled by the mass of its transitions.",
        table(["loss", "scaled", "not scaled"], labels),
        f"Target: at least {AGREEMENT}, and less without the scale; {'reached' if agree else 'MISSED'}.",
    )
    return None


if __name__ == "__main__":
    main()
