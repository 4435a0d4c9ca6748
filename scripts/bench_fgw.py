"""Frank-Wolfe steps of the fused Gromov-Wasserstein barycenter: CPU time and memory against POT, and at a larger size.

    python scripts/bench_fgw.py [--rounds 5] [--points 200000]

POT takes one dense N x N matrix of transitions; the sparse sums of kdzoo support any number of tokens.
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
from bench_common import markdown_table, median_ratio, publish, time_in_turns
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
MIN_SPEEDUP, MIN_MEMORY_RATIO, MEMORY_POINTS = {500: 8, 2000: 50, 5000: 80}, 100, 5000
MAX_SECONDS, MAX_MEBIBYTES, MIN_RAND_INDEX = 0.15, 1024, 0.95
LARGE_CASES = [(10, 5, torch.float64), (10, 5, torch.float32), (50, 20, torch.float64), (50, 20, torch.float32)]
RING_STATES, ALPHA, SMALL_SAMPLE = 6, 0.5, 2000


class Case:
    """A barycenter problem: a random chain of points, random costs and cluster transitions, and a random soft plan."""

    def __init__(self, n: int, clusters: int, tokens: int, dtype: torch.dtype = torch.float64) -> None:
        g = torch.Generator().manual_seed(0)
        i = torch.arange(n - 1)[torch.rand(n - 1, generator=g) < 0.9]
        self.edges = Edges(i, i + 1, torch.randint(tokens, (len(i),), generator=g))
        self.p = torch.full((n,), 1 / n, dtype=dtype)
        self.D = torch.rand(tokens, clusters, clusters, generator=g, dtype=torch.float64)
        self.D += 4 * torch.eye(clusters)  # keeps the plans soft, so that neither implementation stops early
        self.M = torch.rand(n, clusters, generator=g, dtype=dtype) / n
        rows = torch.rand(n, clusters, generator=g, dtype=dtype)
        self.T = rows / rows.sum(1, keepdim=True) / n
        self.tokens = tokens

    def make_descent(self) -> FrankWolfe:
        """Return the Frank-Wolfe descent of kdzoo at its initial plan."""
        cost = transition_cost("l2", self.D, torch.ones_like(self.D[0])).scaled(STRUCTURE)
        costs, graph = (1 - STRUCTURE) * self.M, Graph(self.edges, self.p, self.tokens)
        return FrankWolfe(costs, graph, cost, SoftPlan(self.p, self.T))

    def pot_plan(self, steps: int) -> np.ndarray:
        """Return the plan of POT after the given number of steps."""
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


def time_sparse_step(case: Case, steps: int) -> float:
    """Return the CPU milliseconds of a step of kdzoo, excluding the first step."""
    descent = case.make_descent()
    descent.step()
    start = time.process_time()
    with torch.inference_mode():
        for _ in range(steps - 1):
            assert descent.step()
    return 1e3 * (time.process_time() - start) / (steps - 1)


def time_pot_step(case: Case, steps: int) -> float:
    """Return the CPU milliseconds of a step of POT, excluding setup and the first step."""
    times = []
    for count in (1, steps):
        start = time.process_time()
        case.pot_plan(count)
        times.append(time.process_time() - start)
    return 1e3 * (times[1] - times[0]) / (steps - 1)


def plan_difference(case: Case, steps: int) -> float:
    """Return the largest absolute difference between the two plans after the given number of steps."""
    descent = case.make_descent()
    for _ in range(steps):
        descent.step()
    return float((descent.plan.dense() - torch.from_numpy(case.pot_plan(steps))).abs().max())


def compare_with_pot(rounds: int) -> tuple[list[list[str]], bool]:
    """Return the rows of the comparison and whether all targets are reached."""
    rows, reached = [], True
    for n, steps in STEPS.items():
        case = Case(n, CLUSTERS, 1)
        largest_difference = plan_difference(case, steps)
        times = time_in_turns(
            {"pot": partial(time_pot_step, case, steps), "sparse": partial(time_sparse_step, case, steps)}, rounds
        )
        speedup = median_ratio(times, "pot", "sparse")
        reached &= speedup >= MIN_SPEEDUP[n] and largest_difference <= 1e-10
        cells = [f"{statistics.median(times[name]):.3f}" for name in ("pot", "sparse")]
        rows.append([f"{n:,}", *cells, f"{speedup:.1f}", str(MIN_SPEEDUP[n]), f"{largest_difference:.0e}"])
    return rows, reached


def measure_large_sizes(n: int, rounds: int) -> tuple[list[list[str]], bool]:
    """Return the rows of the larger size and whether the first row reaches its targets."""
    rows, reached = [], []
    for clusters, tokens, dtype in LARGE_CASES:
        case, times, setup_times = Case(n, clusters, tokens, dtype), [], []
        for _ in range(rounds):
            start = time.process_time()
            case.make_descent()
            setup_times.append(time.process_time() - start)
            times.append(time_sparse_step(case, 6))
        milliseconds, memory = statistics.median(times), peak_memory("sparse", n, clusters, tokens, dtype)
        reached.append(milliseconds <= 1e3 * MAX_SECONDS and memory <= MAX_MEBIBYTES)
        name = f"{n:,} points, {clusters} clusters, {tokens} tokens, {str(dtype).removeprefix('torch.')}"
        rows.append([name, f"{milliseconds:.1f}", f"{1e3 * statistics.median(setup_times):.0f}", f"{memory:.0f}"])
    return rows, reached[0]


def peak_memory(name: str, *case: object) -> float:
    """Return by how many MiB data and three steps raise the peak memory of a new process."""
    command = [sys.executable, __file__, "--peak", name, *map(str, case)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def print_peak_memory(name: str, n: str, clusters: str, tokens: str, dtype: str = "torch.float64") -> None:
    """Print the number that :func:`peak_memory` reads, in the new process."""

    def run_steps(points: int) -> None:
        case = Case(points, int(clusters), int(tokens), getattr(torch, dtype.removeprefix("torch.")))
        if name == "pot":
            case.pot_plan(3)
        else:
            descent = case.make_descent()
            for _ in range(3):
                descent.step()

    run_steps(50)  # loads everything that is loaded on first use
    before = process_status("VmRSS")
    with contextlib.suppress(PermissionError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the recorded peak
    run_steps(int(n))
    print((process_status("VmHWM") - before) / 1024)


def process_status(key: str) -> int:
    """Return an entry of the status of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def sample_ring(n: int) -> tuple[Tensor, Edges]:
    """Return noisy points of one long walk on a ring of states, where token 0 moves on and token 1 stays."""
    g = torch.Generator().manual_seed(0)
    stays = (torch.rand(n - 1, generator=g) < 0.15).long()
    states = torch.cat([torch.zeros(1, dtype=torch.int64), (1 - stays).cumsum(0)]) % RING_STATES
    angle = 2 * torch.pi * torch.arange(RING_STATES, dtype=torch.float64) / RING_STATES
    x = torch.stack([angle.cos(), angle.sin()], 1)[states]
    i = torch.arange(n - 1)
    return x + 0.3 * torch.randn(n, 2, generator=g, dtype=torch.float64), Edges(i, i + 1, stays)


