"""Plans to start the alternation from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.functional.fgw.frank_wolfe import frank_wolfe
from kdzoo.functional.fgw.plan import HardPlan, Plan, SoftPlan
from kdzoo.functional.fgw.problem import Problem, Space, fit

INITS = ("random", "kmeans")
MATCHING_STEPS = 50


def first_plan(problem: Problem, init: str, seed: int) -> HardPlan:
    """Return a hard plan for the first teacher: random labels, or the nearest of k-means++ seeds."""
    space, K = problem.spaces[0], problem.clusters
    generator = torch.Generator().manual_seed(seed)
    if init == "kmeans":
        return HardPlan(space.p, K, nearest_seed(space, K, generator))
    labels = torch.randint(K, (len(space.p),), generator=generator)
    return HardPlan(space.p, K, labels.to(space.p.device))


def nearest_seed(space: Space, clusters: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Return the nearest of seeds that are drawn by mass times squared distance to the seeds before.

    Source:
        Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section 2.2.
    """
    p, nearest = space.p.double(), torch.zeros(len(space.p), dtype=torch.int64, device=space.p.device)
    distance = torch.full_like(p, torch.inf)
    for k in range(clusters):
        chance = p * distance if k else p
        chance = (chance if chance.sum() > 0 else p).cumsum(0)
        draw = chance[-1].cpu() * torch.rand(1, generator=generator, dtype=torch.float64)
        seed = int(torch.searchsorted(chance, draw.to(p)).clamp_max(len(p) - 1))
        here = (space.x - space.x[seed]).square().sum(1).double()
        nearest = torch.where(here < distance, k, nearest)
        distance = torch.minimum(distance, here)
    return nearest


def matched(problem: Problem, first: Plan) -> list[Plan]:
    """Return the first teacher's plan, and for each other teacher the plan that suits its transitions.

    The clusters of different teachers share no space, so only the transitions can tell which belong together: the
    others start from independent points and clusters and descend on the comparison of transitions alone.
    """
    alone = fit(replace(problem, spaces=problem.spaces[:1], alpha=0.0), [first])
    plans: list[Plan] = [first]
    for space in problem.spaces[1:]:
        product = SoftPlan(space.p, torch.outer(space.p, alone.h.to(space.p)))
        costs = torch.zeros_like(product.shares)
        plans.append(frank_wolfe(costs, space.graph, alone.comparison, product, MATCHING_STEPS))
    return plans


def given(problem: Problem, init: Any) -> list[Plan]:
    """Check plans or labels of all teachers."""
    tensors: Sequence[Any] = [init] if isinstance(init, Tensor) else list(init)
    if len(tensors) != len(problem.spaces):
        raise ConfigError(f"init must be one plan per teacher, got {len(tensors)} for {len(problem.spaces)}")
    return [_checked(space.p, problem.clusters, value) for space, value in zip(problem.spaces, tensors, strict=True)]


def _checked(p: Tensor, clusters: int, value: Any) -> Plan:
    """Return a given plan, or raise what is wrong with it."""
    if isinstance(value, Tensor) and value.dtype == torch.int64 and value.shape == p.shape:
        if value.min() < 0 or value.max() >= clusters:
            raise ConfigError(f"init must hold labels in 0..{clusters - 1}, got {int(value.min())}..{int(value.max())}")
        return HardPlan(p, clusters, value)
    if isinstance(value, Tensor) and value.is_floating_point() and value.shape == (len(p), clusters):
        T = value.to(p)
        if (T < 0).any() or not torch.allclose(T.sum(1), p, rtol=1e-4, atol=0):
            raise ConfigError("init must be a plan >= 0 whose row sums are the masses of the points")
        return SoftPlan(p, T)
    found = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    wanted = f"random, kmeans, int64 labels ({len(p)},) or a plan ({len(p)}, {clusters})"
    raise ConfigError(f"init must be {wanted}, got {found}")
