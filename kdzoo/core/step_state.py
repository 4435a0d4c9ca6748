"""State that changes once per optimizer step: queues of features and moving averages of weights.

``losses`` runs once per micro-batch and in validation, so state must not be changed there. A module that a method
assigns in ``__init__`` or ``prepare`` and that has a method ``after_step`` is updated by the distiller exactly once per
optimizer step, after the weights have moved and before a checkpoint can be written. State kept in buffers is saved and
restored with the checkpoint.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdzoo.core.parallel import gather_rows
from kdzoo.core.validation import integer


@runtime_checkable
class UpdatesAfterStep(Protocol):
    """A module whose state changes once per optimizer step."""

    def after_step(self) -> None:
        """Update the state; called on every rank after each optimizer step."""


class FeatureQueue(nn.Module):
    """The most recent feature vectors of all ranks, oldest first.

    ``losses`` hands the vectors of its micro-batch to :meth:`enqueue` and reads ``queue``, which stays the same
    throughout a step. The vectors of all micro-batches and ranks enter after the step in the order of the global batch,
    so that the queue does not depend on how the batch was divided.

    Args:
        size: Number of vectors, at least 1.
        dim: Length of a vector, at least 1.
        seed: Seed of the random unit vectors that the queue starts with, as in MoCo.

    Attributes:
        queue: float32 [size, dim].

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> queue = FeatureQueue(size=3, dim=2)
        >>> queue.enqueue(torch.ones(2, 2)); queue.after_step()
        >>> queue.queue[1:].tolist()
        [[1.0, 1.0], [1.0, 1.0]]

    References:
        He, Fan, Wu, Xie, Girshick: Momentum contrast for unsupervised visual representation learning. CVPR 2020,
        section 3.2.
    """

    queue: Tensor

    def __init__(self, size: int, dim: int, *, seed: int = 0) -> None:
        super().__init__()
        shape = integer("size", size), integer("dim", dim)
        # Drawn with a separate generator, so that the queue does not change the random numbers of anything else.
        vectors = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("queue", nn.functional.normalize(vectors, dim=1))
        self._pending: list[Tensor] = []

    def enqueue(self, features: Tensor) -> None:
        """Keep feature vectors ``[batch, dim]`` until the end of the step; has no effect outside of training."""
        if self.training:
            self._pending.append(features.detach())

    def after_step(self) -> None:
        """Append the vectors of this step on all ranks, and drop as many of the oldest."""
        if not self._pending:
            return
        # All ranks take part, so that their queues stay equal.
        rows = gather_rows(torch.cat(self._pending)).to(self.queue)
        self._pending = []
        self.queue.copy_(torch.cat([self.queue, rows])[-len(self.queue) :])
