"""Frank-Wolfe steps with exact line search on a plan whose cluster masses are free."""

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.functional.fgw.graph import Graph, both_directions
from kdzoo.functional.fgw.plan import HardPlan, Plan
from kdzoo.functional.fgw.transition_cost import TransitionCost


@torch.inference_mode()
def frank_wolfe(costs: Float[Tensor, "n k"], graph: Graph, cost: TransitionCost, plan: Plan, steps: int) -> Plan:
    """Take Frank-Wolfe steps on the plan, with centroids and transitions of the clusters fixed.

    Args:
        costs: Cost of every point in every cluster, ``[N, K]``.
        graph: The points and their edges.
        cost: Cost of transitions.
        plan: Where to start.
        steps: Largest number of steps; fewer are taken if the plan is stationary.

    Returns:
        The last plan.
    """
    descent = FrankWolfe(costs, graph, cost, plan)
    while steps > 0 and descent.step():
        steps -= 1
    return descent.plan


class FrankWolfe:
    r"""Frank-Wolfe on :math:`J(T) = \langle F, T \rangle + h^\top Q h - \langle L_B(T), T \rangle / 2`, rows sum to p.

    A step moves from T towards the vertex V of the set of plans that minimizes the linearized objective. As only the
    rows are constrained, V puts every point into the cluster of its smallest gradient. The gradient
    :math:`F + (Q + Q^\top) h - L_B(T)` is affine in T: that of a mixture of plans is the mixture of their gradients,
    so that a step needs only the gradient at V, which costs O(E K). Along a step J is a parabola whose coefficients are
    inner products of plans and gradients: the line search is exact and takes no sum over the edges.

    Args:
        costs: The linear part F, ``[N, K]``.
        graph: The points and their edges.
        cost: The matrices Q and B.
        plan: Where to start.
    """

    def __init__(self, costs: Float[Tensor, "n k"], graph: Graph, cost: TransitionCost, plan: Plan) -> None:
        self.costs, self.graph = costs, graph
        self.plan: Plan = plan
        self.Q, self.directed_gains = cost.Q + cost.Q.T, both_directions(cost.B.to(costs))
        self.gradient = self.gradient_at(plan)
        self.linear = plan.inner(costs)
        # For a quadratic objective without constant, J(T) = (<F, T> + <gradient, T>) / 2.
        self.value = (self.linear + plan.inner(self.gradient)) / 2

    def gradient_at(self, plan: Plan) -> Float[Tensor, "n k"]:
        """Return the gradient of J at a plan."""
        mass_gradient = (self.Q @ plan.masses()).to(self.costs)
        return (self.costs + mass_gradient).sub_(self.graph.neighbour_gains(plan, self.directed_gains))

    def step(self) -> bool:
        """Take one step; return whether the plan has moved."""
        lowest, labels = self.gradient.min(1)
        if isinstance(self.plan, HardPlan) and torch.equal(labels, self.plan.labels):
            return False
        vertex = HardPlan(self.plan.p, self.plan.clusters, labels)
        vertex_gradient, vertex_linear = self.gradient_at(vertex), vertex.inner(self.costs)
        a, b = self.parabola(float(torch.dot(lowest, vertex.p)), vertex.inner(vertex_gradient), vertex_linear)
        step = minimize_parabola(a, b)
        if step == 0:
            return False
        self.plan = self.plan.towards(vertex, step)
        self.gradient.lerp_(vertex_gradient, step)
        self.linear += step * (vertex_linear - self.linear)
        self.value += step * (b + step * a)
        return True

    def parabola(self, gradient_inner: float, vertex_inner: float, vertex_linear: float) -> tuple[float, float]:
        """Return a and b of J(T + x (V - T)) = J(T) + b x + a x^2.

        Args:
            gradient_inner: <gradient at T, V>.
            vertex_inner: <gradient at V, V>.
            vertex_linear: <F, V>.
        """
        plan_inner = 2 * self.value - self.linear  # <gradient at T, T>
        # The quadratic part is symmetric, so that <gradient at V, T> = <F, T> + <gradient at T, V> - <F, V>.
        a = (vertex_inner - self.linear - 2 * gradient_inner + vertex_linear + plan_inner) / 2
        return a, gradient_inner - plan_inner


def minimize_parabola(a: float, b: float) -> float:
    """Return the x in [0, 1] at which a x^2 + b x is lowest.

    Example:
        >>> minimize_parabola(1.0, -1.0), minimize_parabola(-1.0, -1.0), minimize_parabola(1.0, 1.0)
        (0.5, 1.0, 0.0)
    """
    if a > 0:
        return min(1.0, max(0.0, -b / (2 * a)))
    # A concave parabola has its minimum at an end; this is how plans become hard.
    return 1.0 if a + b < 0 else 0.0
