"""Dataset distillation: a data set becomes a few examples by gradients through whole trainings.

Networks with weights w_0 drawn at random take N steps on the synthetic examples (x~, y~) with step sizes eta_k,

    w_{k+1} = w_k - eta_k grad_w l(x~, y~, w_k),

and the set is moved along the gradient of their loss on real data, L = l(x, y, w_N), with respect to x~, y~ and eta.
With v_N = grad L(w_N) the gradient is, for k = N-1 .. 0,

    dL/deta_k = -<v_{k+1}, g_k>,   dL/dx~ += -eta_k (dg_k/dx~)^T v_{k+1},   v_k = (I - eta_k H_k) v_{k+1},

where g_k and H_k are gradient and Hessian of l(x~, y~, .) at w_k; the same for y~.
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

VALIDATION_INITS = 5
MATRIX_INITS = 5
"""Networks in each cell of the matrix of other protocols, which a run draws for a first look."""
VALIDATION_SAMPLES = 2000
"""Validation samples by which other protocols are judged."""
RATES = {"images": 50.0, "labels": 20.0, "step_sizes": 5.0}


class DatasetDistillation(Distiller):
    """Learn a synthetic data set (:class:`kdzoo.dataset_distillation.SyntheticSet`) on which new networks train well.

    Args:
        student: the synthetic set; it names the networks that learn from it.
        teacher: a classifier that has seen all data: the report compares with it, and it may label the real data; None
            leaves the labels to the data.
        start: first images: ``noise``, or a selection of the real data (``kdzoo.dataset_distillation.selection.SELECTIONS``).
        inits: networks K of each inner network in an optimizer step, >= 1; their gradients are averaged, and those of
            several inner_networks too.
        lengths: [least, most]: the number of inner steps is drawn from these, inclusive; None takes the student's.
        adam_share: share of the optimizer steps, in [0, 1), in which the networks are trained by Adam at a random rate,
            whatever the set's own schedule: for sets that others will train on.
        adam_rates: [least, most] of that rate, > 0, log-uniform.
        window: the gradient goes back through the last so many inner steps only, >= 1; None takes all of them.
        engine: how the gradient is computed: ``full``, ``reverse``, ``segments``, ``jvp``, or ``auto``
            (see :mod:`kdzoo.functional.unroll`).
        rates: learning rates of images, labels and step sizes, as multiples of the optimizer's, >= 0.
        max_norm: of the whole gradient, > 0; greater ones are scaled down. The trainer's ``gradient_clip_val`` wins.
        temperature: of the term ``teacher``, > 0.
        protocols: whether to train networks on the set in other ways too and to draw how they fare on validation data.
        baselines: selections of real images that the report holds beside, each with its best step size.
        seed: of initial weights and lengths, >= 0.
        **options: see :class:`kdzoo.Distiller`.

    Raises:
        ConfigError: an argument is out of its range, or an inner network is not twice differentiable.
        NonFiniteLossError: an inner training diverged; the last set on which none did is kept beside the checkpoint.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
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
        self.inner = InnerTraining(
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
        self.compared = [validation.choice("baselines", name, INITIAL_IMAGES[1:]) for name in baselines]
        self.seed = seed
        self.epochs: list[Tensor] = []
        self._last_good: dict[str, Tensor] = {}
        self._is_set = False
        self.validation_samples: tuple[Tensor, Tensor] | None = None
        self.report_extras = DatasetDistillationReport(self)

    # ---------------------------------------------------------------- before the training

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Train the inner_networks' pools and set the first images; return the data, which are learned from as they are.

        A plain Lightning trainer with a data module of kdzoo does this by itself.
        """
        inputs, targets = labelled_samples(data.train_eval_dataloader())  # type: ignore[attr-defined]
        train_pools(self.student.inner_networks, inputs, targets, seed=self.seed)
        validation_batches = list(data.val_dataloader())
        self.validation_samples = labelled_samples(validation_batches) if validation_batches else None
        if self.start != "noise":
            set_real_images(self.student, self.start, inputs, targets, seed=self.seed)
        self._is_set = True
        return data

    def prepare(self, batch: Batch) -> None:  # noqa: ARG002 - the images are at hand
        """Refuse an inner network whose loss is not twice differentiable; in a plain Lightning training, look at the data."""
        self.inner.check_twice_differentiable()
        if self._trainer is None or self._is_set:
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
        """Return, on average over the networks trained on the set, what they lose on real data.

        ``real`` is their cross entropy with the labels, ``teacher`` T^2 KL(teacher || network), and ``accuracy`` the
        share of the networks that are right, which is measured, not descended.
        """
        terms: dict[str, list[Tensor]] = {}
        for name, weights in self.networks().items():
            logits = self.student.inner_networks[name].logits(weights, batch["input"])
            for term, values in self._of_networks(logits, batch).items():
                terms.setdefault(term, []).append(values)
        return {term: torch.stack(values).mean(0) for term, values in terms.items()}

    def _of_networks(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the terms for the logits [K, b, C] of K networks, each averaged over the networks."""
        labelled, target = labelled_positions(batch), self.targets(batch)
        count, size = len(logits), int(labelled.sum())
        seen = logits[:, labelled]
        terms = {
            "real": hard_target_ce(seen.flatten(0, 1), target.repeat(count)).view(count, size).mean(0),
            "accuracy": (seen.detach().argmax(-1) == target).double().mean(0),
        }
        if self.loss_weights["teacher"]:
            taught = self.frozen_teacher.output(batch).expand(count, -1, -1)
            terms["teacher"] = soft_target_kl(logits, taught, temperature=self.temperature).mean(0)
        return terms

    def targets(self, batch: Batch) -> Tensor:
        """Return the labels that networks trained on the set should give to the labelled samples [n]."""
        return labels(batch)

    def networks(self) -> dict[str, Tensor]:
        """Return networks [K, P] of each inner network, trained on the set as it is.

        They start from weights that are a function of the seed and the step, the same for all parts of a batch; in
        validation, from held-out ones. Where one diverges, the last set on which none did is kept.
        """
        if self._trainer is None:
            return (
                self.inner.train_sampled(0)
                if self.training
                else self.inner.train_held_out(0, VALIDATION_INITS, dry_run=True)
            )
        try:
            if self.training:
                found = self.inner.train_sampled(self.global_step)
            else:
                found = self.inner.train_held_out(self.global_step, VALIDATION_INITS)
        except NonFiniteLossError as error:
            raise self._with_last_good(str(error)) from error
        self._last_good = {name: one.detach().clone() for name, one in self.student.named_parameters()}
        return found

    # ---------------------------------------------------------------- the training

    def trainable(self) -> Iterator[nn.Parameter | ParameterGroup]:
        """Yield images, labels and step sizes, each with its own factor on the learning rate."""
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in RATES}
        for name, parameter in self.student.named_parameters():
            if parameter.requires_grad:
                groups[name.partition(".")[0]].append(parameter)
        for name, parameters in groups.items():
            if parameters:
                yield ParameterGroup(params=parameters, lr_scale=self.rates[name])

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Scale a gradient down whose norm exceeds ``max_norm``, or as the trainer says; refuse one not finite."""
        norm = torch.nn.utils.get_total_norm([one.grad for one in self.trainable_parameters() if one.grad is not None])
        if not norm.isfinite():
            raise self._with_last_good("the gradient through the inner steps is not finite; fewer may help")
        most = self.max_norm if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(
            optimizer, gradient_clip_val=most, gradient_clip_algorithm=gradient_clip_algorithm or "norm"
        )

    def _with_last_good(self, message: str) -> NonFiniteLossError:
        """Return the error, after the last set on which all trainings stayed finite was written."""
        good = copy.deepcopy(self.student)
        good.load_state_dict({**good.state_dict(), **self._last_good})
        path = files.write_npz(good, Path(self.trainer.default_root_dir) / "last_good.npz")
        where = f"epoch {self.current_epoch}, step {self.global_step}"
        what = "the last set on which all stayed finite" if self._last_good else "the set, on which none has succeeded,"
        return NonFiniteLossError(f"{where}: {message}; {what} is {path}")

    def on_train_epoch_end(self) -> None:
        """Keep the images of this epoch, and draw them beside the checkpoint."""
        self.epochs.append(synthetic_set_plots.first_of_each_class(self.student).cpu())
        if self.trainer.is_global_zero:
            folder = Path(self.trainer.default_root_dir) / "epochs"
            synthetic_set_plots.plot_examples(self.student, folder / f"epoch_{self.current_epoch + 1:03d}.png")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the images of the epochs."""
        checkpoint["epochs"] = self.epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with the images of earlier epochs."""
        self.epochs = checkpoint["epochs"]


class DatasetDistillationReport(ReportExtras):
    """Selections of real images as baselines, and figures of the learned images and of other ways to train on them.

    Args:
        distiller: The method.
    """

    def __init__(self, distiller: DatasetDistillation) -> None:
        self.distiller = distiller

    def baselines(self, data: pl.LightningDataModule) -> dict[str, nn.Module]:
        """Return selections of real images with their best step sizes."""
        method = self.distiller
        inputs, targets = labelled_samples(data.train_eval_dataloader())  # type: ignore[attr-defined]
        return {name: coreset(method.student, name, inputs, targets, seed=method.seed) for name in method.compared}

    def figures(self, folder: Path) -> list[Path]:
        """Draw how the images changed over the epochs, and the accuracy of networks trained by other protocols."""
        method = self.distiller
        drawn = []
        if method.epochs:
            drawn.append(synthetic_set_plots.plot_image_history(method.epochs, folder / "images_by_epoch.png"))
        if method.protocols and method.validation_samples is not None:
            inputs, targets = (
                values[:VALIDATION_SAMPLES].to(method.student.images.device) for values in method.validation_samples
            )
            networks = {**method.student.inner_networks, **unseen_architecture(method.student)}
            matrix = protocol_matrix(method.student, networks, inputs, targets, inits=MATRIX_INITS)
            drawn.append(synthetic_set_plots.plot_protocol_matrix(matrix, folder / "protocols.png"))
            atomic.write_text(folder / "protocols.md", matrix.to_markdown() + "\n")
        return drawn


def _rates(given: Mapping[str, float]) -> dict[str, float]:
    for name, rate in given.items():
        validation.choice("rates", name, tuple(RATES))
        validation.number(f"rates.{name}", rate, least=0.0)
    return {**RATES, **given}
