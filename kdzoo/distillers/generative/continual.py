"""Continual learning of a conditional graphical model: classes arrive in groups, and old ones are never seen again.

Chen, Liang, Zeng, Yao & Shao 2023, "A unified knowledge distillation framework for deep directed graphical models": the
model as it was after the last task is the teacher of the old classes. With r the share of the new classes among all
classes so far,

    L = (1 - r) (L_sd + sum over latents i of lambda_i L_z,i)(old classes) + r (-evidence bound)(new classes)

with the surrogate and latent losses of :mod:`kdzoo.distillers.generative.semi_auxiliary`. The learned prior of a conditional
model's topmost latent is one of the latents. Generative replay (Shin, Lee, Kim & Kim 2017, "Continual learning with
deep generative replay") instead trains on samples of that teacher as if they were data.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, as_batch, n_samples
from kdzoo.core.inference import inference
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.report_extras import QuickScores, ReportExtras
from kdzoo.data.derived.task_stream import TaskStream, checked_tasks, of_classes, task_at
from kdzoo.distillers.generative.rollout import named, noise_in, pair_losses
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import DIVERGENCES, Graph
from kdzoo.graphical_models.paired import Pair, rollout_student, rollout_teacher

OLD = ("distil", "replay", "nothing")
_ROLLED_OUT, _REPLAYED = "old_", "replayed_"


class Continual(Distiller):
    """Learn the classes of one task after the other, the old ones from the model after the last task.

    Nothing but that model is kept of the old classes. When a task begins, the student is copied (the copies of all
    tasks are saved with checkpoints, and measured at the end) and the optimizer forgets its moments.

    Args:
        student: a graphical model with an input that reads the class (``target``).
        teacher: is not used.
        tasks: classes of each task, at least two tasks, each class at most once. The epochs are divided equally.
        old: what is done for the old classes: ``distil`` matches the copy on shared noise, ``replay`` maximises the
            evidence bound of the copy's samples (targets on which nothing depends by their means), ``nothing`` trains
            on the new classes alone.
        divergence: of targets: ``kl``, ``w2`` or ``mmd`` (:mod:`kdzoo.graphical_models.divergences`).
        latent_divergence: of latents; ``auto`` takes w2 for continuous and kl for discrete ones.
        reduction: of a latent's divergence over its elements, ``sum`` or ``mean``; that of targets is a sum.
        latent_weight: lambda of all latents that ``loss_weights`` does not name, finite and >= 0; of ``distil`` only.
        seed: of the noise, >= 0.
        **options: see :class:`kdzoo.Distiller`; the terms are ``new_<node>`` and ``old_<node>``, the shares r and 1 - r
            in them.

    Raises:
        ConfigError: an argument is out of its range, or the student has no input.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Chen, Liang, Zeng, Yao & Shao 2023, A unified knowledge distillation framework for deep directed graphical "
        "models",
        bibtex="""@inproceedings{chen2023unified,
  title     = {A Unified Knowledge Distillation Framework for Deep Directed Graphical Models},
  author    = {Chen, Yizhuo and Liang, Kaizhao and Zeng, Zhe and Yao, Shuochao and Shao, Huajie},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2023},
}""",
        teacher="none",
        student_kinds=("graphical_model",),
        exempt={"compile": "the models are rolled out with noise, not called"},
    )
    student: Graph
    task: Tensor

    def __init__(
        self,
        student: Graph,
        teacher: nn.Module | None = None,  # noqa: ARG002 - every distiller takes one
        *,
        tasks: Sequence[Sequence[int]] = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
        old: str = "distil",
        divergence: str = "kl",
        latent_divergence: str = "auto",
        reduction: str = "sum",
        latent_weight: float = 1.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, None, **options)
        self.tasks = checked_tasks(tasks)
        self.old = validation.choice("old", old, OLD)
        self.divergence = validation.choice("divergence", divergence, tuple(DIVERGENCES))
        self.latent_divergence = validation.choice("latent_divergence", latent_divergence, ("auto", *DIVERGENCES))
        self.reduction = validation.choice("reduction", reduction, ("sum", "mean"))
        self.seed = validation.integer("seed", seed, 0)
        weight = validation.number("latent_weight", latent_weight, 0.0)
        if not student.inputs():
            raise ConfigError("student must have an input that reads the class, got none; try student=hvae_conditional")
        if old == "distil":
            learned = [name for name, latent in student.latents().items() if latent.is_learned]
            self.loss_weights = {**{f"old_{name}": weight for name in learned}, **self.loss_weights}
        self.kept = nn.ModuleList(copy.deepcopy(student) for _ in self.tasks[1:]).requires_grad_(False)
        self.register_buffer("task", torch.tensor(0))
        self.report_extras = ContinualReport(self)

    # ---------------------------------------------------------------- the stream

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return a stream of the tasks with noise, and in every sample also a draw among the old classes."""

        def draw(n: int, generator: torch.Generator) -> dict[str, Tensor]:
            drawn = named(self.student.elbo_noise(n, generator=generator))
            if self.old != "nothing":
                drawn |= named(self.student.noise(n, generator=generator), _ROLLED_OUT)
                drawn["old_class"] = torch.rand(n, generator=generator)
            if self.old == "replay":
                drawn |= named(self.student.elbo_noise(n, generator=generator), _REPLAYED)
            return drawn

        return TaskStream(data, draw, tasks=self.tasks, seed=self.seed)  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Note in the model that its posteriors are trained."""
        self.student.posteriors_trained.fill_(True)

    def on_train_epoch_start(self) -> None:
        """Where a task begins, keep the model of the last one, and let the optimizer forget it."""
        task = task_at(self.current_epoch, self.trainer.max_epochs, len(self.tasks))
        if task == int(self.task):
            return
        self.kept[task - 1].load_state_dict(self.student.state_dict())
        self.task.fill_(task)
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()

    # ---------------------------------------------------------------- the losses

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of new and old classes, for each sample; the first task's training has no old ones."""
        task, n = int(self.task), n_samples(batch)
        so_far = [one for classes in self.tasks[: task + 1] for one in classes]
        share = len(self.tasks[task]) / len(so_far) if self.old != "nothing" else 1.0
        noise = noise_in(batch) or self.student.elbo_noise(n)
        terms = {f"new_{name}": share * value for name, value in self.student.negative_elbo(batch, noise).items()}
        if self.old == "nothing" or (task == 0 and self.training):
            return terms
        classes = so_far[: -len(self.tasks[task])] or so_far  # of a rehearsal, in which all is computed, with weight 0
        found = self._of_old_classes(
            batch, self.kept[max(task - 1, 0)], torch.tensor(classes, device=batch["input"].device)
        )
        return terms | {f"old_{name}": (1 - share) * value for name, value in found.items()}

    def _of_old_classes(self, batch: Batch, previous: Any, classes: Tensor) -> dict[str, Tensor]:
        """Return the terms of as many samples of old classes as the batch has, from the model of the last task."""
        n = n_samples(batch)
        noise = noise_in(batch, _ROLLED_OUT) or self.student.noise(n)
        chance = batch["old_class"] if "old_class" in batch else torch.rand(n, device=classes.device)
        target = classes[(chance * len(classes)).long().clamp_max(len(classes) - 1)]
        inputs = self.student.observed({**batch, "target": target}, self.student.inputs())
        if self.old == "replay":
            with inference(previous):
                samples = previous.samples(noise, inputs)
            again = noise_in(batch, _REPLAYED) or self.student.elbo_noise(n)
            return self.student.negative_elbo({**batch, "input": samples, "target": target}, again)
        with inference(previous):
            trace = rollout_teacher(previous, noise, inputs)
        return pair_losses(
            Pair(trace, rollout_student(self.student, trace, noise, inputs)),
            self.student,
            divergence=self.divergence,
            latent_divergence=self.latent_divergence,
            reduction=self.reduction,
        )


