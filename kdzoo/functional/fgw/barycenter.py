r"""The fused Gromov-Wasserstein barycenter of points and labelled transitions, with free masses of its clusters.

The points x_i of a teacher have masses p_i, and T_ik of the mass of point i goes to cluster k. For centroids c_k,
transitions D between clusters and teachers b with weights lambda_b, the objective is

.. math:: \sum_b \lambda_b \Bigl( \alpha \sum_{ik} \frac{\lVert x_i - c_k \rVert^2}{\sigma^2} T_{ik}
          + (1 - \alpha) \sum_{ij} \sum_{kl} \ell(d_{ij}, D_{kl}) T_{ik} T_{jl} \Bigr)

over all plans T >= 0 with row sums p: nothing is asked of the masses of the clusters. At alpha = 1 it is k-means. The
total variance sigma^2 of the teacher's points and the mass of its transitions, scaled to one, make both terms free of
units and of the number of points, so that an alpha means the same for every sample size.

The alternation is that of Emonet 2021, "OT-based distillation" (TAUDoS meeting): closed forms for c and D, then
Frank-Wolfe on T. The distance is that of Vayer, Chapel, Flamary, Tavenard and Courty 2019, "Optimal transport for
structured data with application on graphs"; one marginal is free as in Vincent-Cuaz, Flamary, Corneli, Vayer and
Courty 2022, "Semi-relaxed Gromov-Wasserstein divergence with applications on graphs".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kdzoo.core import validation
from kdzoo.functional.fgw.frank_wolfe import frank_wolfe
from kdzoo.functional.fgw.graph import Edges
from kdzoo.functional.fgw.initialization import INITS, first_plan, given, matched
from kdzoo.functional.fgw.plan import HardPlan, Plan
from kdzoo.functional.fgw.problem import Problem, fit, revive, spaces_of
from kdzoo.functional.fgw.transition_cost import LOSSES, density


@dataclass(frozen=True, eq=False)
class Barycenter:
    """What `fgw_barycenter` found, one plan and one set of centroids for each teacher.

    Attributes:
        plans: The share T_ik of every point's mass that goes to every cluster, (N_b, K) with row sums p.
        centroids: Weighted means of the points of every cluster, (K, d_b).
        joint: Mass W_a[k, l] of the transitions with token a from cluster k to l, float64 (S, K, K), together 1.
        transitions: Transitions D_a[k, l] of the barycenter, float64 (S, K, K): W_a[k, l] / (h_k h_l), how much denser
            the transitions between two clusters are than between random points.
        masses: Masses h of the clusters, float64 (K,), together 1.
        objective: The objective after every update of centroids and transitions, without the terms that depend on
            the data alone; it never rises.
        converged: Whether the last update lowered it by no more than the tolerance.
    """

    plans: tuple[Tensor, ...]
    centroids: tuple[Tensor, ...]
    joint: Tensor
    transitions: Tensor
    masses: Tensor
    objective: tuple[float, ...]
    converged: bool

    @property
    def plan(self) -> Float[Tensor, "n k"]:
        """The plans of all teachers, one below the other."""
        return torch.cat(self.plans)

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """The cluster that takes most of every point's mass, teacher after teacher."""
        return self.plan.argmax(1)


