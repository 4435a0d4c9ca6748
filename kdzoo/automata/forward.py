r"""The scaled forward recursion over many strings at once, one matrix product for each token and layer.

Notation: K states, S tokens; initial iota ``[K]``, transitions A ``[S, K, K]`` with ``A[a, k, l]`` = P(a, l | k), stop
rho ``[K]``. The probability of a_1 ... a_m is :math:`\iota' A_{a_1} \cdots A_{a_m} \rho`. A *belief* is the row
vector :math:`\iota' A_{a_1} \cdots A_{a_t}` scaled to sum 1: the distribution of the state after t tokens. Its
*scale* is the sum before scaling: the probability of token t after those before it.

Prefixes of equal length form a layer of b rows. Within a layer the prefixes are sorted by their last token, so that a
step of the recursion is one gather and one product for each token, and nothing is padded. With transposed transitions
the same product is used in the backward recursion. Results have the dtype and device of the parameters.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.text.token_sequences import TokenSequences

# Numbers in one layer of beliefs: 8 MB in float64 for any number of strings.
CELLS = 1 << 20

Groups = Sequence[tuple[int, int, int]]
"""Runs of rows with the same token: token, first row, row after the last."""


@dataclass(frozen=True)
class Layer:
    """The prefixes of equal length of several strings, sorted by their last token.

    Args:
        string: Index of each prefix's string, int64 ``[b]``.
        source: Row of the prefix without its last token, in the previous layer, int64 ``[b]``; in the first layer
            the row itself.
        groups: Rows with the same last token; empty in the first layer.
        lasts: Rows of the prefixes that are complete strings, int64 ``[m]``, m <= b.
    """

    string: Tensor
    source: Tensor
    groups: Groups
    lasts: Tensor


def layers(strings: TokenSequences) -> list[Layer]:
    """Return the prefixes of the strings layer by layer, from 0 tokens to the length of the longest string.

    Example:
        >>> first, second, third = layers(TokenSequences.of([[1, 0], [0]]))
        >>> second.string.tolist(), second.source.tolist(), second.groups, second.lasts.tolist()
        ([1, 0], [1, 0], ((0, 0, 1), (1, 1, 2)), [0])
    """
    numbers = torch.arange(len(strings), device=strings.lengths.device)
    source_point, target_point, token = strings.edges()
    depth = target_point - strings.first_prefixes()[strings.sequence_ids]
    # Two stable sorts order the edges by depth and, within a depth, by token and then by string.
    order = token.argsort(stable=True)
    order = order[depth[order].argsort(stable=True)]
    sizes = torch.bincount(depth, minlength=1) if len(token) else depth.new_zeros(1)
    sizes[0] = len(strings)
    row_of = torch.empty(strings.n_prefixes, dtype=torch.int64, device=token.device)
    row_of[strings.first_prefixes()] = numbers
    # Row within the layer: position in the sorted order minus the number of edges in the layers before.
    within = torch.arange(len(token), device=token.device) - (sizes.cumsum(0) - sizes - len(strings))[depth[order]]
    row_of[target_point[order]] = within
    lasts = row_of[strings.last_prefixes()[strings.lengths.argsort(stable=True)]]
    ends = torch.bincount(strings.lengths, minlength=len(sizes)).tolist()
    steps = sizes[1:].tolist()
    first = Layer(numbers, numbers, (), lasts[: ends[0]])
    later = zip(
        strings.sequence_ids[order].split(steps),
        row_of[source_point[order]].split(steps),
        _groups(depth[order], token[order], len(steps)),
        lasts[ends[0] :].split(ends[1:]),
        strict=True,
    )
    return [first, *(Layer(*parts) for parts in later)] if steps else [first]


def scaled_forward(initial: Tensor, transitions: Tensor, trellis: Sequence[Layer]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield beliefs ``[b, K]`` and scales ``[b]`` of each layer, rows in the layer's order.

    The scales of the first layer are 1. From an impossible token on, beliefs and scales are 0.
    """
    belief = initial.expand(len(trellis[0].string), -1)
    yield belief, belief.new_ones(len(belief))
    for layer in trellis[1:]:
        belief, scale = normalise(grouped_product(belief[layer.source], transitions, layer.groups))
        yield belief, scale


