"""Frank-Wolfe steps with exact line search on a plan whose clusters may take any mass."""

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.functional.fgw.graph import Graph, both_ways
from kdzoo.functional.fgw.plan import HardPlan, Plan
from kdzoo.functional.fgw.transition_cost import Comparison


@torch.inference_mode()
def frank_wolfe(costs: Float[Tensor, "n k"], graph: Graph, comparison: Comparison, plan: Plan, steps: int) -> Plan:
    """Take Frank-Wolfe steps on the plan with centroids and transitions fixed: step (3) of the alternation."""
    descent = Descent(costs, graph, comparison, plan)
    while steps > 0 and descent.step():
        steps -= 1
    return descent.plan


class Descent:
    r"""Frank-Wolfe on J(T) = <F, T> + h'Qh - <L_B(T), T> / 2 over the plans with row sums p.

    The gradient :math:`F + (Q + Q')h - L_B(T)` is affine in T, so a step that mixes plans mixes their gradients,
    and a vertex V of the plans puts every point into one cluster, for which the gradient costs O(E K). J along a
    step is a parabola that products of plans and gradients give: no sum over edges is taken for the line search.

    Args:
        costs: The linear part F, (N, K).
        graph: The points and their edges.
        comparison: The matrices Q and B.
        plan: Where to start.
    """

    def __init__(self, costs: Float[Tensor, "n k"], graph: Graph, comparison: Comparison, plan: Plan) -> None:
        self.costs, self.graph = costs, graph
        self.plan: Plan = plan
        self.Q, self.both = comparison.Q + comparison.Q.T, both_ways(comparison.B.to(costs))
        self.gradient = self.slope(plan)
        self.linear = plan.inner(costs)
        self.value = (self.linear + plan.inner(self.gradient)) / 2

    def slope(self, plan: Plan) -> Float[Tensor, "n k"]:
        """Return the gradient at a plan."""
        pairs = (self.Q @ plan.masses()).to(self.costs)
        return (self.costs + pairs).sub_(self.graph.pulled(plan, self.both))

    def step(self) -> bool:
        """Take one step; return whether it moved the plan."""
        lowest, labels = self.gradient.min(1)
        if isinstance(self.plan, HardPlan) and torch.equal(labels, self.plan.labels):
            return False
        vertex = HardPlan(self.plan.p, self.plan.clusters, labels)
        slope, linear = self.slope(vertex), vertex.inner(self.costs)
        a, b = self.parabola(float(torch.dot(lowest, vertex.p)), vertex.inner(slope), linear)
        step = lowest_point(a, b)
        if step == 0:
            return False
        self.plan = self.plan.towards(vertex, step)
        self.gradient.lerp_(slope, step)
        self.linear += step * (linear - self.linear)
        self.value += step * (b + step * a)
        return True

    def parabola(self, here: float, there: float, linear: float) -> tuple[float, float]:
        """Return a and b of J(T + x (V - T)) = J(T) + b x + a x^2.

        Args:
            here: <gradient at T, V>.
            there: <gradient at V, V>.
            linear: <F, V>.
        """
        at = 2 * self.value - self.linear  # <gradient at T, T>; <gradient at V, T> is self.linear + here - linear
        return (there - self.linear - 2 * here + linear + at) / 2, here - at


def lowest_point(a: float, b: float) -> float:
    """Return where a x^2 + b x is lowest on [0, 1].

    Example:
        >>> lowest_point(1.0, -1.0), lowest_point(-1.0, -1.0), lowest_point(1.0, 1.0)
        (0.5, 1.0, 0.0)
    """
    if a > 0:
        return min(1.0, max(0.0, -b / (2 * a)))
    return 1.0 if a + b < 0 else 0.0
