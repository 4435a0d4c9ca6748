"""Data that the tests of the barycenter share."""

import math

import numpy as np
import torch
from torch import Tensor

from kdzoo.functional import Edges
from kdzoo.functional.fgw.frank_wolfe import FrankWolfe
from kdzoo.functional.fgw.graph import Graph
from kdzoo.functional.fgw.plan import HardPlan, Plan, SoftPlan
from kdzoo.functional.fgw.transition_cost import transition_cost
from tests.reference import fgw as reference

N, K, S = 60, 5, 3
RING = 6


def ring(n: int, seed: int = 0, noise: float = 0.3, marked: bool = False) -> tuple[Tensor, Edges, Tensor]:
    """Noisy points of one walk round a ring: token 0 moves on (token 2 from the first, if marked), token 1 stays."""
    g = torch.Generator().manual_seed(seed)
    stays = (torch.rand(n - 1, generator=g) < 0.15).long()
    states = torch.cat([torch.zeros(1, dtype=torch.int64), (1 - stays).cumsum(0)]) % RING
    angle = 2 * math.pi * torch.arange(RING, dtype=torch.float64) / RING
    x = torch.stack([angle.cos(), angle.sin()], 1)[states]
    i = torch.arange(n - 1)
    if marked:
        stays[(states[:-1] == 0) & (stays == 0)] = 2
    return x + noise * torch.randn(n, 2, generator=g, dtype=torch.float64), Edges(i, i + 1, stays), states


class Case:
    """Random points, edges (some of them twice) and transitions, and the same as full arrays."""

    def __init__(self, seed: int, loss: str, *, tokens: int = S, uniform: bool = False, within: float = 0.0) -> None:
        g = np.random.default_rng(seed)
        source, target = g.integers(0, N, (2, 3 * N))
        token = g.integers(0, tokens, 3 * N)
        twice = g.integers(0, 3 * N, 20)
        source, target, token = (np.concatenate([part, part[twice]]) for part in (source, target, token))
        weight = g.uniform(0.5, 2, len(source))
        p = np.full(N, 1 / N) if uniform else g.dirichlet(np.full(N, 5.0))
        self.edges = Edges(*(torch.from_numpy(part) for part in (source, target, token, weight)))
        self.p = torch.from_numpy(p)
        self.D = g.uniform(0.05, 1, (tokens, K, K)) + within * np.eye(K)  # a large diagonal spreads the mass
        self.M = g.uniform(0, 0.1, (N, K))
        self.d = reference.adjacency(source, target, token, weight, N, tokens)
        self.L = reference.losses(self.d, self.D, loss)
        self.rows = reference.point_terms(self.d, p, loss)
        self.graph = Graph(self.edges, self.p, tokens)
        self.cost = transition_cost(loss, torch.from_numpy(self.D), torch.ones(K, K, dtype=torch.float64))
        self.soft = SoftPlan(self.p, torch.from_numpy(p[:, None] * g.dirichlet(np.ones(K), N)))
        self.hard = HardPlan(self.p, K, torch.from_numpy(g.integers(0, K, N)))

        self.plans = {"soft": self.soft, "hard": self.hard}

    def descent(self, plan: Plan) -> FrankWolfe:
        return FrankWolfe(torch.from_numpy(self.M), self.graph, self.cost, plan)

    def objective(self, T: Tensor | np.ndarray) -> float:
        """The full objective minus the terms of the edges that are the same for every plan."""
        T = np.asarray(T)
        return float((self.M * T).sum()) + reference.objective(self.L, T) - float(self.rows @ self.p.numpy()) / 2
