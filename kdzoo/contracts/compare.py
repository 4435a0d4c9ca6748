"""Comparison of two trainings: bit by bit, or by the largest absolute difference."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch

# Clock times differ between two equal trainings.
IGNORED_KEYS = ("seconds", "cpu_seconds")


def weighted_loss(distiller: Distiller, batch: Batch) -> Tensor:
    """Return the weighted sum of the means of a batch's terms, in float64; terms without a value are left out."""
    terms = distiller.losses(batch)
    loss = torch.zeros((), dtype=torch.float64, device=batch["input"].device)
    for name, value in terms.items():
        if value.numel():
            loss = loss + distiller.loss_weights.get(name, 1.0) * value.double().mean()
    return loss


def final_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a checkpoint that is equal at the end of two equal trainings.

    The counters of Lightning's loops are left out: they also count how often a training was restarted.
    """
    return {
        key: checkpoint[key]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step", "epoch")
    }


def difference(first: Any, second: Any, path: str = "") -> str | None:
    """Return where two trees of values first differ in a bit, or None if they are equal; clock times may differ."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.dtype != second.dtype or first.shape != second.shape:
            return f"{path} has another shape or dtype"
        return None if torch.equal(first, second) else f"{path} by {float((first - second).abs().max()):.2g}"
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        if set(first) != set(second):
            return f"{path} has other keys: {sorted(map(str, set(first) ^ set(second)))}"
        pairs = [(key, first[key], second[key]) for key in first if key not in IGNORED_KEYS]
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return f"{path} has {len(first)} and {len(second)} entries"
        pairs = list(zip(range(len(first)), first, second, strict=True))
    else:
        both_nan = first != first and second != second
        return None if first == second or both_nan else f"{path}: {first!r} and {second!r}"
    children = (difference(left, right, f"{path}.{key}".lstrip(".")) for key, left, right in pairs)
    return next((line for line in children if line is not None), None)


def largest_gap(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference of two state dicts with the same names."""
    assert first.keys() == second.keys(), f"the states have other keys: {sorted(first.keys() ^ second.keys())}"
    # In float64, since the difference of two unsigned or boolean buffers is not defined otherwise.
    gaps = [(first[key].double() - second[key].double()).abs().max() for key in first if first[key].numel()]
    return max(map(float, gaps))
