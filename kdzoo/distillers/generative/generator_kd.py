"""Distillation of a generator on the teacher's noise (Aguinaldo et al. 2019).

With noise z, teacher T, student S, features f of the teacher's discriminator, and a discriminator D that starts as the
teacher's, the terms are

    pixel      mean of (S(z) - T(z))^2 over the elements of a sample
    feature    mean of (f(S(z)) - f(T(z)))^2 over the features
    generator  softplus(-D(S(z)))
    real       softplus(-D(T(z))), a sample of the teacher in the place of a real one
    generated  softplus(D(S(z)))
    penalty    squared norm of the gradient of D at T(z) (Mescheder et al. 2018), which keeps D from winning

or, in the place of softplus, those of another ``form`` of :mod:`kdzoo.functional.adversarial`. The first three train S,
the others D (:mod:`kdzoo.core.two_players`). The squared error alone blurs; with the adversarial terms the loss is the
authors' joint loss. No data are used, only noise, and classes that are drawn for a model with a condition.
"""

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.base import ParameterGroup
from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.two_players import TwoPlayerDistiller
from kdzoo.data.derived.noise import NoisyData
from kdzoo.distillers.generative.adversarial import ADVERSARIAL_EXEMPT
from kdzoo.distillers.generative.batch_noise import pack_inputs, pack_noise, unpack_inputs, unpack_noise
from kdzoo.errors import ConfigError
from kdzoo.functional.adversarial import FORMS, discriminator_loss, generator_loss, squared_gradient
from kdzoo.graphical_models import Graph
from kdzoo.graphical_models.discrete import straight_through
from kdzoo.models.gan import GAN

BOUNDED_FORMS = tuple(form for form in FORMS if form != "wasserstein")
"""Losses of two players that need no gradient penalty, since they are bounded."""

Samples = tuple[Tensor, Tensor, dict[str, Tensor]]
"""The student's samples, the teacher's on the same noise, and their conditions by node."""


