"""From queries to a chain by recursive sketching: a subspace for each bond, from samples that are cut and recombined.

Cut every sample before a bond. The outputs of all beginnings with all ends form a matrix, and the chain's state at the
bond must span its columns as well as so few numbers can. From a bond to the next one, the state l (bond) of a beginning
and the features phi of the next number give linear predictions of the outputs with every end: the kept combinations of
l and phi are those that predict best,

    Z = [l x phi]  (beginnings, bond d),   Z G = the first left singular vectors of Z Z^+ F,   next state = Z G,

which is the core G of the site and costs one singular value decomposition. Both sides walk towards the output, and the
output core is the least-squares solution L C R' = F of the two sides' states.

The recursion is that of Hur et al. 2023 (TT-RS), on the samples of Pareja Monturiol et al. 2025 (TT-RSS, section 3).
There the columns of F are truncated first and divided by the states afterwards; here F is projected on what the core
can reach before it is truncated, outputs of a vector are columns of their own, and both sides end at the output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import DataError
from kdzoo.tensor_networks.network import tensor_row
from kdzoo.tensor_networks.queries import Oracle

Features = Callable[[Tensor], Tensor]
"""Returns features (sites, d, samples) of numbers (sites, samples)."""
CUTOFF = 1e-3
"""Share of the greatest singular value below which a direction is left out. Samples hardly differ in such directions,
other inputs may: from 200 images of 400 pixels, at bond 32, 1e-10 gave no imitation, 1e-3 one that disagrees on 1 %."""
LEAST_ENDS = 20
"""Ends by which a bond's subspace is found, where none are asked for and the rank is smaller."""


@dataclass(frozen=True)
class QueryResult:
    """What a chain from queries has cost, and how near it is to the function where it was asked.

    Attributes:
        evaluations: samples that the function was given.
        asked: samples that were asked for; the others were known.
        bonds: dimension of every bond, those at both ends included.
        error: root of the mean squared error, relative to that of the outputs, where it was asked last: on all
            recombinations of samples at the output, or on the last pivots.
        finished: whether the budget was enough for all that was wanted.
    """

    evaluations: int
    asked: int
    bonds: tuple[int, ...]
    error: float
    finished: bool = True


Found = tuple[list[Tensor], Tensor, QueryResult]
"""Cores (left bond, d, right bond) of all sites, output core (left bond, outputs, right bond), and what it has cost."""


def sketch(
    oracle: Oracle,
    samples: Tensor,
    features: Features,
    *,
    rank: int | None = None,
    cutoff: float = CUTOFF,
    out_site: int | None = None,
    domain: Sequence[float] | None = None,
    ends: int | None = None,
) -> Found:
    """Return a chain that imitates a function, by recursive sketching from samples.

    The order of the samples does not matter, nor do repetitions. The oracle is asked for at most n_sites * n * ends *
    (1 + length of domain) + n^2 samples.

    Args:
        oracle: the function.
        samples: n points (n, sites) where the function matters; more than `rank` of them.
        features: the local feature maps, such as `model.feature_map.double_features`.
        rank: greatest bond dimension; None leaves it to `cutoff` alone.
        cutoff: singular values below this share of the greatest are left out, in [0, 1]; 1e-10 for functions that are
            chains of the rank, whose samples hide nothing.
        out_site: the output is before this site; None: in the middle.
        domain: numbers that a site is tried at for every beginning, beside the sample's own; None for none. With them
            few samples are enough, without them each beginning is asked for once.
        ends: number of samples whose ends are the columns; None: as many as `rank`, at least 20.

    Raises:
        ConfigError: an argument is outside its range.
        DataError: the samples are no matrix, or there are too few.
        BudgetError: the oracle's budget is not enough.

    References:
        Hur, Hoskins, Lindsey, Stoudenmire, Khoo: Generative modeling via tensor train sketching. Appl. Comput. Harmon.
        Anal. 67, 2023, arXiv:2202.11788.
        Pareja Monturiol, Pozas-Kerstjens, Perez-Garcia: Tensorization of neural networks for improved privacy and
        interpretability. SciPost Phys. Core 8, 2025, arXiv:2501.06300.
    """
    samples, rank, cutoff, m = checked(samples, rank, cutoff, out_site)
    n, n_sites = samples.shape
    if rank is not None and n <= rank:
        raise DataError(f"rank={rank} needs more than {rank} different samples, got {n}")
    n_ends = max(rank or n, LEAST_ENDS) if ends is None else validation.integer("ends", ends)
    chosen = samples[spread(n, n_ends)]
    tried = samples.new_tensor([] if domain is None else [validation.number("a number of domain", v) for v in domain])
    own = features(samples.T).double()
    others = features(tried.expand(n_sites, -1)).double()

    def ask_left(begun: Tensor, end: Tensor) -> Tensor:
        return oracle.pairs(begun, end)

    def ask_right(begun: Tensor, end: Tensor) -> Tensor:
        return oracle.pairs(end.flip(1), begun.flip(1)).transpose(0, 1)

    left, l_states = _side(ask_left, samples, chosen, own[:m], (tried, others[:m]), rank, cutoff)
    right, r_states = _side(
        ask_right, samples.flip(1), chosen.flip(1), own[m:].flip(0), (tried, others[m:].flip(0)), rank, cutoff
    )
    wanted = oracle.pairs(samples[:, :m], samples[:, m:])
    centre = torch.einsum("li,ijo,rj->lor", pinv(l_states, cutoff), wanted, pinv(r_states, cutoff))
    gap = torch.einsum("il,lor,jr->ijo", l_states, centre, r_states) - wanted
    sites = [*left, *(core.permute(2, 1, 0).contiguous() for core in reversed(right))]
    error = float(gap.norm() / wanted.norm().clamp_min(torch.finfo(wanted.dtype).tiny))
    return sites, centre, QueryResult(oracle.evaluations, oracle.asked, bonds_of(sites, centre, m), error)


