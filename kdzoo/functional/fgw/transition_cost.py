r"""How well transitions between clusters represent transitions between points, as sums that are sparse in the edges.

The general Gromov-Wasserstein term is a sum over all quadruples (i, j, k, l) of two points and two clusters. For fixed
transitions of the clusters, every loss of this file reduces, up to a constant, to

.. math:: G(T) = h^\top Q h - \tfrac12 \langle L_B(T), T \rangle

with the masses :math:`h` of the clusters, a matrix Q ``[K, K]`` and matrices B ``[S, K, K]``, one per token. Only
:math:`L_B`, which is ``Graph.neighbour_gains``, involves points; it is a sum over edges. For a fixed plan T, the
best transitions have a closed form in two statistics of the plan: the joint masses
:math:`W_a[k, l] = \sum_{(i,j,a,w)} w T_{ik} T_{jl}`, which are ``Graph.joint_mass``, and the products of masses
:math:`H[k, l] = h_k h_l`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

LOSSES = ("kl", "l2", "sparse")


class TransitionCost(NamedTuple):
    """The matrices of G(T) = h'Qh - <L_B(T), T> / 2.

    Attributes:
        Q: Costs of pairs of clusters, float64 ``[K, K]``.
        B: Gains of transitions between clusters, float64 ``[S, K, K]``.
    """

    Q: Tensor
    B: Tensor

    def scaled(self, factor: float) -> "TransitionCost":
        """Return the matrices of ``factor`` times G."""
        return TransitionCost(factor * self.Q, factor * self.B)

    def value(self, W: Float64[Tensor, "s k k"], H: Float64[Tensor, "k k"]) -> float:
        """Return G of a plan with joint masses W and products of masses H."""
        # <L_B(T), T> / 2 = <B, W>: the inner product counts every edge twice, once from each end.
        return float((self.Q * H).sum() - (self.B * W).sum())


def transition_density(W: Float64[Tensor, "s k k"], H: Float64[Tensor, "k k"]) -> Float64[Tensor, "s k k"]:
    """Return the best transitions between clusters, D_a[k, l] = W_a[k, l] / H[k, l], for both "l2" and "kl".

    Both losses are Bregman divergences, whose best representative is the mean. A pair of clusters without mass has no
    mean: it gets the transitions of all points together. With D = 0 instead, an empty cluster would look attractive
    under "l2".
    """
    return torch.where(H > 0, W / H, W.sum((1, 2), keepdim=True))


def transition_cost(
    loss: str,
    W: Float64[Tensor, "s k k"],
    H: Float64[Tensor, "k k"],
    *,
    smoothing: float = 0.0,
    determinism: float = 1.0,
) -> TransitionCost:
    r"""Return the cost of representing transitions by the best ones for given statistics of a plan.

    - ``"l2"``: squared difference; :math:`Q = \sum_a D_a \circ D_a` and :math:`B = 2 D`.
    - ``"kl"``: divergence :math:`\ell(x, y) = x \log(x / y) - x + y`; :math:`Q = \sum_a D_a` and :math:`B = \log D`.
    - ``"sparse"``: negative log-probability :math:`-\log P(a \mid k) - \lambda \log P(l \mid k, a)` of token and
      successor, with P the normalized W; Q = 0. Its sum over the edges is :math:`H(a \mid k) + \lambda H(l \mid k, a)`.
      At :math:`\lambda = 1` it is the negative log-likelihood of a probabilistic automaton; a larger weight drives
      the automaton towards one successor for each state and token.

    The two logarithmic losses replace W by :math:`(1 - s) W + s f H` with :math:`f_a = \sum_{kl} W_a[k, l]`: a
    fraction s of the edges is taken to connect independent points. This bounds the logarithms, and since the result
    is again a vector of joint masses, alternating updates still never raise the objective.

    Args:
        loss: ``"kl"``, ``"l2"`` or ``"sparse"``.
        W: Joint masses, float64 ``[S, K, K]``.
        H: Products of masses, float64 ``[K, K]``.
        smoothing: The fraction s in [0, 1), for ``"kl"`` and ``"sparse"``.
        determinism: The weight lambda >= 0, for ``"sparse"``.

    Returns:
        The matrices Q and B.

    References:
        Peyre, Cuturi, Solomon: Gromov-Wasserstein averaging of kernel and distance matrices. ICML 2016 (the first two
            losses, on one channel).
    """
    D = transition_density(W, H)
    if loss == "l2":
        return TransitionCost((D * D).sum(0), 2 * D)
    f = W.sum((1, 2), keepdim=True)
    D = (1 - smoothing) * D + smoothing * f
    gain = _log(D) if loss == "kl" else _conditional_log_probs(D * H, determinism)
    # The smoothed edges connect independent points: they add to the costs of pairs of clusters for every plan.
    background = smoothing * (f * gain).sum(0)
    return TransitionCost((D.sum(0) if loss == "kl" else 0) - background, (1 - smoothing) * gain)


def _conditional_log_probs(W: Tensor, determinism: float) -> Tensor:
    """Return log P(a | k) + determinism * log P(l | k, a) of joint masses W, ``[S, K, K]``."""
    token_mass = W.sum(2, keepdim=True)
    return _log(_ratio(token_mass, token_mass.sum(0))) + determinism * _log(_ratio(W, token_mass))


def _ratio(part: Tensor, total: Tensor) -> Tensor:
    """Return part / total, and 0 where the total is 0."""
    return part / torch.where(total > 0, total, 1.0)


def _log(x: Tensor) -> Tensor:
    """Return a logarithm that is finite at 0, so that 0 log 0 = 0 instead of NaN."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).log()
