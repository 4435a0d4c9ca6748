"""How two trainings are compared: bit by bit, or by the largest gap."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch


def weighted_loss(distiller: Distiller, batch: Batch) -> Tensor:
    """Return the weighted sum of the means of a batch's terms."""
    terms = distiller.losses(batch)
    loss = torch.zeros((), dtype=torch.float64, device=batch["input"].device)
    for name, value in terms.items():
        if value.numel():
            loss = loss + distiller.loss_weights.get(name, 1.0) * value.double().mean()
    return loss


def lasting_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal at the end of two equal trainings."""
    return {
        key: checkpoint[key]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step", "epoch")
    }


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """Return the first place where two trees of values differ in a bit, or None; clock times may differ."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        if same and torch.equal(one, other):
            return None
        return f"{where} by {float((one - other).abs().max()):.2g}" if same else f"{where} has another shape or dtype"
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if set(one) != set(other):
            return f"{where} has other keys: {sorted(map(str, set(one) ^ set(other)))}"
        pairs = [(key, one[key], other[key]) for key in one if key not in ("seconds", "cpu_seconds")]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{where} has {len(one)} and {len(other)} entries"
        pairs = list(zip(range(len(one)), one, other, strict=True))
    else:
        return None if one == other or (one != one and other != other) else f"{where}: {one!r} and {other!r}"
    found = (difference(mine, theirs, f"{where}.{key}".lstrip(".")) for key, mine, theirs in pairs)
    return next((line for line in found if line is not None), None)


def largest_gap(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference of two states with the same names."""
    assert one.keys() == other.keys(), f"the states have other keys: {sorted(one.keys() ^ other.keys())}"
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one if one[key].numel())
