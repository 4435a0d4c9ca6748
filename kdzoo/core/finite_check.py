"""The check that loss terms are finite, without waiting for an accelerator in every step."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from kdzoo.core.batch import Batch, n_samples
from kdzoo.core.loss_terms import rows_about
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


def describe_non_finite(terms: Mapping[str, Tensor], batch: Batch, label_terms: Collection[str], where: str) -> str:
    """Return a line that names the first loss term that is not finite, and the samples that it is not finite for.

    Args:
        terms: The loss terms of a batch.
        batch: The batch.
        label_terms: Names of the terms with one value per labelled position.
        where: Epoch and step, for the message.
    """
    index = batch.get("index", torch.arange(n_samples(batch)))
    for name, value in terms.items():
        bad = ~torch.isfinite(value.detach())
        if bad.any():
            rows = rows_about(bad, batch, name in label_terms).to(index.device)
            number = float(value.detach()[bad].flatten()[0])
            # Eight samples are enough to find the cause, and the message stays one line.
            return f"loss term {name!r} is {number} {where}, samples {index[rows].tolist()[:8]}"
    return f"the weighted sum of {sorted(terms)} is not finite {where}"
