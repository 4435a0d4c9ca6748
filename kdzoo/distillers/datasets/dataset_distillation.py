"""Dataset distillation: a data set becomes a few examples by gradients through whole trainings.

Wang, Zhu, Torralba & Efros 2018, "Dataset distillation", algorithm 1. Networks with random initial weights w_0 are
trained for N steps on the synthetic examples (x~, y~) with step sizes eta_k,

    w_{k+1} = w_k - eta_k grad_w l(x~, y~, w_k),

and the set is optimized by the gradient of their loss on real data, L = l(x, y, w_N), with respect to x~, y~ and eta.
With v_N = grad L(w_N) the gradient is, for k = N-1 .. 0,

    dL/deta_k = -<v_{k+1}, g_k>,   dL/dx~ += -eta_k (dg_k/dx~)^T v_{k+1},   v_k = (I - eta_k H_k) v_{k+1},

where g_k and H_k are gradient and Hessian of l(x~, y~, .) at w_k; y~ has the same recursion as x~. It is implemented in
:mod:`kdzoo.functional.unroll`. K networks of each architecture are trained at once, with weights ``[K, P]``.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.base import Distiller, ParameterGroup
from kdzoo.core.batch import Batch, labelled_positions, labelled_samples, labels
from kdzoo.core.data_module import BatchData
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.report_extras import ReportExtras
from kdzoo.dataset_distillation import SyntheticSet, files, synthetic_set_plots
from kdzoo.dataset_distillation.coreset import coreset
from kdzoo.dataset_distillation.initial_images import INITIAL_IMAGES, set_real_images
from kdzoo.dataset_distillation.inner_training import InnerTraining
from kdzoo.dataset_distillation.pool import train_pools
from kdzoo.dataset_distillation.protocols import protocol_matrix
from kdzoo.dataset_distillation.unseen_architecture import unseen_architecture
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional import hard_target_ce, soft_target_kl
from kdzoo.storage import atomic

# Networks that are trained for validation after an epoch. The test uses 20; validation runs after each epoch, and five
# already show whether the set improves.
VALIDATION_INITS = 5
# Networks in each cell of the matrix of other training protocols, which a run draws as an overview. Each cell trains
# its networks for up to 300 steps.
MATRIX_INITS = 5
# Validation samples on which the matrix is measured: the standard error of an accuracy is then about one point.
VALIDATION_SAMPLES = 2000
# Learning rates as multiples of the optimizer's, by name of the parameter. With Adam at 1e-3, one update moves a pixel
# by about 0.05, which is small for images of standard deviation 1, a label by 0.02, and a step size by a tenth of its
# initial 0.05. One rate for all three would leave the images almost unchanged or make the step sizes jump.
RATES = {"images": 50.0, "labels": 20.0, "step_sizes": 5.0}


class DatasetDistillation(Distiller):
    """Learn a synthetic data set on which new networks can be trained to a high accuracy.

    Args:
        student: The synthetic set; it also names the inner networks, which are trained on it.
        teacher: A classifier trained on all data. The report compares with it, and the term ``teacher`` takes its soft
            labels for the real data. None trains with the labels of the data alone.
        start: Initial images: ``noise``, or a selection of the real data, one of
            ``kdzoo.dataset_distillation.selection.SELECTIONS``.
        inits: Number K of networks of each inner network in an optimizer step, >= 1. Their losses are averaged, and so
            are those of several inner networks.
        lengths: ``[least, most]``: the number of inner steps is drawn uniformly from these, both included; None always
            takes the number of the student.
        adam_share: Probability in [0, 1) with which the networks of an optimizer step are trained by Adam at a random
            step size instead of the set's own schedule. It makes sets that can also be used with other optimizers.
        adam_rates: ``[least, most]`` of that step size, > 0, drawn log-uniformly.
        window: The gradient goes back through this many last inner steps only, >= 1; None takes all of them.
        engine: How the gradient is computed: ``full``, ``reverse``, ``segments``, ``jvp`` or ``auto``; see
            :mod:`kdzoo.functional.unroll`.
        rates: Learning rates of ``images``, ``labels`` and ``step_sizes`` as multiples of the optimizer's, >= 0.
        max_norm: Norm of the whole gradient, > 0, above which it is scaled down to this norm. The trainer's
            ``gradient_clip_val`` takes precedence.
        temperature: Temperature of the term ``teacher``, > 0.
        protocols: Whether the report shows the accuracy of networks that are trained on the set with other optimizers,
            more steps or one-hot labels, measured on validation data.
        baselines: Selections of real images that the report compares with, each with its best constant step size.
        seed: Seed of initial weights and numbers of steps, >= 0.
        **options: See :class:`kdzoo.Distiller`; the terms are ``real``, ``teacher`` and ``accuracy``.

    Attributes:
        epoch_images: Images of the first example of each class after each epoch.

    Raises:
        ConfigError: An argument is out of its range, or an inner network is not twice differentiable.
        NonFiniteLossError: An inner training or the gradient diverged; the last set for which they did not is written
            next to the checkpoint.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        # Without a weight for ``teacher`` the data are labelled, as in the paper. ``accuracy`` has no gradient: it is
        # logged next to the losses, and its weight only counts in the sum ``val/loss``.
        terms={"real": 1.0, "teacher": 0.0, "accuracy": 0.0},
        label_terms=frozenset({"real", "accuracy"}),
        paper="Wang, Zhu, Torralba & Efros 2018, Dataset distillation, algorithm 1",
        bibtex="""@article{wang2018dataset,
  title = {Dataset distillation},
  author = {Wang, Tongzhou and Zhu, Jun-Yan and Torralba, Antonio and Efros, Alexei A.},
  journal = {arXiv:1811.10959},
  year = {2018}
}""",
        teacher="optional",
        student_kinds=("synthetic_set",),
        exempt={"accelerator": "the inner training is checked after every step, to name where it diverged"},
        # All samples labelled, since the losses use no others; the baselines would only take time.
        contract_settings={"data.labels_per_class": None, "distiller.baselines": []},
    )
    student: SyntheticSet

    def __init__(
        self,
        student: SyntheticSet,
        teacher: nn.Module | None = None,
        *,
        start: str = "noise",
        inits: int = 4,
        lengths: Sequence[int] | None = None,
        adam_share: float = 0.0,
        adam_rates: Sequence[float] = (0.001, 0.03),
        window: int | None = None,
        engine: str = "auto",
        rates: Mapping[str, float] | None = None,
        max_norm: float = 1.0,
        temperature: float = 1.0,
        protocols: bool = True,
        baselines: Sequence[str] = (),
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.rates = _rates(rates or {})
        super().__init__(student, teacher, **options)
        if teacher is None and self.loss_weights["teacher"]:
            raise ConfigError(f"loss_weights.teacher={self.loss_weights['teacher']} needs a teacher, got teacher=None")
        self.start = validation.choice("start", start, INITIAL_IMAGES)
        self.inner_training = InnerTraining(
            student,
            inits=inits,
            lengths=lengths,
            adam_share=adam_share,
            adam_rates=adam_rates,
            window=window,
            engine=engine,
            seed=seed,
            notes=self.notes,
        )
        self.max_norm = validation.positive("max_norm", max_norm)
        self.temperature = validation.positive("temperature", temperature)
        self.protocols = validation.flag("protocols", protocols)
        # The first of INITIAL_IMAGES is noise, which is not a selection.
        self.baseline_names = [validation.choice("baselines", name, INITIAL_IMAGES[1:]) for name in baselines]
        self.seed = seed
        self.epoch_images: list[Tensor] = []
        self._last_finite: dict[str, Tensor] = {}
        self._has_seen_data = False
        self.validation_samples: tuple[Tensor, Tensor] | None = None
        self.report_extras = DatasetDistillationReport(self)

    # ---------------------------------------------------------------- before the training

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Train the pools of the inner networks, set the initial images, and return the data unchanged.

        With a plain Lightning trainer and a data module of kdzoo, ``prepare`` calls it.

        Raises:
            DataError: A class has fewer samples than the selection of initial images needs.
        """
        inputs, targets = labelled_samples(data.train_eval_dataloader())  # type: ignore[attr-defined]
        train_pools(self.student.inner_networks, inputs, targets, seed=self.seed)
        validation_batches = list(data.val_dataloader())
        self.validation_samples = labelled_samples(validation_batches) if validation_batches else None
        if self.start != "noise":
            set_real_images(self.student, self.start, inputs, targets, seed=self.seed)
        self._has_seen_data = True
        return data

    def prepare(self, batch: Batch) -> None:  # noqa: ARG002 - the check uses the synthetic images
        """Reject an inner network whose loss is not twice differentiable; call ``transfer_set`` if that was not done.

        Raises:
            ConfigError: An inner network is not twice differentiable, or initial images or pools need data that cannot
                be read from here.
        """
        self.inner_training.check_twice_differentiable()
        # A run calls ``transfer_set`` itself, and its dry run before that has no trainer.
        if self._trainer is None or self._has_seen_data:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, BatchData):
            self.transfer_set(data)
        elif self.start != "noise" or any(
            inner_network.pool_size for inner_network in self.student.inner_networks.values()
        ):
            raise ConfigError(f"start={self.start} and pools need the data first: call transfer_set(data) before fit")

    # ---------------------------------------------------------------- the loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses on real data of networks that are trained on the set, averaged over these networks.

        Returns:
            ``real``, the cross entropy of each labelled sample; ``accuracy``, the share of the networks that classify
            it correctly; and, if it has a weight, ``teacher``, T^2 KL(teacher || network) of each sample.
        """
        terms: dict[str, list[Tensor]] = {}
        for name, weights in self.networks().items():
            logits = self.student.inner_networks[name].logits(weights, batch["input"])
            for term, values in self._terms_of(logits, batch).items():
                terms.setdefault(term, []).append(values)
        return {term: torch.stack(values).mean(0) for term, values in terms.items()}

    def _terms_of(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the terms for the logits ``[K, batch, C]`` of K networks, averaged over the networks."""
        labelled, target = labelled_positions(batch), self.targets(batch)
        count, size = len(logits), int(labelled.sum())
        labelled_logits = logits[:, labelled]
        terms = {
            "real": hard_target_ce(labelled_logits.flatten(0, 1), target.repeat(count)).view(count, size).mean(0),
            "accuracy": (labelled_logits.detach().argmax(-1) == target).double().mean(0),
        }
        if self.loss_weights["teacher"]:  # otherwise the teacher, which the report needs anyway, is not run here
            teacher_logits = self.frozen_teacher.output(batch).expand(count, -1, -1)
            terms["teacher"] = soft_target_kl(logits, teacher_logits, temperature=self.temperature).mean(0)
        return terms

    def targets(self, batch: Batch) -> Tensor:
        """Return the classes ``[n]`` that networks trained on the set should predict for the labelled samples."""
        return labels(batch)

    def networks(self) -> dict[str, Tensor]:
        """Return the weights ``[K, P]`` of networks trained on the present set, by name of the inner network.

        In training their initial weights are a function of the seed and the optimizer step, so that all micro-batches
        of a step have the same; in validation they are held-out ones.

        Raises:
            NonFiniteLossError: A training diverged.
        """
        if self._trainer is None:  # a dry run, before there are pools of trained networks
            if self.training:
                return self.inner_training.train_sampled(0)
            return self.inner_training.train_held_out(0, VALIDATION_INITS, dry_run=True)
        try:
            if self.training:
                weights = self.inner_training.train_sampled(self.global_step)
            else:
                weights = self.inner_training.train_held_out(self.global_step, VALIDATION_INITS)
        except NonFiniteLossError as error:
            raise self._error_with_last_finite_set(str(error)) from error
        self._last_finite = {name: value.detach().clone() for name, value in self.student.named_parameters()}
        return weights

    # ---------------------------------------------------------------- the training

    def trainable(self) -> Iterator[nn.Parameter | ParameterGroup]:
        """Yield images, labels and step sizes as groups, each with its own factor on the learning rate."""
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in RATES}
        for name, parameter in self.student.named_parameters():
            if parameter.requires_grad:  # labels and step sizes may be fixed
                groups[name.partition(".")[0]].append(parameter)
        for name, parameters in groups.items():
            if parameters:
                yield ParameterGroup(params=parameters, lr_scale=self.rates[name])

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient to ``max_norm``, or as the trainer is configured.

        The gradient through many inner steps can be larger than usual by orders of magnitude. Without clipping, one
        such update can ruin the set.

        Raises:
            NonFiniteLossError: The gradient is not finite.
        """
        gradients = [parameter.grad for parameter in self.trainable_parameters() if parameter.grad is not None]
        # Clipping would turn an infinite gradient into NaN parameters.
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            raise self._error_with_last_finite_set(
                "the gradient through the inner steps is not finite; fewer steps may help"
            )
        self.clip_gradients(
            optimizer,
            gradient_clip_val=self.max_norm if gradient_clip_val is None else gradient_clip_val,
            gradient_clip_algorithm=gradient_clip_algorithm or "norm",
        )

    def _error_with_last_finite_set(self, message: str) -> NonFiniteLossError:
        """Write the last set on which all trainings stayed finite, and return an error that names its file."""
        finite_set = copy.deepcopy(self.student)
        finite_set.load_state_dict({**finite_set.state_dict(), **self._last_finite})
        path = files.write_npz(finite_set, Path(self.trainer.default_root_dir) / "last_good.npz")
        where = f"epoch {self.current_epoch}, step {self.global_step}"
        saved = "the last set on which all trainings stayed finite" if self._last_finite else "the initial set"
        return NonFiniteLossError(f"{where}: {message}; {saved} is in {path}")

    def on_train_epoch_end(self) -> None:
        """Record the images of this epoch, and draw them next to the checkpoint."""
        self.epoch_images.append(synthetic_set_plots.first_of_each_class(self.student).cpu())
        if self.trainer.is_global_zero:
            path = Path(self.trainer.default_root_dir) / "epochs" / f"epoch_{self.current_epoch + 1:03d}.png"
            synthetic_set_plots.plot_examples(self.student, path, title=f"After epoch {self.current_epoch + 1}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the images of all epochs, so that a resumed run draws the same history."""
        checkpoint["epoch_images"] = self.epoch_images

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with the images of earlier epochs."""
        self.epoch_images = checkpoint["epoch_images"]


class DatasetDistillationReport(ReportExtras):
    """Selections of real images as baselines, and figures of the learned images and of other training protocols.

    Args:
        distiller: The method.
    """

    def __init__(self, distiller: DatasetDistillation) -> None:
        self.distiller = distiller

    def baselines(self, data: pl.LightningDataModule) -> dict[str, nn.Module]:
        """Return selections of real images with their best step sizes, by name of the selection."""
        method = self.distiller
        inputs, targets = labelled_samples(data.train_eval_dataloader())  # type: ignore[attr-defined]
        return {
            name: coreset(method.student, name, inputs, targets, seed=method.seed) for name in method.baseline_names
        }

    def figures(self, folder: Path) -> list[Path]:
        """Draw how the images changed over the epochs, and the accuracy of networks trained by other protocols."""
        method = self.distiller
        paths = []
        if method.epoch_images:
            history = folder / "images_by_epoch.png"
            paths.append(synthetic_set_plots.plot_image_history(method.epoch_images, history))
        # On validation data: these figures may lead a user to change settings, which the test split must not decide.
        if method.protocols and method.validation_samples is not None:
            inputs, targets = (
                values[:VALIDATION_SAMPLES].to(method.student.images.device) for values in method.validation_samples
            )
            networks = {**method.student.inner_networks, **unseen_architecture(method.student)}
            matrix = protocol_matrix(method.student, networks, inputs, targets, inits=MATRIX_INITS)
            paths.append(synthetic_set_plots.plot_protocol_matrix(matrix, folder / "protocols.png"))
            atomic.write_text(folder / "protocols.md", matrix.to_markdown() + "\n")
        return paths


def _rates(given: Mapping[str, float]) -> dict[str, float]:
    """Return the default rates with the given ones in their place, after validating these."""
    for name, rate in given.items():
        validation.choice("rates", name, tuple(RATES))
        validation.number(f"rates.{name}", rate, least=0.0)
    return {**RATES, **given}
