"""Rollouts of the teacher, by the model itself or by a cheaper copy of it."""

import torch

from kdzoo.core import validation
from kdzoo.core.abilities import FoldsNorms
from kdzoo.graphical_models import Graph, Trace
from kdzoo.graphical_models.fused_copy import fused_copy, has_fast_bfloat16
from kdzoo.graphical_models.graph import Values
from kdzoo.graphical_models.paired import rollout_teacher


class TeacherRollout:
    """Rolls the teacher out without gradients.

    It is not a module, so that neither the teacher nor its copy is in a checkpoint twice.

    Args:
        teacher: The teacher; its mode (training or eval) is not changed.
        fast: Whether to roll out a copy with about the same values (:mod:`kdzoo.graphical_models.fused_copy`).
        notes: A description of the copy is stored here under ``fast_teacher`` when it is made.

    Raises:
        ConfigError: If ``fast`` is not a bool.
    """

    def __init__(self, teacher: Graph, *, fast: bool = False, notes: dict[str, str] | None = None) -> None:
        self.teacher = teacher
        self.fast = validation.flag("fast_teacher", fast)
        self.notes = {} if notes is None else notes
        self._copy: Graph | None = None

    def __call__(self, noise: Values, inputs: Values | None = None) -> Trace:
        """Return the teacher's trace.

        Args:
            noise: Noise by node, ``[b, ...]``.
            inputs: Values of the inputs by node, ``[b, ...]``.
        """
        return rollout_teacher(self.model, noise, inputs)

    @property
    def model(self) -> Graph:
        """The teacher, or its copy, made at the first use on a device: a distiller is moved after it is built."""
        if not self.fast:
            return self.teacher
        if self._copy is None or _place(self._copy) != _place(self.teacher):
            self._copy = self._make_copy()
        return self._copy

    def forget_copy(self) -> None:
        """Make a new copy at the next rollout, since the teacher may have changed."""
        self._copy = None

    def _make_copy(self) -> Graph:
        like = self.teacher.like
        # Without instructions for it, products in bfloat16 are slower than those in float32.
        bfloat16 = has_fast_bfloat16(like.device)
        norms = "norms folded" if isinstance(self.teacher, FoldsNorms) else "no norms to fold"
        dtype = torch.bfloat16 if bfloat16 else like.dtype
        self.notes["fast_teacher"] = f"{norms}, {dtype} on {like.device.type}"
        return fused_copy(self.teacher, bfloat16=bfloat16)


def _place(model: Graph) -> tuple[torch.device, torch.dtype]:
    """Return the device and dtype of a model."""
    return model.like.device, model.like.dtype
