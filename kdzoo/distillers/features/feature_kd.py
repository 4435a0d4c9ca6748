"""Distillation of hidden layers, which are found by their module paths.

FitNets: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", equation 3. The mean squared difference between a
hidden layer of the student and one of the teacher, through a learned linear projection where their widths differ.
Attention transfer: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", equation 2. The squared difference
of normalised attention maps, which sum the squared activations over the channels; it needs no projection.

    feature = mean over the pairs of layers of the difference, per sample
    soft, hard as in logit distillation
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import choice
from kdzoo.distillers.features.layer_kd import LayerKD
from kdzoo.errors import ConfigError
from kdzoo.functional import attention_transfer, hint_mse

# Both return one value per sample, so that a term of several layers is their mean.
MATCHES = {"hint": hint_mse, "attention": attention_transfer}


class FeatureKD(LayerKD):
    """Match hidden layers of the student with hidden layers of the teacher, and the logits.

    Args:
        student: Returns logits ``[..., classes]``.
        teacher: Returns logits of the same shape.
        layers: Module path in the student -> module path in the teacher, at least one pair, as ``named_modules`` prints
            them.
        match: ``hint`` (FitNets) or ``attention`` (attention transfer, for feature maps
            ``[batch, channels, height, width]``).
        temperature: Temperature T of the term ``soft``, finite and > 0.
        **options: See :class:`kdzoo.Distiller`; the terms are ``feature``, ``soft`` and ``hard``.

    Raises:
        ConfigError: An argument is out of its range, or a path is not that of a module.

    Example:
        >>> student = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        >>> teacher = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 3))
        >>> FeatureKD(student, teacher, layers={"0": "0"}).loss_weights
        {'feature': 1.0, 'soft': 0.9, 'hard': 0.1}
    """

    info: ClassVar[MethodInfo] = replace(
        LayerKD.info,
        # The scale of ``feature`` depends on ``match`` and on the layers, so that no default suits all: on CIFAR-10,
        # 0.1 for hints and 1000 for attention maps were the best (docs/experiments/cifar10.md).
        terms={"feature": 1.0, "soft": 0.9, "hard": 0.1},
        paper="Romero et al. 2015, FitNets, equation 3; Zagoruyko & Komodakis 2017, Paying More Attention to "
        "Attention, equation 2",
        bibtex="""@inproceedings{romero2015fitnets,
  title     = {{FitNets}: Hints for Thin Deep Nets},
  author    = {Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and Gatta, Carlo
               and Bengio, Yoshua},
  booktitle = {International Conference on Learning Representations},
  year      = {2015},
}
@inproceedings{zagoruyko2017paying,
  title     = {Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via
               Attention Transfer},
  author    = {Zagoruyko, Sergey and Komodakis, Nikos},
  booktitle = {International Conference on Learning Representations},
  year      = {2017},
}""",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        layers: Mapping[str, str],
        match: str = "hint",
        temperature: float = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, layers=layers, temperature=temperature, **options)
        self.match = choice("match", match, tuple(MATCHES))
        # Filled by ``prepare``, once a batch shows the widths; trained with the student, but not exported.
        self.projections = nn.ModuleList()

    def prepare(self, batch: Batch) -> None:
        """Build a linear projection for every pair of layers whose widths differ.

        Raises:
            ConfigError: A layer was not called, or the layers of a pair differ in more than their width.
        """
        # Run for attention maps too, which need no projection: a layer that is not called is then rejected here.
        _, student_features, _, teacher_features = self.run_both(batch)
        if self.match == "hint" and not self.projections:
            pairs = zip(student_features, teacher_features, strict=True)
            self.projections.extend(build_projection(student, teacher) for student, teacher in pairs)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the difference of the hidden layers, the softened divergence and the cross entropy."""
        student_logits, student_features, teacher_logits, teacher_features = self.run_both(batch)
        if self.match == "hint":
            student_features = [
                projection(features) for projection, features in zip(self.projections, student_features, strict=True)
            ]
        differences = [
            MATCHES[self.match](student, teacher)
            for student, teacher in zip(student_features, teacher_features, strict=True)
        ]
        return {"feature": torch.stack(differences).mean(0), **self.logit_terms(batch, student_logits, teacher_logits)}


def build_projection(student: Tensor, teacher: Tensor) -> nn.Module:
    """Return a learned linear map from the width of a student layer to that of a teacher layer.

    Args:
        student: Output of the student layer, ``[batch, width]``, ``[batch, time, width]`` or
            ``[batch, channels, height, width]``.
        teacher: Output of the teacher layer, of the same shape except for the width (of feature maps: the channels).

    Returns:
        The identity for equal shapes, a 1 x 1 convolution for feature maps, otherwise a linear layer.

    Raises:
        ConfigError: The layers differ in more than their width.
    """
    if student.shape == teacher.shape:
        return nn.Identity()
    if student.ndim == teacher.ndim == 4 and student.shape[2:] == teacher.shape[2:]:
        return nn.Conv2d(student.shape[1], teacher.shape[1], 1)
    if student.ndim == teacher.ndim in (2, 3) and student.shape[:-1] == teacher.shape[:-1]:
        return nn.Linear(student.shape[-1], teacher.shape[-1])
    raise ConfigError(
        f"layers pair a student layer of shape {tuple(student.shape)} with a teacher layer of shape "
        f"{tuple(teacher.shape)}; they may differ in width only"
    )
