"""Distillation of an autoencoder into another one, by its codes and by its reconstructions.

With encoder E and decoder D of teacher (t) and student (s), an image x of d pixels, and codes of k values,

    code           = |A E_s(x) + a - E_t(x)|^2 / (k v)
    reconstruction = |D_s(E_s(x)) - D_t(E_t(x))|^2 / d
    data           = |D_s(E_s(x)) - x|^2 / d

The codes are hints in the sense of Romero et al. 2015 (FitNets, equation 3): A and a are learned where the codes differ
in size, and are left out where they do not. The scale of a code is arbitrary; v, the mean variance of the teacher's
code on a few images, makes its term independent of it.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch
from kdzoo.core.frozen_teacher import TeacherOutputs
from kdzoo.core.method_info import MethodInfo
from kdzoo.functional import hint_mse


class AutoencoderKD(Distiller):
    """Match the codes and the reconstructions of a teacher.

    Args:
        student: An autoencoder, with ``encode`` and ``decode``.
        teacher: Another one, for the same images; its code may have another size.
        **options: See :class:`kdzoo.Distiller`; the terms are ``code``, ``reconstruction`` and ``data``.

    Raises:
        ConfigError: If an argument is out of its range.

    Example:
        >>> from kdzoo.models import Autoencoder
        >>> student, teacher = (Autoencoder(in_shape=(4,), width=width) for width in (8, 16))
        >>> AutoencoderKD(student, teacher).loss_weights
        {'code': 0.1, 'reconstruction': 1.0, 'data': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"code": 0.1, "reconstruction": 1.0, "data": 1.0},
        paper="Romero et al. 2015, FitNets: Hints for Thin Deep Nets, equation 3",
        bibtex="""@inproceedings{romero2015fitnets,
  title     = {{FitNets}: Hints for Thin Deep Nets},
  author    = {Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and Gatta, Carlo
               and Bengio, Yoshua},
  booktitle = {International Conference on Learning Representations},
  year      = {2015},
}""",
        teacher_kinds=("autoencoder",),
        student_kinds=("autoencoder",),
        exempt={"compile": "encoder and decoder are called by themselves, not the compiled model"},
        # Codes of different sizes, so that the contract checks train the map between them. The code of their teacher,
        # which is hardly trained, varies little, and plain SGD would diverge on its large term.
        contract_settings={"student.code": 3, "distiller.loss_weights.code": 0.001},
    )
    code_variance: Tensor

    def __init__(self, student: nn.Module, teacher: nn.Module, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        # Filled by ``prepare``, which sees the sizes of the codes; trained with the student, but not exported.
        self.code_map = nn.ModuleList()
        self.register_buffer("code_variance", torch.ones(()))

    def teacher_outputs(self, batch: Batch) -> TeacherOutputs:
        """Return the teacher's codes as vectors, and its reconstructions."""
        assert self.teacher is not None
        code = self.teacher.encode(batch["input"])  # type: ignore[operator]
        return {"code": code.flatten(1), "output": self.teacher.decode(code)}  # type: ignore[operator]

    def prepare(self, batch: Batch) -> None:
        """Measure the variance of the teacher's code, and build the map of codes of different sizes."""
        teacher_code = self.teacher_outputs(batch)["code"]
        variance = teacher_code.var(0, correction=0).mean()
        # A single image has no variance.
        self.code_variance.copy_(torch.where(variance > 0, variance, 1.0))
        sizes = self.student.encode(batch["input"]).flatten(1).shape[1], teacher_code.shape[1]  # type: ignore[operator]
        if not self.code_map and sizes[0] != sizes[1]:
            self.code_map.append(nn.Linear(*sizes).to(teacher_code))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the squared differences of the codes, of both reconstructions, and from the image itself."""
        outputs = self.frozen_teacher.outputs(batch)
        code = self.student.encode(batch["input"])  # type: ignore[operator]
        reconstruction = self.student.decode(code)  # type: ignore[operator]
        vector = code.flatten(1)
        for linear in self.code_map:
            vector = linear(vector)
        return {
            "code": hint_mse(vector, outputs["code"]) / self.code_variance,
            "reconstruction": hint_mse(reconstruction, outputs["output"]),
            "data": hint_mse(reconstruction, batch["input"]),
        }
