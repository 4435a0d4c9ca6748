"""Distillation of deep directed graphical models in their semi-auxiliary form.

Chen, Liang, Zeng, Yao & Shao 2023, "A unified knowledge distillation framework for deep directed graphical models".
Every latent z_i is a function of its parents and of noise eps_i without parameters. Teacher and student are rolled out
on the same noise, the student on its own latents; wherever a target feeds a later node, it is the teacher's sample.
With the distributions p_i of teacher and q_i of student for node i given its parents,

    surrogate loss    L_sd  = sum over targets i of E d(p_i, q_i)
    latent losses     L_z,i = E d_z(p_i, q_i)
    L                 = L_sd + sum over latents i of lambda_i L_z,i

For d = KL the surrogate bounds the divergence of the targets' marginals, and the gap is that of the noise given the
targets. Every node is a term of its own, named like the node. Where the marginals can be computed exactly, their
divergence can be descended itself, as the one term ``marginal``.
"""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.abilities import FoldsNorms, HasLengths
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, n_samples
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.randomness import mix_seed
from kdzoo.core.report_extras import ReportExtras
from kdzoo.data.derived.noise import NoisyData, with_lengths
from kdzoo.distillers.generative.rollout import inputs_in, named, named_inputs, noise_in, pair_losses
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import DIVERGENCES, Graph
from kdzoo.graphical_models.calibration import latent_weights
from kdzoo.graphical_models.discrete import gumbel_softmax, reinforce, straight_through
from kdzoo.graphical_models.divergences import BOUND_PRESERVING
from kdzoo.graphical_models.enumeration import enumerated_divergences
from kdzoo.graphical_models.fused_copy import fused_copy, has_fast_bfloat16
from kdzoo.graphical_models.marginal import marginal_divergence
from kdzoo.graphical_models.noise_map import NoiseMap
from kdzoo.graphical_models.paired import Pair, check_compatible, rollout_student, rollout_teacher
from kdzoo.graphical_models.tasks import hard_sample

LATENT_SOURCES = ("student", "teacher", "mixed")
NOISE_MAPS = ("none", "learned", "first")
ESTIMATORS = ("none", "straight_through", "gumbel", "reinforce", "enumerate")
CALIBRATION_SAMPLES = 256


