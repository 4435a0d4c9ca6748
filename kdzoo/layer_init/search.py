"""Searching for the layers that a shallow student should start from."""

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
    """What a search found.

    Attributes:
        chosen: The best layers; of equals the first in lexicographic order.
        score: Their score.
        scores: The score of everything that was tried, in that order.
    """

    chosen: Layers
    score: float
    scores: dict[Layers, float]


def search_layers(
    teacher: nn.Module, depth: int, score: Callable[[Any], float], *, path: str | None = None, most: int = 64
) -> LayerSearch:
    """Return the layers that score best when the teacher has only them.

    All subsets are tried if there are at most `most`. Otherwise the search starts from `every_other` and exchanges
    one layer at a time, taking the first exchange in lexicographic order that is better, until none is or `most`
    subsets were tried.

    Args:
        teacher: Any module whose list of layers can be cut; it is as it was afterwards.
        depth: Number of layers to choose, in 1..the teacher's.
        score: Called with the shortened teacher; larger is better, and what is not finite is worst.
        path: Dotted path of the list of layers; None where `find_layers` finds it.
        most: Number of subsets to try at most, >= 1.

    Raises:
        ConfigError: If a number is outside its range, the layers are not found, or no score is finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> shifts = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
        >>> for i, layer in enumerate(shifts):
        ...     _ = layer.weight.data.fill_(1), layer.bias.data.fill_((-1) ** i * i)
        >>> search_layers(shifts, 2, lambda model: model(torch.zeros(1)).item(), path="").chosen
        (0, 2)
    """
    deep = len(find_layers(teacher, path)[1])
    shallow = validation.integer("depth", depth, 1, deep)
    limit = validation.integer("most", most)
    scores: dict[Layers, float] = {}

    def value(layers: Layers) -> float:
        if layers not in scores:
            with truncated_layers(teacher, layers, path):
                scores[layers] = float(score(teacher))
        return scores[layers] if isfinite(scores[layers]) else -inf

    if comb(deep, shallow) <= limit:
        for layers in combinations(range(deep), shallow):
            value(layers)
    else:
        _climb(select_layers("every_other", deep, shallow), deep, value, lambda: len(scores) < limit)
    chosen = min(scores, key=lambda layers: (-value(layers), layers))
    if value(chosen) == -inf:
        raise ConfigError(f"score must be finite for some choice of layers, got {scores[chosen]} for {list(chosen)}")
    return LayerSearch(chosen, scores[chosen], scores)


def _climb(layers: Layers, deep: int, value: Callable[[Layers], float], spare: Callable[[], bool]) -> None:
    """Exchange layers while that is better and there is something to spare."""
    best: Layers | None = layers
    value(layers)
    while best is not None:
        layers = best
        best = next((other for other in _exchanged(layers, deep, spare) if value(other) > value(layers)), None)


def _exchanged(layers: Layers, deep: int, spare: Callable[[], bool]) -> Iterator[Layers]:
    """Yield all choices that differ in one layer, in lexicographic order, while there is something to spare."""
    others = [number for number in range(deep) if number not in layers]
    for choice in sorted(tuple(sorted({*layers, new} - {old})) for old in layers for new in others):
        if not spare():
            return
        yield choice
