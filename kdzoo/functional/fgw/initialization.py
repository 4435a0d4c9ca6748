"""Initial transport plans."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.functional.fgw.frank_wolfe import frank_wolfe
from kdzoo.functional.fgw.plan import HardPlan, Plan, SoftPlan
from kdzoo.functional.fgw.problem import Problem, Space, closed_form

INITS = ("random", "kmeans")

# Frank-Wolfe steps that align the clusters of a further teacher. There is no closed-form update between them, so that
# they are many more than the default of 5 inner steps; the descent stops earlier at a stationary plan.
ALIGNMENT_STEPS = 50


def initial_plan(problem: Problem, init: str, seed: int) -> HardPlan:
    """Return a hard plan for the first teacher.

    Args:
        problem: The objective.
        init: ``"random"`` for uniform labels, ``"kmeans"`` for the nearest of k-means++ seeds.
        seed: Seed of the draws.
    """
    space, K = problem.spaces[0], problem.clusters
    generator = torch.Generator().manual_seed(seed)
    if init == "kmeans":
        return HardPlan(space.p, K, kmeans_plus_plus(space, K, generator))
    labels = torch.randint(K, (len(space.p),), generator=generator)
    return HardPlan(space.p, K, labels.to(space.p.device))


def kmeans_plus_plus(space: Space, clusters: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Return the nearest k-means++ seed of every point.

    Each seed is a point that is drawn with probability proportional to its mass times its squared distance to the
    nearest seed so far.

    Args:
        space: The points and their masses.
        clusters: Number of seeds.
        generator: Source of the draws, on the CPU, so that a seed means the same on every device.

    Returns:
        The number of the nearest seed, ``[N]``.

    References:
        Arthur, Vassilvitskii: k-means++: the advantages of careful seeding. SODA 2007, section 2.2.
    """
    p, nearest = space.p.double(), torch.zeros(len(space.p), dtype=torch.int64, device=space.p.device)
    distance = torch.full_like(p, torch.inf)
    for k in range(clusters):
        mass = p * distance if k else p
        # If every point coincides with a seed, all distances are 0 and the draw goes by mass alone.
        cumulative = (mass if mass.sum() > 0 else p).cumsum(0)
        draw = cumulative[-1].cpu() * torch.rand(1, generator=generator, dtype=torch.float64)
        # Rounding may put the draw at the very end of the cumulative sum, behind the last point.
        seed = int(torch.searchsorted(cumulative, draw.to(p)).clamp_max(len(p) - 1))
        to_seed = (space.x - space.x[seed]).square().sum(1).double()
        nearest = torch.where(to_seed < distance, k, nearest)
        distance = torch.minimum(distance, to_seed)
    return nearest


def align(problem: Problem, first: Plan) -> list[Plan]:
    """Return the plan of the first teacher and, for each other teacher, the plan that fits its transitions best.

    The points of different teachers lie in different spaces, so that only the transitions can tell which clusters
    belong together: the plans of the others start from independent points and clusters, and descend on the cost of
    transitions alone.

    Args:
        problem: The objective.
        first: Plan of the first teacher.

    Returns:
        One plan per teacher.
    """
    # closed_form takes means over the teachers by weight. The weight of the only teacher must be 1 here: otherwise its
    # masses h do not sum to 1, and the plans below do not have the row sums p.
    alone = replace(problem, spaces=[replace(problem.spaces[0], weight=1.0)], alpha=0.0)
    first_model = closed_form(alone, [first])
    plans: list[Plan] = [first]
    for space in problem.spaces[1:]:
        independent = SoftPlan(space.p, torch.outer(space.p, first_model.h.to(space.p)))
        no_costs = torch.zeros_like(independent.shares)
        plans.append(frank_wolfe(no_costs, space.graph, first_model.cost, independent, ALIGNMENT_STEPS))
    return plans


def from_init(problem: Problem, init: Any) -> list[Plan]:
    """Validate initial plans or labels that the caller gave, and return one plan per teacher.

    Args:
        problem: The objective.
        init: A plan ``[N, K]`` or int64 labels ``[N]``, or a sequence of these, one per teacher.

    Raises:
        ConfigError: If a tensor is neither, or their number is not that of the teachers.
    """
    tensors: Sequence[Any] = [init] if isinstance(init, Tensor) else list(init)
    if len(tensors) != len(problem.spaces):
        raise ConfigError(f"init must be one plan per teacher, got {len(tensors)} for {len(problem.spaces)}")
    return [_checked(space.p, problem.clusters, value) for space, value in zip(problem.spaces, tensors, strict=True)]


def _checked(p: Float[Tensor, " n"], clusters: int, value: Any) -> Plan:
    """Return labels or a plan as a ``Plan``, or raise what is wrong with them."""
    if isinstance(value, Tensor) and value.dtype == torch.int64 and value.shape == p.shape:
        if value.min() < 0 or value.max() >= clusters:
            raise ConfigError(f"init must hold labels in 0..{clusters - 1}, got {int(value.min())}..{int(value.max())}")
        return HardPlan(p, clusters, value)
    if isinstance(value, Tensor) and value.is_floating_point() and value.shape == (len(p), clusters):
        T = value.to(p)
        # 1e-4 admits rows that were summed in float32.
        if (T < 0).any() or not torch.allclose(T.sum(1), p, rtol=1e-4, atol=0):
            raise ConfigError("init must be a plan >= 0 whose row sums are the masses of the points")
        return SoftPlan(p, T)
    got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    allowed = f"random, kmeans, int64 labels ({len(p)},) or a plan ({len(p)}, {clusters})"
    raise ConfigError(f"init must be {allowed}, got {got}")
