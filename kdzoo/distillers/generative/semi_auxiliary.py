"""Distillation of deep directed graphical models in their semi-auxiliary form.

Chen, Liang, Zeng, Yao & Shao 2023, "A unified knowledge distillation framework for deep directed graphical models".
Every latent z_i is a function of its parents and of noise eps_i whose distribution has no parameters. Teacher and
student compute their values from the same noise, each with the latents of its own rollout; where a target is an input
of a later node, both use the teacher's sample. With the distributions p_i of the teacher and q_i of the student for
node i given its parents,

    surrogate loss    L_sd  = sum over targets i of E d(p_i, q_i)
    latent losses     L_z,i = E d_z(p_i, q_i)
    L                 = L_sd + sum over latents i of lambda_i c_i L_z,i

with the calibration c_i of :mod:`kdzoo.graphical_models.calibration`. For d = KL the surrogate loss is an upper bound
of the KL between the marginal distributions of the targets; the difference is the KL between the distributions of the
noise given the targets. Every node has a loss term with its name. Where the marginals can be computed exactly,
``marginal`` minimises the KL between them directly, as the only term.
"""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.abilities import HasLengths
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, n_samples
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.randomness import mix_seed
from kdzoo.core.report_extras import ReportExtras
from kdzoo.data.derived.noise import NoisyData, with_lengths
from kdzoo.distillers.generative.batch_noise import pack_inputs, pack_noise, unpack_inputs, unpack_noise
from kdzoo.distillers.generative.estimators import GradientEstimator, PairedRollout, make_estimator
from kdzoo.distillers.generative.latent_sources import (
    LATENT_CHOICE,
    LatentSource,
    MixedLatents,
    TeacherLatents,
    make_latent_source,
)
from kdzoo.distillers.generative.node_divergences import NodeDivergences
from kdzoo.distillers.generative.progress import elapsed_share
from kdzoo.distillers.generative.teacher_rollout import TeacherRollout
from kdzoo.errors import ConfigError, KdzooWarning
from kdzoo.graphical_models import Graph
from kdzoo.graphical_models.calibration import latent_weights
from kdzoo.graphical_models.marginal import marginal_divergence
from kdzoo.graphical_models.noise_map import NoiseMap
from kdzoo.graphical_models.paired import Pair, check_compatible, rollout_student

NOISE_MAPS = ("none", "learned", "first")
# Noise samples for the calibration. For a linear teacher the weight is then within 15 % of the exact one, which a test
# checks. More samples are not needed: weights of 0.1, 1 and 10 gave Frechet distances that differ by 5 %.
CALIBRATION_SAMPLES = 256
# Mixed into the seed, so that the noise of the calibration is independent of that of the training.
_CALIBRATION_STREAM = 2


