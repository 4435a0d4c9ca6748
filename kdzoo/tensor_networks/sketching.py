"""From queries to a chain by recursive sketching: a subspace for each bond, from samples that are cut and recombined.

Cut every sample before a bond. The outputs of all prefixes with all suffixes form a matrix, and the state of the chain
at the bond must span its columns as well as that number of dimensions can. From a bond to the next one, the state l
``[bond]`` of a prefix and the features phi of the next number give linear predictions of the outputs with every suffix.
Those combinations of l and phi are used that predict best,

    Z = [l x phi]  [prefixes, bond d],   Z G = the first left singular vectors of Z Z^+ F,   next state = Z G,

where G is the core of the site; this costs one singular value decomposition. Both sides walk towards the output, and
the output core is the least-squares solution L C R' = F of the states of the two sides.

The recursion is that of Hur et al. 2023 (TT-RS), on the samples of Pareja Monturiol et al. 2025 (TT-RSS, section 3).
There the columns of F are truncated first and divided by the states afterwards; here F is projected on what the core
can reach before it is truncated, each output of a vector-valued function is a column, and both sides end at the output.

References:
    Hur, Hoskins, Lindsey, Stoudenmire, Khoo: Generative modeling via tensor train sketching. Appl. Comput. Harmon.
    Anal. 67, 2023, arXiv:2202.11788.
    Pareja Monturiol, Pozas-Kerstjens, Perez-Garcia: Tensorization of neural networks for improved privacy and
    interpretability. SciPost Phys. Core 8, 2025, arXiv:2501.06300.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.progress import track
from kdzoo.errors import DataError
from kdzoo.tensor_networks.network import tensor_row
from kdzoo.tensor_networks.queries import Oracle

Features = Callable[[Tensor], Tensor]
"""Returns features ``[sites, d, samples]`` of values ``[sites, samples]``."""
# Share of the largest singular value below which a direction is left out. Samples hardly differ in such directions,
# but other inputs may: from 200 images of 400 pixels, at bond 32, a cutoff of 1e-10 gave no usable approximation, and
# 1e-3 one that disagrees on 1 % of the inputs.
CUTOFF = 1e-3
# Suffixes with which the subspace of a bond is found if the rank is smaller: fewer may miss a direction by chance.
LEAST_ENDS = 20


@dataclass(frozen=True)
class QueryResult:
    """What a chain from queries has cost, and how near it is to the function where that was evaluated.

    Attributes:
        evaluations: Samples that the function was evaluated for.
        asked: Samples that were requested; the others were known already.
        bonds: Dimension of every bond, including those at both ends.
        error: Root mean square error, relative to that of the outputs, at the last requests: all recombinations of
            samples at the output, or the last pivots.
        finished: Whether the budget was large enough for all that was planned.
    """

    evaluations: int
    asked: int
    bonds: tuple[int, ...]
    error: float
    finished: bool = True


Found = tuple[list[Tensor], Tensor, QueryResult]
"""Core ``[left, d, right]`` of every site, output core ``[left, outputs, right]``, and what they have cost."""


class Limits(NamedTuple):
    """Which directions a bond keeps.

    Attributes:
        rank: Largest bond, or None.
        cutoff: Singular values below this share of the largest are left out.
    """

    rank: int | None
    cutoff: float


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
    """Return a chain that approximates a function, by recursive sketching from samples in any order.

    The oracle evaluates at most n_sites * n * ends * (1 + length of domain) + n^2 samples.

    Args:
        oracle: The function.
        samples: Points ``[n, sites]`` where the function matters; more than ``rank`` of them.
        features: The local feature maps, such as ``model.feature_map.double_features``.
        rank: Largest bond dimension. None: only ``cutoff`` limits it.
        cutoff: Singular values below this share of the largest are left out, in [0, 1]; 1e-10 for functions that are
            chains of this rank, for which the samples show every direction.
        out_site: The output core stands before this site. None: in the middle.
        domain: Numbers that are tried at a site for every prefix, in addition to that of the sample. With them a few
            samples are enough. None: each prefix is evaluated with its own number only.
        ends: Number of samples whose suffixes are the columns. None: as many as ``rank``, at least 20.

    Raises:
        ConfigError: An argument is outside its range.
        DataError: The samples are not a matrix, or there are too few.
        BudgetError: The budget of the oracle is too small.
    """
    samples, rank, cutoff, m = checked(samples, rank, cutoff, out_site)
    n = len(samples)
    if rank is not None and n <= rank:
        raise DataError(f"rank={rank} needs more than {rank} different samples, got {n}")
    n_ends = max(rank or n, LEAST_ENDS) if ends is None else validation.integer("ends", ends)
    tried = samples.new_tensor([] if domain is None else [validation.number("a number of domain", v) for v in domain])
    left_walk, right_walk = _walks(oracle, samples, samples[spread(n, n_ends)], tried, features, m)
    limits = Limits(rank, cutoff)
    (left, left_states), (right, right_states) = _side(left_walk, limits), _side(right_walk, limits)
    outputs = oracle.pairs(samples[:, :m], samples[:, m:])
    centre = torch.einsum("li,ijo,rj->lor", pinv(left_states, cutoff), outputs, pinv(right_states, cutoff))
    error = _relative_error(torch.einsum("il,lor,jr->ijo", left_states, centre, right_states), outputs)
    sites = [*left, *(core.permute(2, 1, 0).contiguous() for core in reversed(right))]
    return sites, centre, QueryResult(oracle.evaluations, oracle.asked, bonds_of(sites, centre, m), error)


def _relative_error(values: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference relative to that of the expected values; 0 for a function of zeros."""
    return float((values - expected).norm() / expected.norm().clamp_min(torch.finfo(expected.dtype).tiny))


