"""The check that loss terms are finite, without waiting for an accelerator in every step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdzoo.errors import NonFiniteLossError


class DeferredFiniteCheck:
    """Remembers on the device at which step each loss term first became NaN or infinite.

    On the CPU a loss is checked before the weights are touched. On an accelerator that would make the host wait for the
    device in every step, so the result is only read when the terms are logged and before a checkpoint is written: a
    training that diverges stops a few steps later, and no checkpoint holds what came of it.

    Example:
        >>> check = DeferredFiniteCheck()
        >>> for step, value in enumerate([0.5, float("nan"), 0.5]):
        ...     check.add(step, {"soft": torch.tensor(value)})
        >>> check.raise_if_failed()
        Traceback (most recent call last):
            ...
        kdzoo.errors.NonFiniteLossError: loss term 'soft' is not finite at step 1
    """

    def __init__(self) -> None:
        self._first_bad_step: dict[str, Tensor] = {}

    def add(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Note which terms, scalars on the device, are not finite at a step."""
        for name, value in terms.items():
            first = self._first_bad_step.get(name)
            if first is None:
                first = torch.full((), -1, dtype=torch.long, device=value.device)
            is_new = (first < 0) & ~torch.isfinite(value.detach())
            self._first_bad_step[name] = torch.where(is_new, step, first)

    def raise_if_failed(self) -> None:
        """Wait for the device, and reject terms that were not finite.

        Raises:
            NonFiniteLossError: Names the term that was the first, and its step.
        """
        steps = {name: int(step) for name, step in self._first_bad_step.items()}
        failed = {step: name for name, step in reversed(steps.items()) if step >= 0}
        if failed:
            raise NonFiniteLossError(f"loss term {failed[min(failed)]!r} is not finite at step {min(failed)}")
