"""The settings of one seed of a run, and how they become data, models, distillers and trainings."""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from kdzoo import config, kinds
from kdzoo.core.base import Distiller
from kdzoo.core.batch import as_batch
from kdzoo.core.randomness import mix_seed
from kdzoo.data import AdaptedData, BatchData
from kdzoo.errors import ConfigError
from kdzoo.run.training import Training

SEEN = 4096
"""Training inputs that a model may look at before it is trained."""
STREAMS = {"teacher": 1, "student": 2}
"""Teacher and student of the same architecture start from different weights."""


@dataclass(frozen=True)
class Job:
    """One seed of a run.

    Attributes:
        settings: the resolved configuration as plain values.
        seed: of weights, order and randomness.
        folder: of this seed.
        allow: names that may be built.
    """

    settings: Mapping[str, Any]
    seed: int
    folder: Path
    allow: Collection[str]

    def data(self, changes: Mapping[str, Any] | None = None) -> Any:
        """Return the data module, ready to use, with ``changes`` to its settings."""
        node = {**self.settings["data"], **(changes or {})}
        data = config.instantiate(node, allow=self.allow)
        if not isinstance(data, pl.LightningDataModule):
            raise ConfigError(f"data must be a LightningDataModule, got {type(data).__name__} from {node['_target_']}")
        if not isinstance(data, BatchData):
            data = AdaptedData(data, seed=self.seed)
        data.prepare_data()
        data.setup("fit")
        return data

    def node(self, role: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the teacher or student with the sizes that the data fix."""
        return config.with_sizes(self.settings[role], sizes, self.allow)

    def model(self, role: str, sizes: Mapping[str, Any], seed: int | None = None) -> nn.Module:
        """Build the teacher or student, with weights that are a function of the seed."""
        return self.build(role, self.node(role, sizes), seed)

    def build(self, role: str, node: Mapping[str, Any], seed: int | None = None) -> nn.Module:
        """Build a model from a whole configuration, with weights that are a function of the seed and the role."""
        torch.manual_seed(mix_seed(self.seed if seed is None else seed, STREAMS[role]))
        model = config.instantiate(node, allow=self.allow)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"{role} must be a torch.nn.Module, got {type(model).__name__}")
        return model

    def distiller(
        self, student: nn.Module, teacher: nn.Module | None, changes: Mapping[str, Any] | None = None
    ) -> Distiller:
        """Build the distiller of the configuration, with ``changes`` to its settings."""
        return self._distiller({**self.settings["distiller"], **(changes or {})}, student, teacher, self.settings)

    def teacher_free(self, student: nn.Module, target: str, source: Mapping[str, Any] | None = None) -> Distiller:
        """Build the distiller that trains on data alone, with the optimizer and scheduler of ``source``."""
        pieces = self.settings["distiller"].get("micro_batch_size")
        node = {"_target_": target, "micro_batch_size": pieces, **self.settings["teacher_free"]}
        return self._distiller(node, student, None, source or self.settings)

    def _distiller(
        self,
        node: Mapping[str, Any],
        student: nn.Module,
        teacher: nn.Module | None,
        source: Mapping[str, Any],
    ) -> Distiller:
        build = config.instantiate({**node, "_partial_": True}, allow=self.allow)
        options = {"optimizer": config.instantiate(source["optimizer"], allow=self.allow)}
        if source.get("scheduler"):
            options["scheduler"] = config.instantiate(source["scheduler"], allow=self.allow)
        torch.manual_seed(mix_seed(self.seed, STREAMS["student"], 1))
        with config.construction(node["_target_"]):
            distiller = build(student, teacher, **options)
        if not isinstance(distiller, Distiller):
            raise ConfigError(f"distiller must be a kdzoo.Distiller, got {type(distiller).__name__}")
        with config.construction(source["optimizer"]["_target_"]):
            distiller.configure_optimizers()  # a wrong learning rate shows now, not after the teacher's training
        return distiller

    def training(self, label: str, folder: Path, **changes: Any) -> Training:
        """Return how to train, with ``changes`` to the trainer's settings."""
        trainer = {key: value for key, value in self.settings["trainer"].items() if key != "_target_"}
        several = self.settings.get("logger") or {}
        return Training(
            settings={**trainer, **changes},
            folder=folder,
            seed=self.seed,
            label=label,
            every_n_steps=self.settings["checkpoint_every_n_steps"],
            callbacks=[self._build(node) for node in (self.settings.get("callbacks") or {}).values()],
            loggers=[self._build({**node, "save_dir": str(folder)}) for node in several.values()],
        )

    def _build(self, node: Mapping[str, Any]) -> Any:
        return config.instantiate(node, allow=self.allow)


def calibrated(model: nn.Module, data: Any) -> nn.Module:
    """Let a model that wants to look at training inputs before its training (``calibrate``) do so; return it."""
    if callable(see := getattr(model, "calibrate", None)):
        found: list[Tensor] = []
        for batch in data.train_eval_dataloader():
            found.append(as_batch(batch)["input"])
            if sum(map(len, found)) >= SEEN:
                break
        see(torch.cat(found)[:SEEN])
    return model


def kind_of_student(distiller: Mapping[str, Any]) -> kinds.Kind:
    """Return the kind of the students of a distiller's configuration."""
    return kinds.get(config.locate(distiller["_target_"]).kinds(distiller)[1])


def initialised(student: nn.Module, teacher: nn.Module | None, data: Any) -> nn.Module:
    """Let a student that begins with weights of its trained teacher (``init_from_teacher``) take them; return it."""
    if teacher is not None and callable(init_from_teacher := getattr(student, "init_from_teacher", None)):
        init_from_teacher(teacher, data)
    return student


def for_seed(cfg: DictConfig, seed: int) -> dict[str, Any]:
    """Return the settings of one seed: ``${seed}`` resolved, accumulation turned into micro-batches."""
    one = OmegaConf.merge(cfg, {"seed": seed, "seeds": None})
    settings = copy.deepcopy(config.to_container(one))
    # A schedule over ${trainer.max_epochs} is, for the teacher, one over the teacher's epochs.
    epochs = {"trainer": {"max_epochs": settings["teacher_training"]["max_epochs"]}}
    settings["teacher_training"] = config.to_container(OmegaConf.merge(one, epochs))["teacher_training"]
    pieces = settings["trainer"].get("accumulate_grad_batches", 1)
    if pieces > 1:
        if "batch_size" not in settings["data"]:
            raise ConfigError(
                f"trainer.accumulate_grad_batches={pieces} needs data.batch_size; set distiller.micro_batch_size"
            )
        settings["distiller"]["micro_batch_size"] = settings["data"]["batch_size"]
        settings["data"]["batch_size"] *= pieces
        settings["trainer"]["accumulate_grad_batches"] = 1
    return settings