def as_set(samples: Tensor) -> Tensor:
    """Return the different rows of a matrix, sorted.

    Raises:
        DataError: it is no matrix with rows and columns, or not finite.
    """
    if samples.ndim != 2 or samples.numel() == 0:
        raise DataError(f"samples must be a matrix (samples, sites), got {tuple(samples.shape)}")
    bad = ~samples.isfinite().all(1)
    if bool(bad.any()):
        raise DataError(f"samples must be finite, got {int(bad.sum())} of {len(samples)} that are not")
    return torch.unique(samples, dim=0)


def checked(
    samples: Tensor, rank: int | None, cutoff: float, out_site: int | None
) -> tuple[Tensor, int | None, float, int]:
    """Return what sketching and cross interpolation have in common: samples as a set, rank, cutoff, the output's site.

    Raises:
        ConfigError: an argument is outside its range.
        DataError: the samples are no matrix with rows and columns, or not finite.
    """
    samples = as_set(samples)
    n_sites = samples.shape[1]
    return (
        samples,
        None if rank is None else validation.integer("rank", rank),
        validation.number("cutoff", cutoff, least=0.0, most=1.0),
        n_sites // 2 if out_site is None else validation.integer("out_site", out_site, least=0, most=n_sites),
    )


def spread(n: int, count: int) -> Tensor:
    """Return ``count`` of the numbers 0..n-1 at even distances; all, if there are not more."""
    return torch.linspace(0, n - 1, min(n, count)).round().long()


def bonds_of(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> tuple[int, ...]:
    """Return the dimensions of all bonds of a chain, those beside the output and at both ends included."""
    chain = tensor_row(sites, centre, out_site)
    return (chain[0].shape[0], *(one.shape[2] for one in chain))


def pinv(states: Tensor, cutoff: float) -> Tensor:
    """Return the pseudo-inverse, without singular values below a share ``cutoff`` of the greatest."""
    u, s, vh = torch.linalg.svd(states, full_matrices=False)
    kept = s > cutoff * s[0]
    return (vh[kept].T / s[kept]) @ u[:, kept].T


def _side(
    ask: Callable[[Tensor, Tensor], Tensor],
    samples: Tensor,
    chosen: Tensor,
    own: Tensor,
    domain: tuple[Tensor, Tensor],
    rank: int | None,
    cutoff: float,
) -> tuple[list[Tensor], Tensor]:
    """Walk from an end of the chain to the output.

    Args:
        ask: returns outputs (n, m, outputs) of beginnings (n, any) with ends (m, rest).
        samples: (n, sites) whose beginnings are used, in the order of the walk.
        chosen: (m, sites) whose ends are used.
        own: features (steps, d, n) of the samples; the walk has so many steps.
        domain: numbers (p) that are tried beside them, and their features (steps, d, p).
        rank: greatest bond dimension, or None.
        cutoff: of singular values.

    Returns:
        Cores (bond, d, next bond), and the states (n, bond) of the samples at the output.
    """
    n, (tried, others) = len(samples), domain
    cores, states = [], own.new_ones(n, 1)
    for k, phi in enumerate(own):
        values = torch.cat([samples[:, k : k + 1], tried.expand(n, -1)], 1)  # (n, 1 + p)
        begun = torch.cat([samples[:, :k].repeat_interleave(values.shape[1], 0), values.reshape(-1, 1)], 1)
        outputs = ask(begun, chosen[:, k + 1 :]).flatten(1)
        seen = torch.cat([phi.T[:, None], others[k].T.expand(n, -1, -1)], 1)  # (n, 1 + p, d)
        inputs = torch.einsum("nl,npd->npld", states, seen).flatten(2).flatten(0, 1)
        core = _best_predictors(inputs, outputs, rank, cutoff).unflatten(0, (states.shape[1], len(phi)))
        states = torch.einsum("nl,dn,ldr->nr", states, phi, core)
        size = states.square().mean().sqrt()
        cores.append(core / size)
        states = states / size
    return cores, states


def _best_predictors(inputs: Tensor, outputs: Tensor, rank: int | None, cutoff: float) -> Tensor:
    """Return the combinations (features, r) of the inputs (rows, features) that predict the outputs best.

    This is reduced-rank regression: the combinations are orthonormal over the rows.
    """
    u, s, vh = torch.linalg.svd(inputs, full_matrices=False)
    u, s, vh = u[:, s > cutoff * s[0]], s[s > cutoff * s[0]], vh[s > cutoff * s[0]]
    turn, share, _ = torch.linalg.svd(u.T @ outputs, full_matrices=False)
    r = max(1, int((share > cutoff * share[0]).sum()))
    return (vh.T / s) @ turn[:, : r if rank is None else min(r, rank)]
