"""Fused Gromov-Wasserstein terms in float64 NumPy, by all four indices at once, and Lloyd's k-means."""

import numpy as np
from scipy.special import rel_entr


def adjacency(source, target, token, weight, n: int, tokens: int) -> np.ndarray:
    """Weights of all pairs of points, [S, N, N]."""
    d = np.zeros((tokens, n, n))
    np.add.at(d, (token, source, target), weight)
    return d


def losses(d: np.ndarray, D: np.ndarray, loss: str) -> np.ndarray:
    """Sum over the tokens of l(d_ij, D_kl), [N, N, K, K]."""
    x, y = d[:, :, :, None, None], D[:, None, None]
    if loss == "l2":
        return ((x - y) ** 2).sum(0)
    return (rel_entr(x, y) - x + y).sum(0)


def objective(L: np.ndarray, T: np.ndarray) -> float:
    """Sum over i, j, k, l of L_ijkl T_ik T_jl."""
    return float(np.einsum("ijkl,ik,jl->", L, T, T))


def gradient(L: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Derivative of the objective with respect to T."""
    return np.einsum("ijkl,jl->ik", L, T) + np.einsum("jilk,jl->ik", L, T)


def point_terms(d: np.ndarray, p: np.ndarray, loss: str) -> np.ndarray:
    """Terms of every point's edges that are the same for every plan, [N]; each end of an edge has half of its term."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = d**2 if loss == "l2" else np.where(d > 0, d * np.log(d) - d, 0)
    own = own.sum(0)
    return own @ p + own.T @ p


def lloyd(x: np.ndarray, labels: np.ndarray, clusters: int, p: np.ndarray) -> np.ndarray:
    """Labels at which means and nearest means agree, from given labels."""
    while True:
        c = np.stack([np.average(x[labels == k], axis=0, weights=p[labels == k]) for k in range(clusters)])
        nearest = ((x[:, None] - c) ** 2).sum(2).argmin(1)
        if (nearest == labels).all():
            return labels
        labels = nearest
