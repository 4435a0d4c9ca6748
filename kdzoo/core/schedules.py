"""Learning rates that change with every step."""

import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from kdzoo.core.validation import integer, number

SchedulerFactory = Callable[..., Any]
"""Makes a scheduler from an optimizer, and perhaps from the number of steps of the training."""


def make_schedule(factory: SchedulerFactory, optimizer: Optimizer, *, total_steps: int) -> Any:
    """Return a scheduler as Lightning takes it: stepped after each step if it needs their number, else after epochs."""
    needed = inspect.signature(factory).parameters.get("total_steps")
    if needed is None or needed.default is not inspect.Parameter.empty:
        return factory(optimizer)
    return {"scheduler": factory(optimizer, total_steps=max(total_steps, 1)), "interval": "step"}


class OneCycle(OneCycleLR):
    """A schedule that rises to each group's learning rate and falls to almost nothing, both by a cosine.

    Args:
        optimizer: Its learning rates are the largest of the schedule.
        total_steps: Number of steps of the training, >= 1; a distiller provides it.
        warmup: Share of the steps, in [0, 1], in which the rate rises, from 1/25 of the largest.

    References:
        Smith, Topin: Super-convergence, very fast training of neural networks using large learning rates.
        arXiv:1708.07120, 2018.
    """

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup: float = 0.3) -> None:
        rates = [group["lr"] for group in optimizer.param_groups]
        # Without the momentum cycle, which works only for optimizers that have a momentum.
        super().__init__(optimizer, rates, total_steps=total_steps, pct_start=warmup, cycle_momentum=False)


class Linear(LambdaLR):
    """A schedule that rises to each group's learning rate and falls to 0, both by a straight line.

    Args:
        optimizer: Its learning rates are the largest of the schedule.
        total_steps: Number of steps of the training, >= 1; a distiller provides it.
        warmup: Share of the steps, in [0, 1], in which the rate rises.

    References:
        Devlin et al.: BERT, pre-training of deep bidirectional transformers. NAACL 2019, arXiv:1810.04805, A.2.
    """

    def __init__(self, optimizer: Optimizer, *, total_steps: int, warmup: float = 0.05) -> None:
        steps = integer("total_steps", total_steps)
        rising = number("warmup", warmup, 0.0, 1.0) * steps

        def share(step: int) -> float:
            """Return the rate of a step, counted from 0, as a share of the largest."""
            if step < rising:  # + 1, since a first step with rate 0 would change nothing
                return (step + 1) / (rising + 1)
            return max(steps - step, 0) / max(steps - rising, 1)

        super().__init__(optimizer, share)
