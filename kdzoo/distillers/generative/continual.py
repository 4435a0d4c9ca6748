"""Continual learning of a conditional graphical model: classes arrive in groups, and old ones are never seen again.

Chen et al. 2023 (the paper of :mod:`kdzoo.distillers.generative.semi_auxiliary`): the model as it was after the last
task is the teacher of the old classes. With the share r of the new classes among all classes so far,

    L = (1 - r) (L_sd + sum over latents i of lambda_i L_z,i)(old classes) + r (-evidence lower bound)(new classes)

with the surrogate loss and the latent losses of that module. The learned prior of a conditional model's topmost latent
is one of the latents; the code that comes with the paper leaves it out.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, as_batch, n_samples
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.report_extras import QuickScores, ReportExtras
from kdzoo.data.derived.task_stream import TaskStream, checked_tasks, of_classes, task_at
from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.distillers.generative.node_divergences import NodeDivergences
from kdzoo.distillers.generative.old_classes import DistilledOldClasses, make_old_classes
from kdzoo.distillers.generative.semi_auxiliary import SemiAuxiliary
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Graph


class Continual(Distiller):
    """Learn the classes of one task after the other, the old ones from the model after the last task.

    That model is all that is left of the old classes. When a task begins, the student is copied (the copies of all
    tasks are saved with checkpoints, and measured at the end) and the optimizer's state is cleared.

    Args:
        student: A graphical model with an input that reads the class (``target``).
        teacher: Is not used.
        tasks: Classes of each task, at least two tasks, each class at most once. The epochs are divided equally.
        old: What is done for the old classes (:mod:`kdzoo.distillers.generative.old_classes`): ``distil`` matches the
            copy on shared noise, ``replay`` maximises the evidence lower bound of the copy's samples, ``nothing``
            trains on the new classes alone.
        divergence: Divergence of targets, ``kl``, ``w2`` or ``mmd`` (:mod:`kdzoo.graphical_models.divergences`).
        latent_divergence: Divergence of latents; ``auto`` takes w2 for continuous and kl for discrete ones.
        reduction: Of a latent's divergence over its elements, ``sum`` or ``mean``; that of targets is a sum.
        latent_weight: Lambda of all latents that ``loss_weights`` does not name, finite and >= 0; of ``distil`` only.
        seed: Seed of the noise, >= 0.
        **options: See :class:`kdzoo.Distiller`; the terms are ``new_<node>`` and ``old_<node>``, and contain the
            factors r and 1 - r.

    Raises:
        ConfigError: If an argument is out of its range, or the student has no input.
    """

    info: ClassVar[MethodInfo] = replace(SemiAuxiliary.info, teacher="none", teacher_kinds=())
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
        self.old_classes = make_old_classes(old, NodeDivergences(divergence, latent_divergence, reduction))
        self.seed = validation.integer("seed", seed, 0)
        weight = validation.number("latent_weight", latent_weight, 0.0)
        # The class must be given: samples of the old classes alone cannot be drawn otherwise.
        if not student.inputs():
            raise ConfigError("student must have an input that reads the class, got none; try student=hvae_conditional")
        weighted = [f"old_{name}" for name in self.old_classes.weighted_latents(student)]
        self.loss_weights = {**dict.fromkeys(weighted, weight), **self.loss_weights}
        # One copy for each task but the last, from the start on: a checkpoint of any task then has the same keys.
        self.snapshots = nn.ModuleList(copy.deepcopy(student) for _ in self.tasks[1:]).requires_grad_(False)
        # The buffer is saved with checkpoints. Its copy in the host's memory can be read without waiting for a device.
        self.register_buffer("task", torch.tensor(0))
        self.register_load_state_dict_post_hook(_resume_task)
        self.begin_task(0)
        self.report_extras = ContinualReport(self)

    # ---------------------------------------------------------------- the stream

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return a stream of the tasks with noise, and with what every sample needs for the old classes."""

        def draw(n: int, generator: torch.Generator) -> dict[str, Tensor]:
            drawn = pack_noise(self.student.elbo_noise(n, generator=generator))
            return drawn | self.old_classes.draw(self.student, n, generator)

        return TaskStream(data, draw, tasks=self.tasks, seed=self.seed)  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Note in the model that its posteriors are trained."""
        self.student.posteriors_trained.fill_(True)

    def on_train_epoch_start(self) -> None:
        """Where a task begins, copy the student and clear the optimizer's state."""
        task = task_at(self.current_epoch, self.trainer.max_epochs, len(self.tasks))
        if task == self.current_task:
            return
        self.snapshots[task - 1].load_state_dict(self.student.state_dict())
        self.begin_task(task)
        # Adam's moments belong to the loss of the last task and would scale the first steps of the new one.
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()

    def begin_task(self, task: int) -> None:
        """Note which task is trained, in 0..tasks-1."""
        self.current_task = task
        self.task.fill_(task)

    # ---------------------------------------------------------------- the losses

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of new and old classes for each sample; training on the first task has no old ones."""
        task = self.current_task
        classes_so_far = [label for classes in self.tasks[: task + 1] for label in classes]
        share = len(self.tasks[task]) / len(classes_so_far) if self.old_classes.are_used else 1.0
        noise = unpack_noise(batch) or self.student.elbo_noise(n_samples(batch))
        terms = {f"new_{name}": share * value for name, value in self.student.negative_elbo(batch, noise).items()}
        if task == 0 and self.training:
            return terms
        # A dry run in the first task has no old classes: it computes the terms of the new ones, with the factor 0, so
        # that mistakes in the settings and unknown loss weights are found before the first task is trained.
        labels = classes_so_far[: -len(self.tasks[task])] or classes_so_far
        classes = torch.tensor(labels).to(batch["input"].device, non_blocking=True)
        previous: Any = self.snapshots[max(task - 1, 0)]
        of_old = self.old_classes.terms(self.student, previous, batch, classes)
        return terms | {f"old_{name}": (1 - share) * value for name, value in of_old.items()}


def _resume_task(distiller: Continual, _: Any) -> None:
    """Continue with the task that a checkpoint was written in."""
    distiller.begin_task(int(distiller.task))


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
        if not isinstance(method.old_classes, DistilledOldClasses):
            return {}
        # Fine-tuning has no terms of old classes and replay has others, so weights of these would be rejected.
        weights = {name: weight for name, weight in method.loss_weights.items() if name.startswith("new_")}
        ways = {"replay": "replay", "fine_tuning": "nothing"}
        return {role: {"old": old, "loss_weights": weights} for role, old in ways.items()}

    def measurements(self, model: nn.Module, batches: Iterable[Any], quick_scores: QuickScores) -> dict[str, float]:
        """Return Frechet distances on the classes of every task, after every task from which on they were known.

        ``frechet_step<i>_task<j>`` counts tasks from 0. ``frechet_old`` is the mean over all tasks but the last, after
        the last step, and so is ``one_nn_old``; ``forgetting`` is the mean growth of these tasks' distances since their
        own step. A control trained without a teacher has no steps, and is measured at its end.
        """
        method, batches = self.distiller, [as_batch(batch) for batch in batches]
        last, is_student = len(method.tasks) - 1, model is method.student
        batches_of_task = [[part for batch in batches for part in of_classes(batch, task)] for task in method.tasks]
        # Between tasks only the student was copied; the control was trained on all classes together.
        steps = {**dict(enumerate(method.snapshots)), last: model} if is_student else {last: model}
        table = {
            (i, j): quick_scores(snapshot, batches_of_task[j]) for i, snapshot in steps.items() for j in range(i + 1)
        }
        result = {f"frechet_step{i}_task{j}": metrics["frechet"] for (i, j), metrics in table.items()}
        for name in ("frechet", "one_nn"):
            result[f"{name}_old"] = sum(table[last, j][name] for j in range(last)) / last
        if is_student:
            result["forgetting"] = sum(table[last, j]["frechet"] - table[j, j]["frechet"] for j in range(last)) / last
        return result