def as_set(samples: Tensor) -> Tensor:
    """Return the different rows of a matrix, sorted.

    Raises:
        DataError: The samples are not a matrix with rows and columns, or not finite.
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
    """Check the arguments that sketching and cross interpolation have in common.

    Returns:
        The samples without repetitions, rank, cutoff, and the site of the output.

    Raises:
        ConfigError: An argument is outside its range.
        DataError: The samples are not a matrix with rows and columns, or not finite.
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
    """Return ``count`` of the numbers 0..n-1 at even distances, or all of them if there are not more."""
    return torch.linspace(0, n - 1, min(n, count)).round().long()


def bonds_of(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> tuple[int, ...]:
    """Return the dimensions of all bonds of a chain, including those next to the output and at both ends."""
    chain = tensor_row(sites, centre, out_site)
    return (chain[0].shape[0], *(tensor.shape[2] for tensor in chain))


def pinv(states: Tensor, cutoff: float) -> Tensor:
    """Return the pseudo-inverse, without singular values below a share ``cutoff`` of the largest."""
    u, s, vh = torch.linalg.svd(states, full_matrices=False)
    is_seen = s > cutoff * s[0]
    return (vh[is_seen].T / s[is_seen]) @ u[:, is_seen].T


class _Walk(NamedTuple):
    """What one side of a chain is sketched from, in the order of its walk to the output.

    Attributes:
        ask: Returns outputs ``[n, m, outputs]`` of prefixes ``[n, any]`` with suffixes ``[m, rest]``.
        samples: Samples ``[n, sites]`` whose prefixes are used.
        chosen: Samples ``[m, sites]`` whose suffixes are used.
        own: Features ``[steps, d, n]`` of the samples; the walk has this many steps.
        tried: Numbers ``[p]`` that are tried in addition to those of the samples.
        others: Features ``[steps, d, p]`` of these numbers.
    """

    ask: Callable[[Tensor, Tensor], Tensor]
    samples: Tensor
    chosen: Tensor
    own: Tensor
    tried: Tensor
    others: Tensor


def _walks(
    oracle: Oracle, samples: Tensor, chosen: Tensor, tried: Tensor, features: Features, out_site: int
) -> tuple[_Walk, _Walk]:
    """Return the walks from the left and from the right end to the output; the right one sees everything mirrored."""
    own = features(samples.T).double()
    others = features(tried.expand(samples.shape[1], -1)).double()

    def mirrored_pairs(prefixes: Tensor, suffixes: Tensor) -> Tensor:
        return oracle.pairs(suffixes.flip(1), prefixes.flip(1)).transpose(0, 1)

    left = _Walk(oracle.pairs, samples, chosen, own[:out_site], tried, others[:out_site])
    right = _Walk(
        mirrored_pairs,
        samples.flip(1),
        chosen.flip(1),
        own[out_site:].flip(0),
        tried,
        others[out_site:].flip(0),
    )
    return left, right


def _side(walk: _Walk, limits: Limits) -> tuple[list[Tensor], Tensor]:
    """Walk from an end of the chain to the output.

    Returns:
        Cores ``[bond, d, next bond]``, and the states ``[n, bond]`` of the samples at the output.
    """
    samples, n = walk.samples, len(walk.samples)
    cores, states = [], walk.own.new_ones(n, 1)
    for k, phi in enumerate(track(walk.own, "querying the teacher", unit="sites")):
        values = torch.cat([samples[:, k : k + 1], walk.tried.expand(n, -1)], 1)  # [n, 1 + p]
        prefixes = torch.cat([samples[:, :k].repeat_interleave(values.shape[1], 0), values.reshape(-1, 1)], 1)
        outputs = walk.ask(prefixes, walk.chosen[:, k + 1 :]).flatten(1)
        all_phi = torch.cat([phi.T[:, None], walk.others[k].T.expand(n, -1, -1)], 1)  # [n, 1 + p, d]
        inputs = torch.einsum("nl,npd->npld", states, all_phi).flatten(2).flatten(0, 1)
        core = _best_predictors(inputs, outputs, limits).unflatten(0, (states.shape[1], len(phi)))
        states = torch.einsum("nl,dn,ldr->nr", states, phi, core)
        size = states.square().mean().sqrt()  # states of size 1, so that long chains neither vanish nor overflow
        cores.append(core / size)
        states = states / size
    return cores, states


def _best_predictors(inputs: Tensor, outputs: Tensor, limits: Limits) -> Tensor:
    """Return the combinations ``[features, r]`` of the inputs ``[rows, features]`` that predict the outputs best.

    This is reduced-rank regression: the combinations are orthonormal over the rows.
    """
    u, s, vh = torch.linalg.svd(inputs, full_matrices=False)
    is_seen = s > limits.cutoff * s[0]
    u, s, vh = u[:, is_seen], s[is_seen], vh[is_seen]
    rotation, shares, _ = torch.linalg.svd(u.T @ outputs, full_matrices=False)
    rank = max(1, int((shares > limits.cutoff * shares[0]).sum()))
    return (vh.T / s) @ rotation[:, : rank if limits.rank is None else min(rank, limits.rank)]