class GeneratorKD(TwoPlayerDistiller):
    """Imitate a generator's map from noise to samples, by their values, by features, or against a discriminator.

    Args:
        student: A generator whose noise has the teacher's shape.
        teacher: A generator; one with a discriminator for all terms but ``pixel``.
        form: Losses of the two players of ``generator``: ``non_saturating``, ``hinge`` or ``least_squares``; best that
            by which the teacher's discriminator was trained.
        seed: Seed of the noise, >= 0.
        **options: See :class:`kdzoo.core.two_players.TwoPlayerDistiller`. Without a weight for ``feature`` or
            ``generator`` these are not computed, and without one for ``generator`` no discriminator is trained.
            A student whose discriminator has the teacher's sizes gets its weights, and is trained against it.

    Raises:
        ConfigError: An argument is out of its range, the noise of the models differs, or the teacher has no
            discriminator.

    Example:
        >>> models = GAN(in_shape=(1, 8, 8)), GAN(in_shape=(1, 8, 8), width=4)
        >>> terms = GeneratorKD(models[1], models[0]).losses({"input": torch.zeros(3, 0)})
        >>> {name: value.shape for name, value in terms.items()}
        {'pixel': torch.Size([3])}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"pixel": 1.0, "feature": 0.0, "generator": 0.0, "real": 1.0, "generated": 1.0, "penalty": 0.5},
        paper="Aguinaldo et al. 2019, Compressing GANs using knowledge distillation, section 3",
        bibtex="""@article{aguinaldo2019compressing,
  title   = {Compressing {GANs} using Knowledge Distillation},
  author  = {Aguinaldo, Angeline and Chiang, Ping-Yeh and Gain, Alex and Patil, Ameya and Pearson, Kolten and
             Feizi, Soheil},
  journal = {arXiv:1902.00159},
  year    = {2019},
}""",
        teacher_kinds=("graphical_model",),
        student_kinds=("graphical_model",),
        # The joint loss, which trains a discriminator too, and no norms over a batch, which would make a micro-batch
        # depend on the others.
        contract_settings={
            "teacher.norm": None,
            "student.norm": None,
            "distiller.loss_weights.feature": 0.1,
            "distiller.loss_weights.generator": 0.1,
        },
        exempt={"compile": ADVERSARIAL_EXEMPT["compile"]},
    )
    student: Graph
    teacher: Graph

    def __init__(
        self, student: Graph, teacher: Graph, *, form: str = "non_saturating", seed: int = 0, **options: Any
    ) -> None:
        super().__init__(student, teacher, **options)
        self.form = validation.choice("form", form, BOUNDED_FORMS)
        self.seed = validation.integer("seed", seed, 0)
        _check_noise(teacher, student)
        needing = [name for name in ("feature", "generator") if self.loss_weights[name]]
        if needing and (not isinstance(teacher, GAN) or teacher.discriminates_codes):
            raise ConfigError(
                f"loss_weights.{needing[0]} needs a teacher with a discriminator of samples (kdzoo.models.GAN), "
                f"got {type(teacher).__name__}{' with one of codes' if isinstance(teacher, GAN) else ''}"
            )
        self.is_joint = bool(self.loss_weights["generator"])
        if self.opponent_steps > 1 and not self.is_joint:
            raise ConfigError(
                f"opponent_steps must be 1 where loss_weights.generator is 0, which trains no discriminator, "
                f"got {self.opponent_steps}"
            )
        for parameter in student.inference_parameters():
            parameter.requires_grad_(False)  # of an encoder or a discriminator, which samples do not depend on
        # The discriminator that is trained is the student's own if it can start as the teacher's. Otherwise it is a
        # copy: the teacher's stays as it is, since its features are compared.
        self.uses_own_discriminator = _have_equal_discriminators(student, teacher)
        self.discriminator: nn.Module = nn.Identity()
        if self.uses_own_discriminator:
            weights = teacher.get_submodule("discriminator").state_dict()
            student.get_submodule("discriminator").load_state_dict(weights)
        elif self.is_joint:
            self.discriminator = copy.deepcopy(teacher.discriminator)  # type: ignore[assignment] # checked above
        if self.is_joint:
            self.opponent().requires_grad_(True)
        else:
            self.loss_weights |= {"real": 0.0, "generated": 0.0, "penalty": 0.0}  # no discriminator is trained
        if isinstance(student, GAN) and not self.uses_own_discriminator:
            self.notes["discriminator"] = "the student's own is not trained, since its sizes are not the teacher's"

    def opponent(self) -> nn.Module:
        """Return the discriminator that is trained, which has no parameters unless the loss is joint."""
        if self.is_joint and self.uses_own_discriminator:
            return self.student.discriminator  # type: ignore[return-value] # a GAN
        return self.discriminator

    def trainable(self) -> Iterator[nn.Parameter | ParameterGroup]:
        """Yield the student's parameters and, if the loss is joint, the discriminator's."""
        groups = super().trainable()
        yield next(groups)
        if self.is_joint:
            yield from groups

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return fresh noise, and drawn inputs, for as many samples as the data have."""

        def draw(n: int, generator: torch.Generator) -> dict[str, Tensor]:
            noise = pack_noise(self.teacher.noise(n, generator=generator))
            return noise | pack_inputs(self.teacher.draw_inputs(n, generator=generator))

        return NoisyData(data, draw, noise_only=True, seed=self.seed)  # type: ignore[arg-type]

    def play(self, batch: Batch) -> Samples:
        """Return the samples of both models on the noise of the batch."""
        n = len(batch["input"])
        noise = unpack_noise(batch) or self.teacher.noise(n)
        inputs = unpack_inputs(batch) or {k: v.to(self.teacher.like) for k, v in self.teacher.draw_inputs(n).items()}
        with torch.no_grad():
            target = self.teacher.samples(noise, inputs)
        # Discrete samples have the gradient of their probabilities; others are not changed by the sampler.
        return self.student.samples(noise, inputs, sampler=straight_through), target, inputs

    def player_losses(self, batch: Batch, played: Samples) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the distances from the teacher's samples, and the loss against the discriminator."""
        samples, target, inputs = played
        terms = {"pixel": (samples - target).square().flatten(1).mean(1)}
        if self.loss_weights["feature"]:
            assert isinstance(self.teacher, GAN)
            features = self.teacher.discriminator.features
            terms["feature"] = (features(samples) - features(target)).square().mean(1)
        if self.is_joint:
            terms["generator"] = generator_loss(self.opponent()(samples, inputs.get("label")), form=self.form)
        return terms

    def opponent_losses(self, batch: Batch, played: Samples) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the discriminator's losses on the samples of both models; none without a joint loss."""
        if not self.is_joint:
            return {}
        samples, target, inputs = played

        def logits(values: Tensor) -> Tensor:
            return self.opponent()(values, inputs.get("label"))

        real, generated = discriminator_loss(logits(target), logits(samples.detach()), form=self.form)
        terms = {"real": real, "generated": generated}
        if self.loss_weights["penalty"]:
            terms["penalty"] = squared_gradient(logits, target)
        return terms


def _have_equal_discriminators(student: Graph, teacher: Graph) -> bool:
    """Return whether both models have a discriminator, of the same sizes and of the same things."""
    if not (isinstance(student, GAN) and isinstance(teacher, GAN)):
        return False
    states = [model.discriminator.state_dict() for model in (student, teacher)]
    sizes = [{name: value.shape for name, value in state.items()} for state in states]
    return sizes[0] == sizes[1] and student.discriminates_codes == teacher.discriminates_codes


def _check_noise(teacher: Graph, student: Graph) -> None:
    """Reject a student whose noise or inputs have other names or shapes than the teacher's."""
    for kind in ("noise", "draw_inputs"):
        wanted, got = (
            {name: tuple(value.shape[1:]) for name, value in getattr(model, kind)(1).items()}
            for model in (teacher, student)
        )
        if wanted != got:
            what = "noise" if kind == "noise" else "inputs"
            keys = "latent" if kind == "noise" else "conditional"
            raise ConfigError(
                f"the student's {what} must have the teacher's names and shapes {wanted}, got {got}; "
                f"set student.{keys} as the teacher has it"
            )
