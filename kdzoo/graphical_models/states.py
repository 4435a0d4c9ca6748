"""All states of discrete nodes, and the mass of the noise that leads to a state.

Exact sums over bits and classes ask the networks for every combination of values at once. The helpers here list these
combinations as rows of tensors, and combine them with rows of inputs.
"""

from collections.abc import Iterable, Mapping
from functools import reduce
from math import prod

import torch
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import Bernoulli, Categorical, Family
from kdzoo.graphical_models.graph import Graph, Values

MAX_STATES = 2**16
"""Largest number of states that is listed for one sample: 16 bits. One more bit doubles memory and time."""


def enumerate_states(graph: Graph, names: Iterable[str]) -> dict[str, Tensor]:
    """Return all combinations of values of discrete nodes, ``[S, ...]`` by name.

    Without names the result is empty, which is one state.

    Raises:
        ConfigError: If a node is neither Bernoulli nor Categorical, or there are too many states.
    """
    names = list(names)
    check_count(graph, names)
    return reduce(cross_rows, ({name: _node_states(graph, name)} for name in names), {})


def cross_rows(first: Values, second: Values) -> dict[str, Tensor]:
    """Combine every row of the first tensors with every row of the second; rows of the second vary fastest."""
    n, m = count_rows(first), count_rows(second)
    return {
        **{name: value.repeat_interleave(m, 0) for name, value in first.items()},
        **{name: value.repeat(n, *[1] * (value.ndim - 1)) for name, value in second.items()},
    }


def count_rows(values: Mapping[str, Tensor]) -> int:
    """Return the number of rows that all tensors have; 1 if there are no tensors."""
    return len(next(iter(values.values()))) if values else 1


def count_states(graph: Graph, names: Iterable[str]) -> int:
    """Return the number of combinations of values of discrete nodes."""
    nodes = graph.random_nodes()
    return prod(_base(name, nodes[name].family) ** prod(_positions(graph, name)) for name in names)


def check_count(graph: Graph, names: list[str]) -> None:
    """Reject nodes that have more than ``MAX_STATES`` states together.

    Raises:
        ConfigError: If there are too many states, or a node is neither Bernoulli nor Categorical.
    """
    if count_states(graph, names) > MAX_STATES:
        # A node counts twice where its values in both models are combined; the message names it once.
        raise ConfigError(f"nodes {', '.join(dict.fromkeys(names))} have more than {MAX_STATES} states together")


def noise_interval(name: str, family: Family, raw: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of the interval of uniform noise that leads to a value, for each element.

    Args:
        name: Name of the node, for the error.
        family: Bits, or classes that are quantiles.
        raw: Output of the network, ``[..., *raw_shape]``.
        value: Bits or one-hot vectors, ``[..., *shape]``.

    Raises:
        ConfigError: If values of the family are not quantiles of one uniform number.
    """
    if isinstance(family, Bernoulli):
        probability = raw.sigmoid()
        return (1 - value) * probability, value * probability + (1 - value)
    if isinstance(family, Categorical) and not family.gumbel:
        ends = raw.softmax(-1).cumsum(-1)
        starts = torch.cat([torch.zeros_like(ends[..., :1]), ends[..., :-1]], -1)
        return (value * starts).sum(-1), (value * ends).sum(-1)  # selects the entry of the class
    raise ConfigError(f"node {name!r}: its values must be Bernoulli or Categorical without gumbel, got {family}")


def _node_states(graph: Graph, name: str) -> Tensor:
    """Return all values of one node, ``[S, ...]``."""
    family = graph.random_nodes()[name].family
    base, positions = _base(name, family), _positions(graph, name)
    count = prod(positions)
    # The digits of 0, 1, 2, ... in the given base, the lowest first.
    digits = torch.arange(base**count)[:, None] // base ** torch.arange(count) % base
    digits = digits.reshape(-1, *positions)
    if isinstance(family, Categorical):
        digits = torch.nn.functional.one_hot(digits, base)
    return digits.to(graph.like)


def _base(name: str, family: Family) -> int:
    """Return the number of values of one position of a node."""
    if isinstance(family, Bernoulli):
        return 2
    if isinstance(family, Categorical):
        return family.shape[-1]
    raise ConfigError(f"node {name!r}: its states cannot be listed; allowed: Bernoulli, Categorical, got {family}")


def _positions(graph: Graph, name: str) -> tuple[int, ...]:
    """Return the shape of the positions of a node's value that vary independently."""
    family = graph.random_nodes()[name].family
    shape = family.shape[:-1] if isinstance(family, Categorical) else family.shape
    return (graph.scan.steps, *shape) if graph.scan is not None and graph.in_sequence(name) else shape
