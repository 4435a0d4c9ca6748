"""Distillation of hidden layers, found by their module paths.

FitNets: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", equation 3: mean squared difference of a
student's hidden layer and a teacher's, through a learned linear map where their widths differ.
Attention transfer: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", equation 2: squared
difference of the normalised maps of where the activations are large; needs no map.

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

MATCHES = {"hint": hint_mse, "attention": attention_transfer}


class FeatureKD(LayerKD):
    """Match hidden layers of the student with hidden layers of the teacher, and the logits.

    Args:
        student: returns logits [..., classes].
        teacher: returns logits of the same shape.
        layers: module path in the student -> module path in the teacher, at least one pair, as
            ``named_modules`` prints them.
        match: ``hint`` (FitNets) or ``attention`` (attention transfer, for feature maps [b, c, h, w]).
        temperature: T of the soft term, finite and greater than 0.
        **options: see :class:`kdzoo.Distiller`; the terms are ``feature``, ``soft`` and ``hard``.

    Raises:
        ConfigError: an argument is out of its range, or a path names no module.

    Example:
        >>> student = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        >>> teacher = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 3))
        >>> FeatureKD(student, teacher, layers={"0": "0"}).loss_weights
        {'feature': 1.0, 'soft': 0.9, 'hard': 0.1}
    """

    info: ClassVar[MethodInfo] = replace(
        LayerKD.info,
        terms={"feature": 1.0, "soft": 0.9, "hard": 0.1},
        paper="Romero et al. 2015, FitNets, equation 3; Zagoruyko & Komodakis 2017, Paying More Attention to Attention, "
        "equation 2",
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
        self.projections = nn.ModuleList()

    def prepare(self, batch: Batch) -> None:
        """Make a linear map for every pair of layers whose widths differ."""
        _, hidden, _, hints = self.run_both(batch)
        if self.match == "hint" and not self.projections:
            maps = [projection(mine, theirs) for mine, theirs in zip(hidden, hints, strict=True)]
            self.projections.extend(maps)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the difference of the hidden layers, the softened divergence and the cross entropy."""
        student, hidden, teacher, hints = self.run_both(batch)
        if self.match == "hint":
            hidden = [map_(mine) for map_, mine in zip(self.projections, hidden, strict=True)]
        gaps = [MATCHES[self.match](mine, theirs) for mine, theirs in zip(hidden, hints, strict=True)]
        return {"feature": torch.stack(gaps).mean(0), **self.logit_terms(batch, student, teacher)}


def projection(student: Tensor, teacher: Tensor) -> nn.Module:
    """Return the identity, or a learned linear map (1 x 1 convolution) to the teacher's width.

    Raises:
        ConfigError: the layers differ in more than their width, dimension 1 of maps and the last of vectors.
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
