"""Supervised training on labels alone. A run trains its teachers and its teacher-free control with it.

The one term, ``hard``, is the cross entropy -log softmax(z)_y of the student's logits z ``[..., classes]`` at the
labelled positions.
"""

from typing import ClassVar

from torch import Tensor

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, labelled_selection, labels
from kdzoo.core.method_info import MethodInfo
from kdzoo.functional import hard_target_ce


class Supervised(Distiller):
    """Train a classifier on the labelled positions of the data, without a teacher.

    Args:
        student: Returns logits ``[..., classes]``.
        teacher: Has no effect; pass None.
        **options: See :class:`kdzoo.Distiller`; the only term is ``hard``.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> Supervised(torch.nn.Linear(4, 3)).loss_weights
        {'hard': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(terms={"hard": 1.0}, teacher="none")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross entropy of the labelled positions."""
        # Selected before the loss: positions without a label would have no class to look up.
        labelled = labelled_selection(batch)
        return {"hard": hard_target_ce(self.student(batch["input"])[labelled], labels(batch))}