def fgw_barycenter(
    points: Float[Tensor, "n d"] | Sequence[Float[Tensor, "..."]],
    edges: Edges | Sequence[Edges],
    n_clusters: int,
    *,
    alpha: float | int,
    loss: str = "kl",
    determinism: float | int = 1.0,
    mass: Float[Tensor, " n"] | Sequence[Float[Tensor, "..."]] | None = None,
    weights: Sequence[float | int] | None = None,
    n_tokens: int | None = None,
    init: str | Tensor | Sequence[Tensor] = "random",
    n_init: int = 1,
    max_iter: int = 300,
    inner_steps: int = 5,
    smoothing: float = 1e-3,
    tol: float | int = 1e-9,
    seed: int = 0,
) -> Barycenter:
    """Reduce points and the transitions between them to clusters and the transitions between those.

    Closed-form centroids and transitions alternate with Frank-Wolfe steps on the plan, with exact line search, until
    the objective stands still; of several starts the best is kept. A cluster that has lost all mass takes over
    the far half of the widest one, where this does not raise the objective.

    A step costs O(N K + E K + S K^2) for hard plans, O(E K^2) more after an update that left the plan soft, and the
    memory is O(N K + E + S K^2).

    Args:
        points: Hidden states, (N, d); or one such array for each teacher, in spaces of their own. Their dtype is
            that of the computation over points; sums over points are kept in float64.
        edges: Transitions between the points; or one for each teacher.
        n_clusters: Number of clusters K, at most the number of points.
        alpha: Weight of the points against the transitions in [0, 1]; 1 is k-means.
        loss: Comparison of transitions, ``"kl"``, ``"l2"`` or ``"sparse"``; see `compare`.
        determinism: Weight >= 0 of the successor in the loss ``"sparse"``, which at 1 is the likelihood of
            an automaton and above 1 favours one successor for each cluster and token.
        mass: Masses p > 0 of the points, (N,), scaled to sum to one; None for equal ones.
        weights: Weights lambda > 0 of the teachers, scaled to sum to one; None for equal ones.
        n_tokens: Number of tokens S; None for as many as the edges show.
        init: ``"random"`` labels, the labels of ``"kmeans"`` from k-means++, a plan (N, K) or labels (N,), or one
            of these tensors for each teacher. With a name, the further teachers start from the plan that suits the
            first one's transitions.
        n_init: Number of starts, of which the lowest objective is kept; a given plan is one start.
        max_iter: Most updates of centroids and transitions.
        inner_steps: Frank-Wolfe steps after each update.
        smoothing: Share of edges in [0, 1) that the logarithmic losses take for independent.
        tol: Decrease of the objective >= 0 that ends the alternation.
        seed: Seed of the starts.

    Returns:
        The plans, centroids, transitions, masses and the objective's path.

    Raises:
        ConfigError: If an argument is outside its range or does not fit the others.
        DataError: If points, masses or edges are malformed.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [5.0], [0.1], [5.1]])
        >>> chain = Edges(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]), torch.tensor([0, 1, 0]))
        >>> result = fgw_barycenter(x, chain, 2, alpha=0.5, init="kmeans")
        >>> result.labels[0] == result.labels[2], result.labels[1] == result.labels[3]
        (tensor(True), tensor(True))

    Source:
        Emonet 2021, slides 5 and 6; Vincent-Cuaz et al. 2022 for one free marginal.
    """
    spaces = spaces_of(points, edges, mass, weights, n_tokens)
    problem = Problem(
        spaces,
        clusters=validation.integer("n_clusters", n_clusters, most=min(len(space.p) for space in spaces)),
        alpha=validation.number("alpha", alpha, 0.0, 1.0),
        loss=validation.choice("loss", loss, LOSSES),
        determinism=validation.number("determinism", determinism, 0.0),
        smoothing=validation.probability("smoothing", smoothing),
    )
    budget = Budget(
        max_iter=validation.integer("max_iter", max_iter),
        inner_steps=validation.integer("inner_steps", inner_steps),
        tol=validation.number("tol", tol, 0.0),
    )
    if not isinstance(init, str):
        return alternate(problem, given(problem, init), budget)
    validation.choice("init", init, INITS)
    first = validation.integer("seed", seed, least=0)
    seeds = range(first, first + validation.integer("n_init", n_init))
    return min((_from(problem, init, s, budget) for s in seeds), key=lambda found: found.objective[-1])


class Budget(NamedTuple):
    """How long the alternation goes on."""

    max_iter: int
    inner_steps: int
    tol: float


def alternate(problem: Problem, plans: list[Plan], budget: Budget) -> Barycenter:
    """Alternate closed forms and Frank-Wolfe steps from the given plans until the objective stands still."""
    plans, model = revive(problem, plans, fit(problem, plans))
    path, converged = [model.objective], False
    while not converged and len(path) <= budget.max_iter:
        plans = [
            frank_wolfe(problem.alpha * space.costs(c), space.graph, model.comparison, plan, budget.inner_steps)
            for space, c, plan in zip(problem.spaces, model.centroids, plans, strict=True)
        ]
        plans, model = revive(problem, plans, fit(problem, plans))
        path.append(model.objective)
        converged = path[-2] - path[-1] <= budget.tol
    return Barycenter(
        plans=tuple(plan.dense() for plan in plans),
        centroids=tuple((c + s.mean).to(s.x) for s, c in zip(problem.spaces, model.centroids, strict=True)),
        joint=model.W,
        transitions=density(model.W, model.H),
        masses=model.h,
        objective=tuple(path),
        converged=converged,
    )


def _from(problem: Problem, init: str, seed: int, budget: Budget) -> Barycenter:
    """Run one start."""
    first = first_plan(problem, init, seed)
    if init == "kmeans":
        alone = replace(problem, spaces=problem.spaces[:1], alpha=1.0)
        first = HardPlan(first.p, problem.clusters, alternate(alone, [first], budget).labels)
    return alternate(problem, matched(problem, first), budget)
