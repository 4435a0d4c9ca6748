r"""How transitions between points are compared with transitions between clusters, in the form the sparse sums need.

For fixed transitions of the clusters, every comparison of this file is, up to a constant,

.. math:: G(T) = h'Qh - \tfrac12 \langle L_B(T), T \rangle

with matrices Q (K, K) and B (S, K, K) that `compare` returns; :math:`L_B` is `Graph.pulled`. For fixed T, the best
transitions have a closed form in two statistics of the plan: the joint masses W_a[k, l], `Graph.joint`, and the
products of masses H[k, l] = h_k h_l.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

LOSSES = ("kl", "l2", "sparse")


class Comparison(NamedTuple):
    """The matrices of G(T) = h'Qh - <L_B(T), T> / 2.

    Attributes:
        Q: Costs of pairs of clusters, float64 (K, K).
        B: Gains of transitions between clusters, float64 (S, K, K).
    """

    Q: Tensor
    B: Tensor

    def scaled(self, factor: float) -> "Comparison":
        """Return the comparison with G multiplied by a factor."""
        return Comparison(factor * self.Q, factor * self.B)

    def value(self, W: Float64[Tensor, "s k k"], H: Float64[Tensor, "k k"]) -> float:
        """Return G of a plan with joint masses W and products of masses H."""
        return float((self.Q * H).sum() - (self.B * W).sum())


def density(W: Float64[Tensor, "s k k"], H: Float64[Tensor, "k k"]) -> Float64[Tensor, "s k k"]:
    """Return the best transitions D_a[k, l] = W_a[k, l] / H[k, l] between clusters, for squares and divergences alike.

    A pair of clusters without mass has no transitions of its own: it takes those of all points together.
    """
    return torch.where(H > 0, W / H, W.sum((1, 2), keepdim=True))


def compare(
    loss: str,
    W: Float64[Tensor, "s k k"],
    H: Float64[Tensor, "k k"],
    *,
    smoothing: float = 0.0,
    determinism: float = 1.0,
) -> Comparison:
    r"""Compare with the best transitions for the joint masses W and the products of masses H.

    - ``"l2"``, the squared difference: Q = sum_a D_a o D_a and B = 2 D.
    - ``"kl"``, the divergence l(x, y) = x log(x / y) - x + y: Q = sum_a D_a and B = log D.
    - ``"sparse"``, the surprise at token and successor, -log P(a | k) - determinism log P(l | k, a), with P the
      shares of W: Q = 0 and B its negative. Its sum over the edges is H(a | k) + determinism H(l | k, a). At weight 1
      it is the conditional divergence, that is the likelihood of a probabilistic automaton; a larger weight drives
      the automaton towards one successor for each state and token.

    The two logarithmic losses see a fraction `smoothing` of their edges replaced by edges between independent
    points, W + smoothing (f H - W) with f_a = sum_kl W_a[k, l]. This bounds the logarithms, and as the plan's
    statistics stay joint masses, alternating updates still never raise the objective.

    Args:
        loss: ``"kl"``, ``"l2"`` or ``"sparse"``.
        W: Joint masses, float64 (S, K, K).
        H: Products of masses, float64 (K, K).
        smoothing: Share of independent edges in [0, 1), for ``"kl"`` and ``"sparse"``.
        determinism: Weight >= 0 of the successor's surprise, for ``"sparse"``.

    Returns:
        The matrices Q and B.

    Source:
        Peyre, Cuturi and Solomon 2016, "Gromov-Wasserstein averaging of kernel and distance matrices", for the first
        two losses, on one channel.
    """
    D = density(W, H)
    if loss == "l2":
        return Comparison((D * D).sum(0), 2 * D)
    f = W.sum((1, 2), keepdim=True)
    D = (1 - smoothing) * D + smoothing * f
    gain = _log(D) if loss == "kl" else _predicted(D * H, determinism)
    background = smoothing * (f * gain).sum(0)
    return Comparison((D.sum(0) if loss == "kl" else 0) - background, (1 - smoothing) * gain)


def _predicted(W: Tensor, determinism: float) -> Tensor:
    """Return log P(a | k) + determinism log P(l | k, a) for joint masses W, shape (S, K, K)."""
    pair = W.sum(2, keepdim=True)
    return _log(_share(pair, pair.sum(0))) + determinism * _log(_share(W, pair))


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, and 0 of nothing."""
    return part / torch.where(whole > 0, whole, 1.0)


def _log(x: Tensor) -> Tensor:
    """Logarithm that is finite at 0, so that 0 log 0 = 0."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).log()
