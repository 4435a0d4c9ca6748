"""Distillation of deep directed graphical models in their semi-auxiliary form.

Chen, Liang, Zeng, Yao & Shao 2023, "A unified knowledge distillation framework for deep directed graphical models".
Every latent z_i is a function of its parents and of noise eps_i whose distribution has no parameters. Teacher and
student are rolled out on the same noise, the student on its own latents; wherever a target feeds a later node, it is
the teacher's sample. With the distributions p_i of the teacher and q_i of the student for node i given its parents,

    surrogate loss    L_sd  = sum over targets i of E d(p_i, q_i)
    latent losses     L_z,i = E d_z(p_i, q_i)
    L                 = L_sd + sum over latents i of lambda_i c_i L_z,i

with the calibration c_i of :mod:`kdzoo.graphical_models.calibration`. For d = KL the surrogate loss bounds the
divergence of the targets' marginals from above, and the gap is the divergence of the noise given the targets. Every
node is a term of its own with the node's name. Where the marginals can be computed exactly, their divergence can be
minimised itself, as the only term ``marginal``.
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
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Graph
from kdzoo.graphical_models.calibration import latent_weights
from kdzoo.graphical_models.marginal import marginal_divergence
from kdzoo.graphical_models.noise_map import NoiseMap
from kdzoo.graphical_models.paired import Pair, check_compatible, rollout_student

NOISE_MAPS = ("none", "learned", "first")
# Noise samples for the calibration. For a linear teacher the weight is then within 15 % of the exact one (a test); the
# results hardly depend on it, since weights of 0.1, 1 and 10 differ by 5 % of the Frechet distance.
CALIBRATION_SAMPLES = 256
# Its noise is another stream of random numbers than that of the training, which has the same seed.
_CALIBRATION_STREAM = 2


class SemiAuxiliary(Distiller):
    """Match the distributions of all nodes on the same noise.

    Args:
        student: A graphical model with the teacher's targets and latents.
        teacher: A graphical model.
        latents_from: Whose latents the student's nodes read (:mod:`kdzoo.distillers.generative.latent_sources`):
            ``student`` (the method), ``teacher`` (local distillation, every node alone), or ``mixed``: the teacher's
            for a share of the samples that falls from 1 to 0.
        mixing: Share of the training after which no sample takes the teacher's latents, in (0, 1]; of ``mixed`` only.
        divergence: Divergence of targets, ``kl``, ``w2``, ``mmd`` or ``logits``
            (:class:`kdzoo.distillers.generative.node_divergences.NodeDivergences`). The last one loses the bound, of
            which a warning informs.
        latent_divergence: Divergence of latents; ``auto`` takes w2 for continuous and kl for discrete ones.
        reduction: Of a latent's divergence over its elements, ``sum`` or ``mean``; that of targets is a sum.
        latent_weight: Lambda of all latents that ``loss_weights`` does not name, finite and >= 0.
        calibrated: Whether the loss of a latent is also multiplied by what an error in it costs in the targets, so that
            lambda = 1 counts it in nats of the targets (:mod:`kdzoo.graphical_models.calibration`).
        estimator: How gradients pass the student's discrete latents (:mod:`kdzoo.distillers.generative.estimators`):
            ``none`` leaves the networks before them to the latents' own losses, ``straight_through``, ``gumbel``,
            ``reinforce``, ``enumerate``. It has no effect on models without discrete latents, with the teacher's
            latents, or with ``marginal``.
        temperature: Of ``gumbel``, > 0.
        samples: Rollouts of each sample of a batch, >= 2; of ``reinforce`` only.
        marginal: Whether to minimise the exact divergence of the targets' marginals instead, for models that are linear
            and normal or whose latents are few bits or classes (:mod:`kdzoo.graphical_models.marginal`).
        noise_map: How latents without a partner of their shape get their noise: ``none`` rejects them, ``learned`` maps
            the noise of the teacher's unpaired latents by a trained semi-orthogonal matrix, ``first`` takes its first
            values (:mod:`kdzoo.graphical_models.noise_map`).
        inputs: Where the values of inputs come from: ``noise`` draws them, ``data`` takes those of the training data.
        fast_teacher: Whether a copy of the teacher is rolled out, with its norms folded into its convolutions (models
            that can do that) and its networks in bfloat16 on devices that are faster with it (CUDA, CPUs with AMX or
            AVX512 for it): about the same values (:mod:`kdzoo.graphical_models.fused_copy`).
        seed: Seed of the noise, >= 0.
        **options: See :class:`kdzoo.Distiller`; the terms have the names of the nodes.

    Raises:
        ConfigError: If an argument is out of its range, or the models do not fit each other.

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
        if self.marginal or not _passes_discrete_latents(self.latent_source, student):
            self.estimator = GradientEstimator()  # there is no gradient that another one could estimate
        self._check_latent_source(latents_from, estimator)
        self._set_up_latents(validation.number("latent_weight", latent_weight, 0.0))
        self._warn_of_missing_bound()
        self.report_extras = SemiAuxiliaryReport(self)

    def _check_latent_source(self, latents_from: str, estimator: str) -> None:
        """Reject sources of latents that do not go together with other settings."""
        # The teacher's latents have no value that the student's unpaired latents could take.
        if self.noise_map is not None and type(self.latent_source) is not LatentSource:
            raise ConfigError(f"latents_from must be student where noise is mapped, got {latents_from!r}")
        allows_mixed = self.estimator.allows_mixed_latents and not self.marginal
        if isinstance(self.latent_source, MixedLatents) and not allows_mixed:
            other = "marginal=true" if self.marginal else f"estimator={estimator}"
            raise ConfigError(f"latents_from must be student or teacher with {other}, got {latents_from!r}")

    def _set_up_latents(self, default_weight: float) -> None:
        """Choose the latents that have a loss, and their weights; freeze what infers latents from data."""
        learned = [name for name in self.paired if self.student.latents()[name].is_learned]
        # The marginal is a term of the whole model; latents are not compared then.
        self.compared = [] if self.marginal else learned
        self.loss_weights = {**dict.fromkeys(self.compared, default_weight), **self.loss_weights}
        # A buffer, so that it moves with the model and a checkpoint contains it.
        self.register_buffer("calibration", torch.ones(len(self.compared)))
        for parameter in self.student.inference_parameters():
            parameter.requires_grad_(False)  # samples do not depend on them

    def _warn_of_missing_bound(self) -> None:
        """Warn of settings with which the surrogate loss does not bound the divergence of the marginals."""
        strategies = (self.latent_source, self.estimator)
        reasons = [self.divergences.missing_bound(self.student), *(strategy.missing_bound for strategy in strategies)]
        listed = "; ".join(filter(None, reasons))
        if listed:
            self.notes["bound"] = f"none on the divergence of the marginals: {listed}"
            warnings.warn(
                f"the surrogate loss does not bound the divergence of the marginals: {listed}",
                stacklevel=3,  # the line that builds the distiller
            )

    # ---------------------------------------------------------------- the transfer set

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return noise, with inputs that are drawn or those of the data."""
        lengths = data.lengths if isinstance(data, HasLengths) else None

        def draw(n: int, generator: torch.Generator) -> dict[str, Tensor]:
            # The order of the draws fixes the noise of a seed, and thereby the published results.
            drawn = pack_noise(self.draw_noise(n, generator=generator))
            drawn[LATENT_CHOICE] = torch.rand(n, generator=generator)
            if self.draws_inputs:
                drawn |= pack_inputs(self.teacher.draw_inputs(n, generator=generator))
            if self.draws_inputs and lengths is not None:
                drawn["length"] = lengths[torch.randint(len(lengths), (n,), generator=generator)]
            return drawn

        return NoisyData(data, draw, noise_only=self.draws_inputs, seed=self.seed)  # type: ignore[arg-type]

    def draw_noise(self, n: int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw the noise of a batch of n samples by node; see :meth:`.GradientEstimator.draw_noise`."""
        # The marginal may need samples of the teacher, that is noise of targets that no node depends on.
        return self.estimator.draw_noise(self.teacher, n, generator=generator, leaves=self.marginal)

    def prepare(self, batch: Batch) -> None:  # noqa: ARG002
        """Forget the copy of the teacher, and measure what an error in each latent costs in the targets."""
        self.teacher_rollout.forget_copy()
        if not (self.calibrated and self.compared):
            return
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
        # Only normal latents have a cost; the losses of others are in nats already.
        self.calibration = torch.stack([costs.get(name, torch.ones(())).to(like) for name in self.compared])
        self.notes["calibration"] = ", ".join(
            f"{name} {float(cost):.3g}" for name, cost in zip(self.compared, self.calibration, strict=True)
        )

    # ---------------------------------------------------------------- the losses

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the divergence of every node's distributions for each sample."""
        batch = with_lengths(batch)
        noise = self.estimator.noise_rows(unpack_noise(batch) or self.draw_noise(n_samples(batch)))
        inputs = self.estimator.repeat(unpack_inputs(batch) or self.teacher.observed(batch, self.teacher.inputs()))
        if self.marginal:
            return {"marginal": marginal_divergence(self.teacher, self.student, noise, inputs)}
        rollout = PairedRollout(self.teacher, self.student, self._roll_out(batch, noise, inputs), noise, inputs)
        divergences = self.divergences(rollout.pair, self.student, latents=self.compared, lengths=batch.get("length"))
        terms = self.estimator.terms(divergences, rollout)
        # In the terms, not in loss_weights: these stay the lambdas that the user set.
        for name, cost in zip(self.compared, self.calibration, strict=True):
            terms[name] = cost * terms[name]
        return terms

    def _roll_out(self, batch: Batch, noise: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Pair:
        """Return the traces of teacher and student, one row for each row of the noise."""
        elapsed = elapsed_share(self, self.latent_source.mixing)
        teacher_latents = self.latent_source.teacher_latents(self.paired, batch, elapsed)
        teacher_trace = self.teacher_rollout(noise, inputs)
        student_trace = rollout_student(
            self.student,
            teacher_trace,
            noise if self.noise_map is None else self.noise_map(noise),  # mapped from the teacher's
            inputs,
            teacher_latents=self.estimator.repeat(teacher_latents),
            sampler=self.estimator.sampler,
        )
        return Pair(teacher_trace, student_trace)


def _make_noise_map(name: str, teacher: Graph, student: Graph, paired: list[str]) -> NoiseMap | None:
    """Return the map of the noise of latents without a partner; None if all latents must have one."""
    if validation.choice("noise_map", name, NOISE_MAPS) == "none":
        return None
    return NoiseMap(teacher, student, paired, learned=name == "learned")


def _passes_discrete_latents(source: LatentSource, student: Graph) -> bool:
    """Return whether the gradient of a target's divergence has to pass discrete latents of the student."""
    own_latents = not isinstance(source, TeacherLatents)
    return own_latents and any(node.family.is_discrete for node in student.latents().values())


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
        # Without learned latents both methods are the same.
        has_learned_latent = any(node.is_learned for node in method.student.latents().values())
        is_local = isinstance(method.latent_source, TeacherLatents)
        if method.noise_map is not None or is_local or not has_learned_latent:
            return {}
        return {"local": {"latents_from": "teacher", "marginal": False}}
