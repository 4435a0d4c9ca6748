r"""The fused Gromov-Wasserstein barycenter of points and labelled transitions, with free masses of its clusters.

The points :math:`x_i` of a teacher have masses :math:`p_i`; :math:`T_{ik}` of the mass of point i goes to cluster k.
For centroids :math:`c_k`, transitions D between clusters, and teachers b with weights :math:`\lambda_b`, the objective
is

.. math:: \sum_b \lambda_b \Bigl( \alpha \sum_{ik} \frac{\lVert x_i - c_k \rVert^2}{\sigma^2} T_{ik}
          + (1 - \alpha) \sum_{ij} \sum_{kl} \ell(d_{ij}, D_{kl}) T_{ik} T_{jl} \Bigr)

over all plans T >= 0 whose rows sum to p; the masses of the clusters are not constrained. At alpha = 1 it is k-means.
The total variance :math:`\sigma^2` of the teacher's points and the mass of its transitions, which is scaled to one,
make both terms free of units and of the number of points, so that an alpha means the same for every sample size.

Closed-form centroids and transitions alternate with Frank-Wolfe steps with exact line search on the plan, until the
objective no longer decreases. An iteration costs O(N K + E K + S K^2) for hard plans and O(E K^2) more after an update
that left the plan soft; the memory is O(N K + E + S K^2).

References:
    Emonet: OT-based distillation. TAUDoS meeting 2021, slides 5 and 6 (the alternation).
    Vayer, Chapel, Flamary, Tavenard, Courty: Optimal transport for structured data with application on graphs. ICML
        2019 (the fused distance).
    Vincent-Cuaz, Flamary, Corneli, Vayer, Courty: Semi-relaxed Gromov-Wasserstein divergence with applications on
        graphs. ICLR 2022 (one free marginal).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.progress import track
from kdzoo.functional.fgw.frank_wolfe import frank_wolfe
from kdzoo.functional.fgw.graph import Edges
from kdzoo.functional.fgw.initialization import INITS, align, from_init, initial_plan
from kdzoo.functional.fgw.inputs import build_spaces
from kdzoo.functional.fgw.plan import HardPlan, Plan
from kdzoo.functional.fgw.problem import Problem, Space, closed_form, reseed_empty
from kdzoo.functional.fgw.transition_cost import LOSSES, transition_density


@dataclass(frozen=True)
class BarycenterSettings:
    """Settings of :func:`fgw_barycenter`: the objective, how often it is minimized, and when an iteration stops.

    Args:
        alpha: Weight of the points against the transitions, in [0, 1]; 1 is k-means.
        loss: Comparison of transitions, ``"kl"``, ``"l2"`` or ``"sparse"``; see
            :func:`kdzoo.functional.fgw.transition_cost.transition_cost`.
        determinism: Weight >= 0 of the successor in the loss ``"sparse"``. At 1 the loss is the negative
            log-likelihood of an automaton, above 1 it favours one successor for each cluster and token.
        smoothing: Share of edges in [0, 1) that the logarithmic losses take to connect independent points.
        n_init: Number of starts, of which the one with the lowest objective is returned.
        max_iter: Largest number of updates of centroids and transitions.
        inner_steps: Frank-Wolfe steps after each update.
        tol: Decrease of the objective, >= 0, at or below which the iteration stops.
        seed: Seed of the first start; the next starts have the next seeds.

    Raises:
        ConfigError: If an argument is outside its range.
    """

    alpha: float | int
    # The signal of "l2" vanishes as transitions become sparse, that of "kl" does not.
    loss: str = "kl"
    determinism: float | int = 1.0
    # Bounds log D at 6.9 below its value for independent points; a larger share would hide rare transitions.
    smoothing: float | int = 1e-3
    n_init: int = 1
    # The limit of scikit-learn's k-means; a run usually converges long before.
    max_iter: int = 300
    # Five or six steps were enough in measurements: the next update changes what they descend on anyway.
    inner_steps: int = 5
    # The objective has the size 1 in every unit of the data, so that the tolerance may be absolute.
    tol: float | int = 1e-9
    seed: int = 0

    def __post_init__(self) -> None:
        validation.number("alpha", self.alpha, 0.0, 1.0)
        validation.choice("loss", self.loss, LOSSES)
        validation.number("determinism", self.determinism, 0.0)
        validation.probability("smoothing", self.smoothing)
        validation.integer("n_init", self.n_init)
        validation.integer("max_iter", self.max_iter)
        validation.integer("inner_steps", self.inner_steps)
        validation.number("tol", self.tol, 0.0)
        validation.integer("seed", self.seed, least=0)

    def problem(self, spaces: Sequence[Space], n_clusters: int) -> Problem:
        """Return the objective for validated data; the number of clusters must be in 1 to the number of points."""
        return Problem(
            spaces,
            validation.integer("n_clusters", n_clusters, most=min(len(space.p) for space in spaces)),
            alpha=float(self.alpha),
            loss=self.loss,
            determinism=float(self.determinism),
            smoothing=float(self.smoothing),
        )


@dataclass(frozen=True, eq=False)
class Barycenter:
    """Result of :func:`fgw_barycenter`, with one plan and one set of centroids per teacher.

    Attributes:
        plans: The mass T_ik of every point that goes to every cluster, ``[N_b, K]``, whose rows sum to p.
        centroids: Weighted means of the points of every cluster, ``[K, d_b]``.
        joint: Mass W_a[k, l] of the transitions with token a from cluster k to l, float64 ``[S, K, K]``; sums to 1.
        transitions: Transitions D_a[k, l] = W_a[k, l] / (h_k h_l), float64 ``[S, K, K]``: how much denser the
            transitions between two clusters are than between random points.
        masses: Masses h of the clusters, float64 ``[K]``; they sum to 1.
        objective: The objective after every update of centroids and transitions, without the terms that depend on
            the data alone; it never increases.
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
        """The cluster that has most of the mass of every point, teacher after teacher."""
        return self.plan.argmax(1)