class SemiAuxiliary(Distiller):
    """Match the distributions of all nodes on the same noise.

    Args:
        student: a graphical model with the teacher's targets and latents.
        teacher: a graphical model.
        latents_from: whose latents the student's nodes are given: ``student`` (the method), ``teacher`` (local distillation,
            every node by itself), or ``mixed``: the teacher's for a share of the samples that falls from 1 to 0.
        mixing: share of the training after which no sample takes the teacher's latents, in (0, 1]; of ``mixed`` only.
        divergence: of targets: ``kl``, ``w2``, ``mmd`` or ``logits`` (:mod:`kdzoo.graphical_models.divergences`); the last has
            no bound, of which a warning tells.
        latent_divergence: of latents; ``auto`` takes w2 for continuous and kl for discrete ones.
        reduction: of a latent's divergence over its elements, ``sum`` or ``mean``; that of targets is a sum.
        latent_weight: lambda of all latents that ``loss_weights`` does not name, finite and >= 0.
        calibrated: whether the loss of a latent is also multiplied by what an error in it costs in the targets, so that
            lambda = 1 counts it in nats of the targets (:mod:`kdzoo.graphical_models.calibration`).
        estimator: of the gradient of targets through the student's discrete latents (:mod:`kdzoo.graphical_models.discrete`):
            ``none`` leaves these to their own losses, ``straight_through``, ``gumbel``, ``reinforce``, ``enumerate``.
            Models without them, and with the teacher's latents, have no use for it: it is then ``none``.
        temperature: of ``gumbel``, > 0.
        samples: noises for each sample of a batch, >= 2; of ``reinforce`` only.
        marginal: whether to descend the exact divergence of the targets' marginals instead, for models that are linear
            and normal or whose latents are few bits or classes (:mod:`kdzoo.graphical_models.marginal`).
        noise_map: how latents without a partner of their shape get their noise: ``none`` refuses them, ``learned`` maps
            the noise of the teacher's unpaired latents by a trained semi-orthogonal matrix, ``first`` takes its first
            values (:mod:`kdzoo.graphical_models.noise_map`).
        inputs: where conditions come from: ``noise`` draws them, ``data`` takes those of the training data.
        fast_teacher: whether a copy of the teacher is rolled out, its norms folded into its convolutions (models that
            have ``fold_norms()``), its nets in bfloat16 on devices that are faster with it (CUDA, CPUs with AMX or AVX512
            for it): about the same values (:mod:`kdzoo.graphical_models.fused_copy`).
        seed: of the noise, >= 0.
        **options: see :class:`kdzoo.Distiller`; the terms are named like the nodes.

    Raises:
        ConfigError: an argument is out of its range, or the models do not fit each other.
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
        self.latents_from = validation.choice("latents_from", latents_from, LATENT_SOURCES)
        self.mixing = validation.number("mixing", validation.positive("mixing", mixing), 0.0, 1.0)
        self.divergence = validation.choice("divergence", divergence, tuple(DIVERGENCES))
        self.latent_divergence = validation.choice("latent_divergence", latent_divergence, ("auto", *DIVERGENCES))
        self.reduction = validation.choice("reduction", reduction, ("sum", "mean"))
        self.calibrated = validation.flag("calibrated", calibrated)
        self.estimator = validation.choice("estimator", estimator, ESTIMATORS)
        if latents_from == "teacher" or not any(node.family.is_discrete for node in student.latents().values()):
            self.estimator = "none"  # there is nothing whose gradient it would estimate
        samples = validation.integer("samples", samples, 2)
        self.samples = samples if self.estimator == "reinforce" else 1
        samplers = {"straight_through": straight_through, "gumbel": gumbel_softmax(temperature)}
        self.sampler = samplers.get(self.estimator, hard_sample)
        self.marginal = validation.flag("marginal", marginal)
        if latents_from == "mixed" and (marginal or self.estimator in ("reinforce", "enumerate")):
            other = "marginal=true" if marginal else f"estimator={estimator}"
            raise ConfigError(f"latents_from must be student or teacher with {other}, got 'mixed'")
        self.inputs = validation.choice("inputs", inputs, ("noise", "data"))
        self.fast_teacher = validation.flag("fast_teacher", fast_teacher)
        self._fast: list[Graph] = []  # a list, so that it is no submodule and in no checkpoint
        self.seed = validation.integer("seed", seed, 0)
        noise_map = validation.choice("noise_map", noise_map, NOISE_MAPS)
        self.paired = check_compatible(teacher, student, allow_unpaired=noise_map != "none")
        self.noise_map = None
        if noise_map != "none":
            self.noise_map = NoiseMap(teacher, student, self.paired, learned=noise_map == "learned")
            if latents_from != "student":
                raise ConfigError(f"latents_from must be student where noise is mapped, got {latents_from!r}")
        learned = [name for name in self.paired if student.latents()[name].is_learned]
        self.compared = [] if marginal else learned
        default = validation.number("latent_weight", latent_weight, 0.0)
        self.loss_weights = {**dict.fromkeys(self.compared, default), **self.loss_weights}
        for parameter in student.inference_parameters():
            parameter.requires_grad_(False)  # samples do not depend on them
        self._warn_of_bounds()
        self.report_extras = SemiAuxiliaryReport(self)
        self.register_buffer("calibration", torch.ones(len(self.compared)))

    def _warn_of_bounds(self) -> None:
        """Say which choice takes from the surrogate loss that it bounds the divergence of the marginals."""
        reasons = []
        if self.divergence not in BOUND_PRESERVING:
            reasons.append(f"divergence={self.divergence} of targets {', '.join(self.student.targets())}")
        if self.latents_from == "mixed":
            reasons.append("latents_from=mixed while some samples take the teacher's latents")
        if self.estimator == "gumbel":
            reasons.append("estimator=gumbel, whose latents are relaxed")
        if reasons:
            self.notes["bound"] = f"none on the divergence of the marginals: {'; '.join(reasons)}"
            warnings.warn(f"the surrogate loss is no bound: {'; '.join(reasons)}", stacklevel=3)

    # ---------------------------------------------------------------- the transfer set

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return noise, with conditions that are drawn or those of the data."""
        lengths = data.lengths if isinstance(data, HasLengths) else None

        def draw(n: int, generator: torch.Generator) -> dict[str, Tensor]:
            drawn = named(self._noise(n, generator))
            drawn["share"] = torch.rand(n, generator=generator)
            if self.inputs == "noise":
                drawn |= named_inputs(self.teacher.draw_inputs(n, generator=generator))
            if lengths is not None and self.inputs == "noise":
                drawn["length"] = lengths[torch.randint(len(lengths), (n,), generator=generator)]
            return drawn

        return NoisyData(data, draw, noise_only=self.inputs == "noise", seed=self.seed)  # type: ignore[arg-type]

    def prepare(self, batch: Batch) -> None:  # noqa: ARG002
        """Forget the copy of the teacher, and measure what an error in each latent costs in the targets."""
        self._fast = []
        if not (self.calibrated and self.compared):
            return
        generator = torch.Generator().manual_seed(mix_seed(self.seed, 2))
        like = self.teacher.like
        noise = self.teacher.noise(CALIBRATION_SAMPLES, generator=generator, leaves=True)
        given = self.teacher.draw_inputs(CALIBRATION_SAMPLES, generator=generator)
        costs = latent_weights(
            self.teacher, {k: v.to(like) for k, v in noise.items()}, {k: v.to(like) for k, v in given.items()}
        )
        self.calibration = torch.stack([costs.get(name, torch.ones(())).to(like) for name in self.compared])
        self.notes["calibration"] = ", ".join(
            f"{name} {float(cost):.3g}" for name, cost in zip(self.compared, self.calibration, strict=True)
        )

    def _noise(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw the noise of a batch of n samples, [n, ...], or [n, samples, ...] where each has several."""
        noise = self.teacher.noise(n * self.samples, generator=generator, leaves=self.marginal)
        if self.samples == 1:
            return noise
        return {name: value.unflatten(0, (n, self.samples)) for name, value in noise.items()}

    # ---------------------------------------------------------------- the losses

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the divergence of every node's distributions, for each sample."""
        batch = with_lengths(batch)
        noise = noise_in(batch) or self._noise(n_samples(batch))
        inputs = inputs_in(batch) or self.teacher.observed(batch, self.teacher.inputs())
        lengths, teachers = batch.get("length"), self._teachers(batch)
        if self.samples > 1:
            noise = {name: value.flatten(0, 1) for name, value in noise.items()}
            inputs, teachers = self._repeated(inputs), self._repeated(teachers)
        if self.marginal:
            return {"marginal": marginal_divergence(self.teacher, self.student, noise, inputs)}
        trace = rollout_teacher(self._rolled_out(), noise, inputs)
        own = noise if self.noise_map is None else self.noise_map(noise)
        pair = Pair(
            trace, rollout_student(self.student, trace, own, inputs, teacher_latents=teachers, sampler=self.sampler)
        )
        terms = pair_losses(
            pair,
            self.student,
            divergence=self.divergence,
            latent_divergence=self.latent_divergence,
            reduction=self.reduction,
            latents=self.compared,
            lengths=lengths,
        )
        if self.estimator == "reinforce":
            targets = {name: terms.pop(name) for name in self.student.targets()}
            terms = {name: value.reshape(-1, self.samples).mean(1) for name, value in terms.items()}
            terms = {**reinforce(targets, pair, self.teacher, self.student, samples=self.samples), **terms}
        elif self.estimator == "enumerate":
            terms |= enumerated_divergences(self.teacher, self.student, trace, noise, inputs, kind=self.divergence)
        for name, cost in zip(self.compared, self.calibration, strict=True):
            terms[name] = cost * terms[name]
        return terms

    def _rolled_out(self) -> Graph:
        """Return the model that the student imitates: the teacher, or its fast copy on the same device."""
        like = self.teacher.like
        if not self.fast_teacher:
            return self.teacher
        if not self._fast or (self._fast[0].like.device, self._fast[0].like.dtype) != (like.device, like.dtype):
            lowered = has_fast_bfloat16(like.device)
            self._fast = [fused_copy(self.teacher, bfloat16=lowered)]
            norms = "norms folded" if isinstance(self.teacher, FoldsNorms) else "no norms to fold"
            dtype = torch.bfloat16 if lowered else like.dtype
            self.notes["fast_teacher"] = f"{norms}, {dtype} on {like.device.type}"
        return self._fast[0]

    def _repeated(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values [b, ...] once for each noise of a sample; those that are no tensors stay."""
        return {
            name: value.repeat_interleave(self.samples, 0) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }

    def _teachers(self, batch: Batch) -> dict[str, Tensor | bool]:
        """Return by latent whether, or for which samples, the student is given the teacher's value."""
        if self.latents_from == "student":
            return {}
        if self.latents_from == "teacher":
            return dict.fromkeys(self.paired, True)
        chance = batch.get("share", torch.rand(n_samples(batch)).to(batch["input"].device))
        return dict.fromkeys(self.paired, chance < self._share())

    def _share(self) -> float:
        """Return the share of samples that take the teacher's latents at this step; 0 where nothing is trained."""
        if not self.training or self._trainer is None:
            return 0.0
        steps = float(self.trainer.estimated_stepping_batches)
        return max(0.0, 1 - self.trainer.global_step / (self.mixing * steps))


class SemiAuxiliaryReport(ReportExtras):
    """The control that is distilled node by node.

    Args:
        distiller: The method.
    """

    def __init__(self, distiller: SemiAuxiliary) -> None:
        self.distiller = distiller

    @property
    def controls(self) -> Mapping[str, Mapping[str, Any]]:
        """Local distillation, if every latent has a partner and the method itself is not local."""
        method = self.distiller
        has_learned_latent = any(node.is_learned for node in method.student.latents().values())
        if method.noise_map is not None or method.latents_from == "teacher" or not has_learned_latent:
            return {}
        return {"local": {"latents_from": "teacher", "marginal": False}}
