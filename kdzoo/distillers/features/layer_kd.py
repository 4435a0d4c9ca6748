"""Base of the methods that compare hidden layers: pairs of module paths, and a forward pass that records outputs."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.core.hooks import capture
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import choice
from kdzoo.distillers.logits.logit_kd import LogitKD
from kdzoo.errors import ConfigError


class LayerKD(LogitKD):
    """Base of the methods that compare hidden layers of student and teacher, in addition to their logits.

    Args:
        student: Returns logits ``[..., classes]``.
        teacher: Returns logits of the same shape.
        layers: Module path in the student -> module path in the teacher, at least one pair, as ``named_modules`` prints
            them.
        **options: See :class:`kdzoo.distillers.LogitKD`.

    Raises:
        ConfigError: An argument is out of its range, or a path is not that of a module.
    """

    info: ClassVar[MethodInfo] = replace(
        LogitKD.info,
        exempt={"compile": "hidden layers are read by forward hooks, which compiled code does not call"},
        # Layers of different widths, so that the contract checks train a projection where the method has one.
        contract_settings={
            "distiller.layers": {"layers.0": "layers.0"},
            "teacher.hidden": [24, 16],
        },
    )

    def __init__(self, student: nn.Module, teacher: nn.Module, *, layers: Mapping[str, str], **options: Any) -> None:
        super().__init__(student, teacher, **options)
        if not layers:
            raise ConfigError("layers must name at least one pair {student path: teacher path}, got none")
        for role, model, paths in (("student", student, layers), ("teacher", teacher, layers.values())):
            known = [name for name, _ in model.named_modules() if name]  # the model itself has the name ""
            for path in paths:
                choice(f"{role} module path in layers", path, tuple(known))
        self.layers = dict(layers)

    def run_both(self, batch: Batch) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor]]:
        """Run student and teacher.

        Args:
            batch: The batch.

        Returns:
            The student's logits ``[..., classes]`` and the outputs of its ``layers``, then the same of the teacher.

        Raises:
            ConfigError: A layer was not called.
        """
        assert self.teacher is not None
        # The teacher is called directly, not through ``frozen_teacher``: hooks need it to run, and its feature maps for
        # all samples would be too large to cache.
        with ExitStack() as stack:
            student_outputs = stack.enter_context(capture(self.student, list(self.layers)))
            teacher_outputs = stack.enter_context(capture(self.teacher, list(self.layers.values())))
            student_logits = self.student(batch["input"])
            with torch.no_grad():
                teacher_logits = self.teacher(batch["input"])
        return student_logits, student_outputs(), teacher_logits, teacher_outputs()
