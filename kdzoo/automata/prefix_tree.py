"""The tree of the distinct prefixes of several strings, laid out for recursions over an automaton's states.

Strings with a common prefix share its computation. The nodes of a layer (prefixes of equal length) are sorted by their
last token, so that one step of a recursion is one matrix product for each token of a layer.

Notation: n strings with N prefixes, of which M are distinct; V symbols, the end last.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.text.token_sequences import TokenSequences


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """The M distinct prefixes of weighted strings, with the symbols that follow them.

    Args:
        parent: Node of the prefix without its last token, int64 ``[M]``; node 0, the empty prefix, is its own parent.
        groups: For each layer after the first, its runs of nodes with the same last token: token, first node, node
            after the last.
        weight: Weight of the strings that begin with each prefix, float64 ``[M]``.
        stops: Weight of the strings that equal each prefix, float64 ``[M]``.
        symbols: Weight of each symbol after each prefix as a teacher predicts it, the end last ``[M, V]``; None where
            only the strings themselves are known.
        nodes: Node of each prefix of each string, int64 ``[N]``.
    """

    parent: Tensor
    groups: tuple[tuple[tuple[int, int, int], ...], ...]
    weight: Tensor
    stops: Tensor
    symbols: Tensor | None
    nodes: Tensor

    @property
    def n_nodes(self) -> int:
        """Number of distinct prefixes M."""
        return len(self.parent)

    @property
    def total(self) -> float:
        """Total weight of all symbols, including the ends."""
        return float(self.weight.sum())

    def edges_by_token(self) -> Iterator[tuple[int, Tensor]]:
        """Yield each token with the nodes whose last token it is, int64."""
        runs: dict[int, list[Tensor]] = {}
        for layer in self.groups:
            for token, first, end in layer:
                runs.setdefault(token, []).append(torch.arange(first, end))
        for token in sorted(runs):
            yield token, torch.cat(runs[token])


def prefix_tree(
    strings: TokenSequences, *, weights: Tensor | None = None, next_probs: Tensor | None = None
) -> PrefixTree:
    """Return the tree of the prefixes of the strings.

    Args:
        strings: The strings, at least one.
        weights: Weight of each string, float64 ``[n]``; None for 1.
        next_probs: Next-token distribution after each prefix ``[N, V]``; a prefix that occurs several times takes
            the weighted sum.

    Example:
        >>> tree = prefix_tree(TokenSequences.of([[0, 1], [0], [0, 1]]))
        >>> tree.parent.tolist(), tree.weight.tolist(), tree.stops.tolist()
        ([0, 0, 1], [3.0, 3.0, 2.0], [0.0, 1.0, 2.0])
    """
    per_string = torch.ones(len(strings), dtype=torch.float64) if weights is None else weights.double()
    roots, lengths = strings.first_prefixes(), strings.lengths
    node_of = torch.zeros(strings.n_prefixes, dtype=torch.int64)
    # Longest first, so that the strings that reach each depth are the first ones.
    alive = lengths.argsort(descending=True, stable=True)
    at = torch.zeros(len(strings), dtype=torch.int64)
    parents, groups, first = [torch.zeros(1, dtype=torch.int64)], [], 1
    n_at_least = torch.bincount(lengths).flip(0).cumsum(0).flip(0).tolist()  # strings of at least each length
    for depth in range(len(n_at_least) - 1):
        alive, at = alive[: n_at_least[depth + 1]], at[: n_at_least[depth + 1]]
        # Token and parent as one number: its distinct values are the nodes of the layer, sorted by token.
        width = int(at.max()) + 1
        keys, at = torch.unique(strings.tokens[strings.offsets[alive] + depth] * width + at, return_inverse=True)
        at = at + first
        node_of[roots[alive] + depth + 1] = at
        parents.append(keys % width)
        groups.append(_runs(keys // width, first))
        first += len(keys)
    per_prefix = per_string.repeat_interleave(lengths + 1)
    weight = torch.zeros(first, dtype=torch.float64).index_add_(0, node_of, per_prefix)
    stops = torch.zeros(first, dtype=torch.float64).index_add_(0, node_of[strings.last_prefixes()], per_string)
    symbols = None
    if next_probs is not None:
        symbols = torch.zeros(first, next_probs.shape[1], dtype=next_probs.dtype)
        symbols.index_add_(0, node_of, next_probs * per_prefix[:, None].to(next_probs.dtype))
    return PrefixTree(torch.cat(parents), tuple(groups), weight, stops, symbols, node_of)


def prefix_forest(
    strings: TokenSequences, *, most: int, weights: Tensor | None = None, next_probs: Tensor | None = None
) -> list[PrefixTree]:
    """Return prefix trees of consecutive strings, each of about ``most`` prefixes, or of one longer string.

    Args:
        strings: The strings, at least one.
        most: Approximate number of prefixes of a tree, >= 1; it bounds the memory of a recursion.
        weights: Weight of each string, float64 ``[n]``; None for 1.
        next_probs: Next-token distribution after each prefix ``[N, V]``; None if unknown.
    """
    tree_of = (strings.lengths + 1).cumsum(0).sub(1).div(most, rounding_mode="floor")
    trees, offset = [], 0
    for part in torch.arange(len(strings)).split(torch.unique_consecutive(tree_of, return_counts=True)[1].tolist()):
        selected = strings.select(part)
        probs = None if next_probs is None else next_probs[offset : offset + selected.n_prefixes]
        trees.append(prefix_tree(selected, weights=None if weights is None else weights[part], next_probs=probs))
        offset += selected.n_prefixes
    return trees


def _runs(tokens: Tensor, first: int) -> tuple[tuple[int, int, int], ...]:
    """Return the runs of sorted tokens whose first has the node number ``first``."""
    values, sizes = tokens.unique_consecutive(return_counts=True)
    ends = (sizes.cumsum(0) + first).tolist()
    return tuple(zip(values.tolist(), [first, *ends[:-1]], ends, strict=True))