def compare_sample_sizes(n: int) -> tuple[list[list[str]], bool]:
    """Return the agreement of labels between sample sizes, with and without scaled terms."""
    rows, reached = [], True
    for loss, power in (("kl", 1), ("l2", 2)):
        labels = {}
        unscaled = 1 / (1 + (1 / ALPHA - 1) * (SMALL_SAMPLE / n) ** power)
        for name, points, alpha in (("small", SMALL_SAMPLE, ALPHA), ("scaled", n, ALPHA), ("unscaled", n, unscaled)):
            x, edges = sample_ring(points)
            settings = BarycenterSettings(alpha, loss)
            labels[name] = fgw_barycenter(x, edges, RING_STATES, settings, init="kmeans").labels[:SMALL_SAMPLE]
        scores = [adjusted_rand_score(labels["small"], labels[name]) for name in ("scaled", "unscaled")]
        reached &= scores[0] >= MIN_RAND_INDEX > scores[1]
        rows.append([loss, *(f"{score:.3f}" for score in scores)])
    return rows, reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of measured rounds")
    parser.add_argument("--points", type=int, default=200_000, help="points of the larger size")
    parser.add_argument("--peak", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        return print_peak_memory(*options.peak)
    memory = {name: peak_memory(name, MEMORY_POINTS, CLUSTERS, 1) for name in ("pot", "sparse")}
    memory_ratio = memory["pot"] / memory["sparse"]
    with threadpool_limits(1):
        steps, is_fast = compare_with_pot(options.rounds)
        sizes, is_small = measure_large_sizes(options.points, options.rounds)
        labels, agrees = compare_sample_sizes(options.points)
    headers = ["points", "POT, ms", "sparse, ms", "times faster", "target", "plans apart"]
    publish(
        "fgw",
        "Frank-Wolfe steps of the fused Gromov-Wasserstein barycenter",
        f"Chains of points, {CLUSTERS} clusters, one token, squared difference. CPU milliseconds per step after the "
        f"first, one thread, median of {options.rounds} rounds; a ratio is of the same round. Both take the same steps "
        "from the same soft plan: the last column is the largest difference of the plans at the end. POT "
        f"{version('POT')}.",
        markdown_table(headers, steps),
        f"Targets: the ratios in the table; {'reached' if is_fast else 'MISSED'}.",
        f"What the data and three steps add to a fresh process at its peak, {MEMORY_POINTS:,} points: "
        f"{memory['pot']:.0f} MiB for POT, {memory['sparse']:.1f} MiB for the sparse sums, {memory_ratio:.0f} times "
        f"less. Target: {MIN_MEMORY_RATIO} times; {'reached' if memory_ratio >= MIN_MEMORY_RATIO else 'MISSED'}.",
        "POT would need one matrix of points times points for every token at the next sizes. Setting up sorts the "
        "edges and takes the first gradient, at a soft plan.",
        markdown_table(["", "step, ms", "setting up, ms", "MiB"], sizes),
        f"Targets for the first line: {1e3 * MAX_SECONDS:.0f} ms and {MAX_MEBIBYTES} MiB; "
        f"{'reached' if is_small else 'MISSED'}.",
        f"Labels of the same {SMALL_SAMPLE:,} points among {SMALL_SAMPLE:,} and among {options.points:,} of one "
        f"source, adjusted Rand index, at alpha = {ALPHA} for both; in the last column the transitions' term of the "
        "larger sample is not scaled by the mass of its transitions.",
        markdown_table(["loss", "scaled", "not scaled"], labels),
        f"Target: at least {MIN_RAND_INDEX}, and less without the scale; {'reached' if agrees else 'MISSED'}.",
    )
    return None


if __name__ == "__main__":
    main()