class SemiAuxiliary(Distiller):
    """Match the distributions of all nodes on the same noise.

    Args:
        student: A graphical model with the teacher's targets and latents.
        teacher: A graphical model.
        latents_from: The model whose latents the student's nodes read
            (:mod:`kdzoo.distillers.generative.latent_sources`): ``student`` (the method of the paper), ``teacher``
            (local distillation, where every node is trained independently), or ``mixed`` (the teacher's for a share of
            the samples that decreases from 1 to 0).
        mixing: Share of the training after which no sample uses the teacher's latents, in (0, 1]; only for ``mixed``.
        divergence: Divergence of targets, ``kl``, ``w2``, ``mmd`` or ``logits``
            (:class:`kdzoo.distillers.generative.node_divergences.NodeDivergences`). With ``logits`` the surrogate loss
            is not an upper bound, and a warning says so.
        latent_divergence: Divergence of latents, one of the same, or ``auto``: ``w2`` for continuous and ``kl`` for
            discrete latents.
        reduction: Reduction of a latent's divergence over its elements, ``sum`` or ``mean``. The divergence of a target
            is always summed.
        latent_weight: Lambda of all latents that ``loss_weights`` does not name, finite and >= 0.
        calibrated: Whether the loss of a latent is also multiplied by its calibration c_i, which converts it into nats
            of the targets (:mod:`kdzoo.graphical_models.calibration`).
        estimator: Estimator of gradients through the student's discrete latents
            (:mod:`kdzoo.distillers.generative.estimators`): ``straight_through``, ``gumbel``, ``reinforce``,
            ``enumerate``, or ``none``, where networks before discrete latents learn from the latents' losses only. It
            has no effect on models without discrete latents, with the teacher's latents, or with ``marginal``.
        temperature: Temperature of the estimator ``gumbel``, > 0.
        samples: Number of rollouts for each sample of a batch, >= 2; only for ``reinforce``.
        marginal: Whether to minimise the exact divergence between the marginals of the targets instead, for models that
            are linear and normal or whose latents are few bits or classes (:mod:`kdzoo.graphical_models.marginal`).
        noise_map: Noise of latents that have no latent of the same name and shape in the other model: ``none`` rejects
            such models, ``learned`` multiplies the noise of the teacher's unpaired latents by a trained semi-orthogonal
            matrix, ``first`` takes its first values (:mod:`kdzoo.graphical_models.noise_map`).
        inputs: Where the values of inputs come from: ``noise`` draws them, ``data`` takes those of the training data.
        fast_teacher: Whether to use a copy of the teacher with about the same values
            (:mod:`kdzoo.graphical_models.fused_copy`): its norms are folded into its convolutions, if the model
            supports that, and its networks run in bfloat16 where the device is faster with it (CUDA, CPUs with AMX or
            AVX512 instructions for it).
        seed: Seed of the noise, >= 0.
        **options: See :class:`kdzoo.Distiller`; the terms have the names of the nodes.

    Warns:
        UserWarning: With these settings the surrogate loss is not an upper bound.

    Raises:
        ConfigError: If an argument is out of its range, or the models differ in their targets or latents.

    Example:
        >>> from torch import nn
        >>> from kdzoo.graphical_models import Latent, Normal, Target
        >>> def decoder():
        ...     latent = Latent("z", Normal((2,), scale=1.0))
        ...     return Graph([latent, Target("y", Normal((3,), scale=0.5), nn.Linear(2, 3), "z")])
        >>> distiller = SemiAuxiliary(decoder(), decoder())
        >>> {name: value.shape for name, value in distiller.losses({"input": torch.zeros(4, 0)}).items()}
        {'y': torch.Size([4])}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Chen, Liang, Zeng, Yao & Shao 2023, "
        "A unified knowledge distillation framework for deep directed graphical models",
        bibtex="""@inproceedings{chen2023unified,
  title     = {A Unified Knowledge Distillation Framework for Deep Directed Graphical Models},
  author    = {Chen, Yizhuo and Liang, Kaizhao and Zeng, Zhe and Yao, Shuochao and Shao, Huajie},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2023},
}""",
        teacher_kinds=("graphical_model",),
        student_kinds=("graphical_model",),
        exempt={"compile": "the models are rolled out with noise, not called"},
    )
    student: Graph
    teacher: Graph
    calibration: Tensor

    def __init__(
        self,
        student: Graph,
        teacher: Graph,
        *,
        latents_from: str = "student",
        mixing: float = 0.5,
        divergence: str = "kl",
        latent_divergence: str = "auto",
        reduction: str = "sum",
        latent_weight: float = 1.0,
        calibrated: bool = True,
        estimator: str = "straight_through",
        temperature: float = 1.0,
        samples: int = 8,
        marginal: bool = False,
        noise_map: str = "none",
        inputs: str = "noise",
        fast_teacher: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.calibrated = validation.flag("calibrated", calibrated)
        self.marginal = validation.flag("marginal", marginal)
        self.draws_inputs = validation.choice("inputs", inputs, ("noise", "data")) == "noise"
        self.seed = validation.integer("seed", seed, 0)
        self.divergences = NodeDivergences(divergence, latent_divergence, reduction)
        self.latent_source = make_latent_source(latents_from, mixing=mixing)
        self.estimator = make_estimator(estimator, temperature=temperature, samples=samples, divergence=divergence)
        self.teacher_rollout = TeacherRollout(teacher, fast=fast_teacher, notes=self.notes)
        self.paired = check_compatible(teacher, student, allow_unpaired=noise_map != "none")
        self.noise_map = _make_noise_map(noise_map, teacher, student, self.paired)
        if self.marginal or not _needs_estimator(self.latent_source, student):
            self.estimator = GradientEstimator()  # autograd computes the whole gradient
        self._check_latent_source(latents_from, estimator)
        self._choose_compared_latents(validation.number("latent_weight", latent_weight, 0.0))
        for parameter in student.inference_parameters():
            parameter.requires_grad_(False)  # the networks that infer latents from data are not part of the losses
        self._warn_of_missing_bound()
        self.report_extras = SemiAuxiliaryReport(self)

    def _check_latent_source(self, latents_from: str, estimator: str) -> None:
        """Raise an error if the source of latents cannot be combined with other settings."""
        # The teacher has no values for the unpaired latents of the student.
        if self.noise_map is not None and type(self.latent_source) is not LatentSource:
            raise ConfigError(f"latents_from must be student where noise is mapped, got {latents_from!r}")
        allows_mixed = self.estimator.allows_mixed_latents and not self.marginal
        if isinstance(self.latent_source, MixedLatents) and not allows_mixed:
            other = "marginal=true" if self.marginal else f"estimator={estimator}"
            raise ConfigError(f"latents_from must be student or teacher with {other}, got {latents_from!r}")

    def _choose_compared_latents(self, default_weight: float) -> None:
        """Choose the latents that have a loss, with their weights and an initial calibration of 1."""
        learned = [name for name in self.paired if self.student.latents()[name].is_learned]
        # With marginal=True the only term is that of the whole model.
        self.compared = [] if self.marginal else learned
        self.loss_weights = {**dict.fromkeys(self.compared, default_weight), **self.loss_weights}
        # A buffer, so that it moves with the model and a checkpoint contains it.
        self.register_buffer("calibration", torch.ones(len(self.compared)))

    def _warn_of_missing_bound(self) -> None:
        """Warn of settings with which the surrogate loss does not bound the divergence of the marginals."""
        strategies = (self.latent_source, self.estimator)
        reasons = [self.divergences.missing_bound(self.student), *(strategy.missing_bound for strategy in strategies)]
        reason = "; ".join(filter(None, reasons))
        if reason:
            self.notes["bound"] = f"none on the divergence of the marginals: {reason}"
            warnings.warn(
                f"the surrogate loss does not bound the divergence of the marginals: {reason}",
                KdzooWarning,
                stacklevel=3,  # the line that builds the distiller
            )

    # ---------------------------------------------------------------- the transfer set

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return training data of fresh noise in every epoch, with drawn inputs or with the samples of ``data``."""
        lengths = data.lengths if isinstance(data, HasLengths) else None

        def draw(n: int, generator: torch.Generator) -> dict[str, Tensor]:
            # The noise of a seed, and with it the published results, depends on the order of these draws.
            batch = pack_noise(self.draw_noise(n, generator=generator))
            batch[LATENT_CHOICE] = torch.rand(n, generator=generator)
            if self.draws_inputs:
                batch |= pack_inputs(self.teacher.draw_inputs(n, generator=generator))
            if self.draws_inputs and lengths is not None:
                batch["length"] = lengths[torch.randint(len(lengths), (n,), generator=generator)]
            return batch

        return NoisyData(data, draw, noise_only=self.draws_inputs, seed=self.seed)  # type: ignore[arg-type]

    def draw_noise(self, n: int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw the noise of a batch of n samples, by node; see :meth:`.GradientEstimator.draw_noise`."""
        # marginal_divergence may sample all of the teacher's targets, which needs the noise of leaves as well.
        return self.estimator.draw_noise(self.teacher, n, generator=generator, leaves=self.marginal)

    def prepare(self, batch: Batch) -> None:  # noqa: ARG002
        """Compute what depends on the trained teacher: a new fast copy of it, and the calibration of the latents."""
        self.teacher_rollout.forget_copy()
        if self.calibrated and self.compared:
            self._calibrate()

    def _calibrate(self) -> None:
        """Measure the calibration c_i of every compared latent on samples of the teacher."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, _CALIBRATION_STREAM))
        like = self.teacher.like
        # Drawn on the CPU, as all noise is, so that a seed means the same on every device.
        noise = self.teacher.noise(CALIBRATION_SAMPLES, generator=generator, leaves=True)
        inputs = self.teacher.draw_inputs(CALIBRATION_SAMPLES, generator=generator)
        costs = latent_weights(
            self.teacher,
            {name: value.to(like) for name, value in noise.items()},
            {name: value.to(like) for name, value in inputs.items()},
        )
        # Only normal latents have a cost; the losses of the others are in nats already.
        self.calibration = torch.stack([costs.get(name, torch.ones(())).to(like) for name in self.compared])
        self.notes["calibration"] = ", ".join(
            f"{name} {float(cost):.3g}" for name, cost in zip(self.compared, self.calibration, strict=True)
        )

    # ---------------------------------------------------------------- the losses

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the divergence of every node's distributions for each sample, ``[b]`` by name of the node."""
        batch = with_lengths(batch)
        noise = self.estimator.noise_rows(unpack_noise(batch) or self.draw_noise(n_samples(batch)))
        inputs = self.estimator.repeat(unpack_inputs(batch) or self.teacher.observed(batch, self.teacher.inputs()))
        if self.marginal:
            return {"marginal": marginal_divergence(self.teacher, self.student, noise, inputs)}
        rollout = PairedRollout(self.teacher, self.student, self._rollout_pair(batch, noise, inputs), noise, inputs)
        divergences = self.divergences(rollout.pair, self.student, latents=self.compared, lengths=batch.get("length"))
        terms = self.estimator.terms(divergences, rollout)
        # The costs are factors of the terms, since loss_weights are the lambdas that the user has set.
        for name, cost in zip(self.compared, self.calibration, strict=True):
            terms[name] = cost * terms[name]
        return terms

    def _rollout_pair(self, batch: Batch, noise: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Pair:
        """Return the traces of teacher and student, one row for each row of the noise."""
        elapsed = elapsed_share(self, self.latent_source.mixing)
        teacher_latents = self.latent_source.teacher_latents(self.paired, batch, elapsed)
        teacher_trace = self.teacher_rollout(noise, inputs)
        student_noise = noise if self.noise_map is None else self.noise_map(noise)
        student_trace = rollout_student(
            self.student,
            teacher_trace,
            student_noise,
            inputs,
            teacher_latents=self.estimator.repeat(teacher_latents),
            sampler=self.estimator.sampler,
        )
        return Pair(teacher_trace, student_trace)


def _make_noise_map(name: str, teacher: Graph, student: Graph, paired: list[str]) -> NoiseMap | None:
    """Return the map from the teacher's noise to that of the student's unpaired latents; None if there may be none."""
    if validation.choice("noise_map", name, NOISE_MAPS) == "none":
        return None
    return NoiseMap(teacher, student, paired, learned=name == "learned")


def _needs_estimator(latent_source: LatentSource, student: Graph) -> bool:
    """Return whether gradients of the targets' divergences have to be propagated through discrete latents."""
    has_discrete_latent = any(node.family.is_discrete for node in student.latents().values())
    return has_discrete_latent and not isinstance(latent_source, TeacherLatents)


class SemiAuxiliaryReport(ReportExtras):
    """Adds a control to the report: a student that is trained by local distillation.

    Args:
        distiller: The method.
    """

    def __init__(self, distiller: SemiAuxiliary) -> None:
        self.distiller = distiller

    @property
    def controls(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of local distillation; empty if it is impossible, or equal to the method itself."""
        distiller = self.distiller
        # Without learned latents the losses are the same with either model's latents.
        has_learned_latent = any(node.is_learned for node in distiller.student.latents().values())
        is_local = isinstance(distiller.latent_source, TeacherLatents)
        if distiller.noise_map is not None or is_local or not has_learned_latent:
            return {}
        return {"local": {"latents_from": "teacher", "marginal": False}}
