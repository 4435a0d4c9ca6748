"""A matrix product state from queries to a black-box teacher, without gradient descent.

See :mod:`kdzoo.distillers.tensor_networks.query_distiller` for the two ways of building it.
:class:`kdzoo.distillers.SketchedKD` continues from there by distillation.
"""

from typing import ClassVar

import torch
from torch import Tensor

from kdzoo.core.batch import Batch, valid_positions
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers.tensor_networks.query_distiller import QueryDistiller
from kdzoo.functional import soft_target_kl


class Sketch(QueryDistiller, ClosedFormDistiller):
    """Build a matrix product state from queries to its teacher, in one epoch.

    The inputs that are recombined are the first ``samples`` ones of the epoch.

    Args:
        student: A matrix product state (:class:`kdzoo.models.MPS`) with open boundaries.
        teacher: Returns logits of the student's shape ``[batch, classes]``.
        **options: ``method``, ``samples``, ``rank``, ``cutoff``, ``domain``, ``ends`` and ``budget``, see
            :class:`kdzoo.distillers.tensor_networks.query_distiller.QueryDistiller`, and those of
            :class:`kdzoo.Distiller`. The term ``kl`` is KL(teacher || student); it is measured, not minimized.

    Raises:
        ConfigError: An argument is out of its range, or the student is not a matrix product state with open boundaries.

    Example:
        >>> from torch import nn
        >>> from kdzoo.models import MPS
        >>> Sketch(MPS(8, 3, 2), nn.Linear(8, 3), samples=20, budget=10_000).loss_weights
        {'kl': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"kl": 1.0},
        paper="Pareja Monturiol et al. 2025, Tensorization of neural networks for improved privacy and "
        "interpretability, section 3; "
        "Nunez Fernandez et al. 2025, Learning tensor networks with tensor cross interpolation",
        bibtex="""@article{parejamonturiol2025tensorization,
  title   = {Tensorization of neural networks for improved privacy and interpretability},
  author  = {Pareja Monturiol, Jos{\\'e} Ram{\\'o}n and Pozas-Kerstjens, Alejandro and P{\\'e}rez-Garc{\\'i}a, David},
  journal = {SciPost Physics Core},
  volume  = {8},
  year    = {2025},
}
@article{nunezfernandez2025learning,
  title   = {Learning tensor networks with tensor cross interpolation: new algorithms and libraries},
  author  = {N{\\'u}{\\~n}ez Fern{\\'a}ndez, Yuriel and Ritter, Marc K. and Jeannin, Matthieu and others},
  journal = {SciPost Physics},
  volume  = {18},
  year    = {2025},
}""",
        exempt=CLOSED_FORM_EXEMPT,
    )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return KL(teacher || student) at every valid position, in nats."""
        valid = valid_positions(batch)
        student_logits = self.student(batch["input"])[valid]
        teacher_logits = self.frozen_teacher.output(batch)[valid]
        return {"kl": soft_target_kl(student_logits, teacher_logits, temperature=1.0)}

    def observe(self, batch: Batch) -> None:
        """Store inputs until there are ``samples`` of them."""
        stored = self.observed.setdefault("inputs", [])
        missing = self.samples - sum(map(len, stored))
        if missing > 0:
            stored.append(batch["input"][:missing].cpu())

    def solve(self) -> bool:
        """Build the student; the training is over."""
        self.build_student(torch.cat(self.observed["inputs"]).to(self.device))
        self.observed = {}
        return True