def log_likelihoods(stop: Tensor, trellis: Sequence[Layer], forward: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the log-probability of each string ``[n]`` from the results of :func:`scaled_forward`."""
    result = stop.new_empty(len(trellis[0].string))
    log_prefix = stop.new_zeros(len(result))
    for layer, (belief, scale) in zip(trellis, forward, strict=True):
        log_prefix = log_prefix[layer.source] + scale.log()
        if len(layer.lasts):
            result[layer.string[layer.lasts]] = log_prefix[layer.lasts] + (belief[layer.lasts] @ stop).log()
    return result


def log_prob(initial: Tensor, transitions: Tensor, stop: Tensor, strings: TokenSequences) -> Tensor:
    """Return the log-probability of each string ``[n]`` in nats; -inf for impossible strings.

    Strings of similar length are processed together, as many as fit into layers of about ``CELLS`` numbers.

    Args:
        initial: Initial distribution ``[K]``.
        transitions: Transition probabilities ``[S, K, K]``.
        stop: Stop probabilities ``[K]``.
        strings: The n strings.
    """
    result = stop.new_empty(len(strings))
    for chunk in chunks(strings, len(stop)):
        trellis = layers(strings.select(chunk))
        result[chunk] = log_likelihoods(stop, trellis, scaled_forward(initial, transitions, trellis))
    return result


def chunks(strings: TokenSequences, cells: int) -> tuple[Tensor, ...]:
    """Return the indices of the strings, sorted by length, in chunks of at most ``CELLS`` numbers.

    Args:
        strings: The strings.
        cells: Numbers that one string needs in a layer.
    """
    return strings.lengths.argsort(stable=True).split(max(1, CELLS // cells))


def grouped_product(rows: Tensor, matrices: Tensor, groups: Groups) -> Tensor:
    """Return the product of each row with the matrix of its group's token ``[b, L]``.

    Args:
        rows: Row vectors ``[b, K]``.
        matrices: One matrix for each token ``[S, K, L]``.
        groups: Runs of rows with the same token, which cover all rows in order.
    """
    return torch.cat([rows[first:end] @ matrices[token] for token, first, end in groups])


def advance(rows: Tensor, matrices: Tensor, tokens: Tensor) -> Tensor:
    """Return the product of each row ``[b, K]`` with the matrix ``[S, K, L]`` of its token ``[b]``."""
    if not len(tokens):
        return rows.new_empty(0, matrices.shape[2])
    order = tokens.argsort(stable=True)
    (groups,) = _groups(torch.ones_like(tokens), tokens[order], 1)
    products = grouped_product(rows[order], matrices, groups)
    return torch.empty_like(products).index_copy(0, order, products)


def normalise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return non-negative rows ``[b, K]`` scaled to sum 1, and their sums ``[b]``; rows of zeros stay zeros."""
    total = rows.sum(1)
    return rows / torch.where(total > 0, total, 1.0)[:, None], total


def _groups(depth: Tensor, token: Tensor, deepest: int) -> list[Groups]:
    """Return the runs of equal tokens at each depth 1..deepest; depth and token ``[total]`` are sorted."""
    width = int(token.max()) + 1 if len(token) else 1
    # Depth and token as one number, so that one pass finds the runs of all layers.
    runs, counts = (depth * width + token).unique_consecutive(return_counts=True)
    result: list[list[tuple[int, int, int]]] = [[] for _ in range(deepest)]
    for run, count in zip(runs.tolist(), counts.tolist(), strict=True):
        groups = result[run // width - 1]
        first = groups[-1][2] if groups else 0
        groups.append((run % width, first, first + count))
    return [tuple(groups) for groups in result]
