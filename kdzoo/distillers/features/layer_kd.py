"""What the methods share that compare hidden layers: pairs of module paths, and one pass that records them."""

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
    """Base of the methods that compare hidden layers of the student and the teacher, beside the logits.

    Args:
        student: returns logits [..., classes].
        teacher: returns logits of the same shape.
        layers: module path in the student -> module path in the teacher, at least one pair, as
            ``named_modules`` prints them.
        **options: see :class:`kdzoo.distillers.LogitKD`.

    Raises:
        ConfigError: an argument is out of its range, or a path names no module.
    """

    info: ClassVar[MethodInfo] = replace(
        LogitKD.info,
        exempt={"compile": "hidden layers are read by hooks, which compiled code passes over"},
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
            known = [name for name, _ in model.named_modules() if name]
            for path in paths:
                choice(f"{role} module path in layers", path, tuple(known))
        self.layers = dict(layers)

    def run_both(self, batch: Batch) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor]]:
        """Return logits and hidden layers of the student, then those of the teacher."""
        assert self.teacher is not None
        with ExitStack() as stack:
            hidden = stack.enter_context(capture(self.student, list(self.layers)))
            hints = stack.enter_context(capture(self.teacher, list(self.layers.values())))
            student = self.student(batch["input"])
            with torch.no_grad():
                teacher = self.teacher(batch["input"])
        return student, hidden(), teacher, hints()
