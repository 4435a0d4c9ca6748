"""A distiller under test: small models and data, built afresh as often as a check asks."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kdzoo import config
from kdzoo.core.base import DRY_RUN_SAMPLES, Distiller
from kdzoo.core.batch import Batch, as_batch
from kdzoo.runs import progress, teachers
from kdzoo.runs.job import Job, for_seed, initialised
from kdzoo.runs.training import History, fit
from kdzoo.storage.checkpoint import read_checkpoint

# Settings that make checks quick, for data that have them. An epoch has three batches, the last one smaller.
SMALL_DATA = {"train_size": 44, "val_size": 20, "batch_size": 16}
# Settings of packaged classes that make checks quick. Dropout and shifts are on, so that a check notices randomness
# that is not reproducible; with one label per class most samples have no label.
SMALL: dict[str, dict[str, Any]] = {
    "kdzoo.data.Digits": {"labels_per_class": 1, "augment": {"shift": 1}},
    "kdzoo.data.Reber": {"n_train": 44, "n_val": 20, "n_test": 20, "batch_size": 16},
    "kdzoo.models.MLP": {"hidden": [16, 16], "dropout": 0.2},
    "kdzoo.models.ConvNet": {"channels": [4], "hidden": 8, "dropout": 0.2},
    "kdzoo.models.MPSClassifier": {"bond_dim": 4},
    "kdzoo.models.Bert": {"hidden_size": 16, "layers": 3, "heads": 2, "max_length": 16},
    "kdzoo.models.Diffusion": {"width": 4},
    "kdzoo.models.HVAE": {"width": 8, "latents": [4, 3]},
    "kdzoo.models.GAN": {"width": 4, "latent": 3, "discriminator_width": 4},
    "kdzoo.models.Autoencoder": {"width": 16, "code": 4},
    "kdzoo.models.RNNLM": {"hidden": 8, "embedding": 4},
    "kdzoo.automata.PFA": {"states": 3},
    "kdzoo.dataset_distillation.SyntheticSet": {"steps": 3},
}
# Two epochs, so that a training can be interrupted between them.
SHORT = {"trainer.max_epochs": 2, "trainer.limit_train_batches": 3, "trainer.log_every_n_steps": 1}
# Float64, and an optimizer whose steps are proportional to the gradient: Adam's hardly depend on its size, and would
# hide a gradient that is wrong by a factor.
EXACT = {
    "trainer.precision": "64-true",
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
}


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        distiller: The distiller after the last step.
        data: The data module before ``transfer_set``.
        history: Loss terms and validation metrics.
        checkpoint: The content of ``last.ckpt``.
    """

    distiller: Distiller
    data: Any
    history: History
    checkpoint: dict[str, Any]