def fgw_barycenter(
    points: Float[Tensor, "n d"] | Sequence[Float[Tensor, "..."]],
    edges: Edges | Sequence[Edges],
    n_clusters: int,
    settings: BarycenterSettings,
    *,
    init: str | Tensor | Sequence[Tensor] = "random",
    mass: Float[Tensor, " n"] | Sequence[Float[Tensor, "..."]] | None = None,
    weights: Sequence[float | int] | None = None,
    n_tokens: int | None = None,
) -> Barycenter:
    """Reduce points and the transitions between them to clusters and the transitions between those.

    Args:
        points: Points such as hidden states, ``[N, d]``, float32 or float64; or a sequence, one array per teacher.
        edges: Transitions between the points, or one per teacher.
        n_clusters: Number of clusters K, at most the number of points.
        settings: Objective and stopping rule.
        init: ``"random"`` labels, ``"kmeans"`` for those of k-means from k-means++ seeds, a plan ``[N, K]`` or labels
            ``[N]``, or a sequence of tensors, one per teacher. A tensor is one start, and ``n_init`` has no effect.
        mass: Masses p > 0 of the points, ``[N]``, or one array per teacher; None for equal masses.
        weights: Weights lambda > 0 of the teachers; None for equal weights.
        n_tokens: Number of tokens S; None for the smallest number that the edges allow.

    Returns:
        Plans, centroids, transitions and masses of the start with the lowest objective.

    Raises:
        ConfigError: If an argument is outside its range or does not fit the others.
        DataError: If points, masses or edges are malformed.

    Example:
        >>> x = torch.tensor([[0.0], [5.0], [0.1], [5.1]])
        >>> chain = Edges(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]), torch.tensor([0, 1, 0]))
        >>> result = fgw_barycenter(x, chain, 2, BarycenterSettings(alpha=0.5), init="kmeans")
        >>> bool(result.labels[0] == result.labels[2]), bool(result.labels[1] == result.labels[3])
        (True, True)
    """
    spaces = build_spaces(points, edges, mass, weights, n_tokens)
    problem = settings.problem(spaces, n_clusters)
    if not isinstance(init, str):
        return minimize(problem, from_init(problem, init), settings)
    validation.choice("init", init, INITS)
    seeds = range(settings.seed, settings.seed + settings.n_init)
    started = track(seeds, "minimizing the barycenter's objective", unit="starts")
    results = [_minimize_from_seed(problem, init, seed, settings) for seed in started]
    return min(results, key=lambda result: result.objective[-1])


def minimize(problem: Problem, plans: list[Plan], settings: BarycenterSettings) -> Barycenter:
    """Alternate closed-form updates and Frank-Wolfe steps until the objective no longer decreases.

    Args:
        problem: The objective.
        plans: Initial plans, one per teacher.
        settings: Number of steps and tolerance.
    """
    plans, model = reseed_empty(problem, plans, closed_form(problem, plans))
    path, converged = [model.objective], False
    while not converged and len(path) <= settings.max_iter:
        plans = [
            frank_wolfe(problem.alpha * space.costs(c), space.graph, model.cost, plan, settings.inner_steps)
            for space, c, plan in zip(problem.spaces, model.centroids, plans, strict=True)
        ]
        plans, model = reseed_empty(problem, plans, closed_form(problem, plans))
        path.append(model.objective)
        converged = path[-2] - path[-1] <= settings.tol
    return Barycenter(
        plans=tuple(plan.dense() for plan in plans),
        centroids=tuple(s.points(c) for s, c in zip(problem.spaces, model.centroids, strict=True)),
        joint=model.W,
        transitions=transition_density(model.W, model.H),
        masses=model.h,
        objective=tuple(path),
        converged=converged,
    )


def _minimize_from_seed(problem: Problem, init: str, seed: int, settings: BarycenterSettings) -> Barycenter:
    """Return the result of one start from random labels or k-means."""
    first = initial_plan(problem, init, seed)
    if init == "kmeans":
        # k-means is the same objective at alpha = 1, for the first teacher alone.
        points_only = replace(problem, spaces=problem.spaces[:1], alpha=1.0)
        first = HardPlan(first.p, problem.clusters, minimize(points_only, [first], settings).labels)
    return minimize(problem, align(problem, first), settings)