class ContinualReport(ReportExtras):
    """Controls that treat the old classes in other ways, and what is forgotten from task to task.

    Args:
        distiller: The method.
    """

    def __init__(self, distiller: Continual) -> None:
        self.distiller = distiller

    @property
    def controls(self) -> Mapping[str, Mapping[str, Any]]:
        """Generative replay and fine-tuning, without the weights of distilled nodes, if the method distils."""
        method = self.distiller
        weights = {name: weight for name, weight in method.loss_weights.items() if name.startswith("new_")}
        others = {"replay": "replay", "fine_tuning": "nothing"} if method.old == "distil" else {}
        return {role: {"old": old, "loss_weights": weights} for role, old in others.items()}

    def measurements(self, model: nn.Module, batches: Iterable[Any], quick_scores: QuickScores) -> dict[str, float]:
        """Return Frechet distances on the classes of every task, after every step whose training had seen them.

        ``frechet_step<i>_task<j>`` counts tasks from 0. ``frechet_old`` is the mean over all tasks but the last, after
        the last step, and so is ``one_nn_old``; ``forgetting`` is the mean growth of these tasks' distances since their
        own step. A control trained without a teacher has no steps, and is measured at its end.
        """
        method, batches = self.distiller, [as_batch(batch) for batch in batches]
        last, is_student = len(method.tasks) - 1, model is method.student
        batches_of_task = [[part for batch in batches for part in of_classes(batch, task)] for task in method.tasks]
        steps = {**dict(enumerate(method.kept)), last: model} if is_student else {last: model}
        table = {
            (i, j): quick_scores(snapshot, batches_of_task[j]) for i, snapshot in steps.items() for j in range(i + 1)
        }
        result = {f"frechet_step{i}_task{j}": metrics["frechet"] for (i, j), metrics in table.items()}
        for name in ("frechet", "one_nn"):
            result[f"{name}_old"] = sum(table[last, j][name] for j in range(last)) / last
        if is_student:
            result["forgetting"] = sum(table[last, j]["frechet"] - table[j, j]["frechet"] for j in range(last)) / last
        return result