class Subject:
    """A distiller under test, built afresh on every call.

    Args:
        cfg: A composed configuration; packaged data and models in it are made small.
        folder: Folder that checks may write to.
        allow: Names of the user's own classes that may be built.
        changes: Settings by dotted key that replace all others.
        dropout: Whether dropout layers are active.

    Attributes:
        method: The class of the distiller.
    """

    def __init__(
        self,
        cfg: DictConfig,
        folder: Path,
        allow: Collection[str] = (),
        changes: Mapping[str, Any] | None = None,
        dropout: bool = True,
    ) -> None:
        self.cfg, self.folder, self.dropout = cfg, folder, dropout
        self.allow = {*config.packaged_targets(), *allow}
        self.changes = dict(changes or {})
        self.method: type[Distiller] = config.locate(cfg.distiller._target_)
        self._dry_run_is_done = False

    def with_changes(self, changes: Mapping[str, Any], dropout: bool = True) -> "Subject":
        """Return a subject with further changes to the settings."""
        return Subject(self.cfg, self.folder, self.allow, {**self.changes, **changes}, dropout)

    @cached_property
    def settings(self) -> DictConfig:
        """The configuration with small models and data, few steps and all changes."""
        cfg = self.cfg.copy()
        OmegaConf.set_struct(cfg, False)
        small = {
            f"{role}.{key}": value
            for role in ("data", "teacher", "student")
            for key, value in SMALL.get((cfg.get(role) or {}).get("_target_", ""), {}).items()
        }
        if cfg.data.get("labels_per_class") is None:  # the method's own configuration may need every label
            small.pop("data.labels_per_class", None)
        else:  # a small part of a user's data has few samples of each class
            small["data.labels_per_class"] = 1
        if SMALL_DATA.keys() <= config.parameters(config.locate(cfg.data._target_)).keys():
            small |= {f"data.{key}": value for key, value in SMALL_DATA.items()}
        for key, value in {**small, **SHORT, **self.method.info.contract_settings, **self.changes}.items():
            OmegaConf.update(cfg, key, value, merge=False, force_add=True)
        return cfg

    @cached_property
    def job(self) -> Job:
        """The job of seed 0."""
        return Job(for_seed(self.settings, 0), 0, self.folder, self.allow)

    @cached_property
    def _data(self) -> Any:
        return self.job.data()

    def data(self) -> Any:
        """Return the data in the state after ``setup``."""
        # A copy, because setting up is slow and a training moves the position of the sampler.
        return copy.deepcopy(self._data)

    def models(self, data: Any) -> tuple[nn.Module, nn.Module | None]:
        """Return a new student and a new teacher, which is None for methods without one."""
        teacher = None if self.method.info.teacher == "none" else self.job.model("teacher", data.sizes)
        return self.job.build("student", self.student_node(data, teacher)), teacher

    def student_node(self, data: Any, teacher: nn.Module | None) -> dict[str, Any]:
        """Return the configuration of the student with the sizes that data and teacher determine."""
        return self.job.node("student", {**data.sizes, **teachers.sizes(teacher)})

    def distiller(self, data: Any) -> Distiller:
        """Return a new distiller with new models; the teacher is not trained."""
        student, teacher = self.models(data)
        distiller = self.job.distiller(initialised(student, teacher, data), teacher)
        for module in distiller.modules():
            if isinstance(module, nn.Dropout) and not self.dropout:
                module.p = 0.0
        return distiller

    def dry_run(self) -> None:
        """Do a dry run as a run does, with separate models and before ``transfer_set`` is called, but only once."""
        if not self._dry_run_is_done:
            data = self.data()
            batch = as_batch(next(iter(data.train_eval_dataloader())))
            self.distiller(data).dry_run({key: value[:DRY_RUN_SAMPLES] for key, value in batch.items()})
            self._dry_run_is_done = True

    def prepared(self) -> tuple[Distiller, Batch]:
        """Return a new distiller after ``prepare``, and the first batch of its transfer set."""
        data = self.data()
        self.dry_run()
        distiller = self.distiller(data)
        batch = as_batch(next(iter(distiller.transfer_set(data).train_dataloader())))
        distiller.dry_run(batch)
        return distiller, batch

    def train(
        self, name: str, *callbacks: pl.Callback, every_n_steps: int | None = None, backend: str | None = None
    ) -> Trained:
        """Train a new distiller, or continue the training of that name where it was interrupted.

        Args:
            name: Name of the folder of the training.
            *callbacks: Further callbacks.
            every_n_steps: Save a checkpoint also every so many steps.
            backend: Backend of ``torch.compile`` for the student; None does not compile it.
        """
        data = self.data()
        self.dry_run()
        distiller = self.distiller(data)
        if backend is not None:
            distiller.student.compile(backend=backend)
        training = self.job.training(name, self.folder / name)
        with _quiet():
            history = fit(
                distiller,
                distiller.transfer_set(data),
                replace(training, callbacks=[*training.callbacks, *callbacks], every_n_steps=every_n_steps),
            )
        return Trained(distiller, data, history, read_checkpoint(training.folder / "last.ckpt"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the line that every training prints."""
    before = progress.console.quiet
    progress.console.quiet = True
    try:
        yield
    finally:
        progress.console.quiet = before
