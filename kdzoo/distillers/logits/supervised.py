"""Supervised training on labels alone: how teachers and controls trained without a teacher are made.

The one term, ``hard``, is the cross entropy -log softmax(z)_y of the student's logits z [..., classes] at
the labelled positions.
"""

from typing import ClassVar

from torch import Tensor

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, labelled_positions, labels
from kdzoo.core.method_info import MethodInfo
from kdzoo.functional import hard_target_ce


class Supervised(Distiller):
    """Train a classifier on the labelled positions of the data, without a teacher.

    Args:
        student: returns logits [..., classes].
        teacher: is not used.
        **options: see :class:`kdzoo.Distiller`.

    Example:
        >>> import torch
        >>> Supervised(torch.nn.Linear(4, 3)).loss_weights
        {'hard': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(terms={"hard": 1.0}, teacher="none")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross entropy of the labelled positions."""
        labelled = labelled_positions(batch)
        return {"hard": hard_target_ce(self.student(batch["input"])[labelled], labels(batch))}
