"""Search for the layers of a teacher that a shallow student should start from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb, inf, isfinite
from typing import Any

from torch import nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.layer_init.layer_lists import find_layers
from kdzoo.layer_init.selection import select_layers
from kdzoo.layer_init.truncation import truncated_layers

Layers = tuple[int, ...]


@dataclass(frozen=True)
class LayerSearch:
    """Result of a search.

    Attributes:
        layers: The best layers; of equal scores the first in lexicographic order.
        score: Their score.
        scores: The score of every selection that was tried, in the order of the trials.
    """

    layers: Layers
    score: float
    scores: dict[Layers, float]


def search_layers(
    teacher: nn.Module, depth: int, score: Callable[[Any], float], *, path: str | None = None, max_tries: int = 64
) -> LayerSearch:
    """Return the layers with the best score of the teacher when it has only them.

    All subsets are tried if there are at most ``max_tries``. Otherwise the search starts from ``every_other`` and
    exchanges one layer at a time, taking the first better exchange in lexicographic order, until none is better or
    ``max_tries`` subsets were tried.

    Args:
        teacher: Any module whose list of layers can be shortened; it is unchanged afterwards.
        depth: Number of layers to select, in 1..number of the teacher's layers.
        score: Called with the shortened teacher; larger is better, and a value that is not finite is the worst.
        path: Dotted path of the list of layers; None where ``find_layers`` finds it.
        max_tries: Largest number of subsets to try, >= 1. There are 20 to select 3 of 6 layers, and 924 for 6 of 12.

    Raises:
        ConfigError: A number is outside its range, the layers are not found, or no score is finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> shifts = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
        >>> for i, layer in enumerate(shifts):
        ...     _ = layer.weight.data.fill_(1), layer.bias.data.fill_((-1) ** i * i)
        >>> search_layers(shifts, 2, lambda model: model(torch.zeros(1)).item(), path="").layers
        (0, 2)
    """
    teacher_depth = len(find_layers(teacher, path)[1])
    student_depth = validation.integer("depth", depth, 1, teacher_depth)
    limit = validation.integer("max_tries", max_tries)
    scores: dict[Layers, float] = {}

    def value(layers: Layers) -> float:
        """Score a selection once, and return its score with -inf for what is not finite."""
        if layers not in scores:
            with truncated_layers(teacher, layers, path):
                scores[layers] = float(score(teacher))
        return scores[layers] if isfinite(scores[layers]) else -inf

    if comb(teacher_depth, student_depth) <= limit:
        for layers in combinations(range(teacher_depth), student_depth):
            value(layers)
    else:
        start = select_layers("every_other", teacher_depth, student_depth)
        _climb(start, teacher_depth, value, lambda: len(scores) < limit)
    best = min(scores, key=lambda layers: (-value(layers), layers))
    if value(best) == -inf:
        raise ConfigError(f"score must be finite for some choice of layers, got {scores[best]} for {list(best)}")
    return LayerSearch(best, scores[best], scores)


def _climb(start: Layers, depth: int, value: Callable[[Layers], float], has_budget: Callable[[], bool]) -> None:
    """Exchange one layer after the other while that is better and the budget lasts."""
    value(start)  # a budget of one subset is spent here
    current: Layers | None = start
    while current is not None:
        best = value(current)
        current = next((other for other in _exchanges(current, depth, has_budget) if value(other) > best), None)


def _exchanges(layers: Layers, depth: int, has_budget: Callable[[], bool]) -> Iterator[Layers]:
    """Yield all selections that differ in one layer, in lexicographic order, while the budget lasts."""
    others = [index for index in range(depth) if index not in layers]
    for neighbour in sorted(tuple(sorted({*layers, new} - {old})) for old in layers for new in others):
        if not has_budget():
            return
        yield neighbour
