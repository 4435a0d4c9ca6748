"""The settings of one seed of a run, and how they become data, models, distillers and trainings."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from kdzoo import config, kinds
from kdzoo.core.abilities import CalibratesOnInputs, InitialisesFromTeacher
from kdzoo.core.base import Distiller
from kdzoo.core.batch import as_batch
from kdzoo.core.randomness import mix_seed
from kdzoo.core.schedules import make_schedule
from kdzoo.data import AdaptedData, BatchData
from kdzoo.errors import ConfigError
from kdzoo.runs.training import Training

# Training inputs that a model may be calibrated on before it is trained: enough for means and spreads of single inputs
# to within a few percent, and a moment's work.
CALIBRATION_INPUTS = 4096
# A stream of random numbers for each role, so that a teacher and a student of one architecture have different weights.
SEED_STREAMS = {"teacher": 1, "student": 2}


@dataclass(frozen=True)
class Job:
    """One seed of a run.

    Attributes:
        settings: The resolved configuration as plain values.
        seed: The seed of the weights, the order of the samples and all other randomness.
        folder: The folder of this seed.
        allow: Exact names of the classes and functions that may be built.
    """

    settings: Mapping[str, Any]
    seed: int
    folder: Path
    allow: Collection[str]

    def data(self, changes: Mapping[str, Any] | None = None) -> Any:
        """Return the data module after ``setup``, with ``changes`` to its settings.

        Raises:
            ConfigError: The configuration builds something else than a LightningDataModule.
            DataError: The data are missing or do not fit the task.
        """
        node = {**self.settings["data"], **(changes or {})}
        data = config.instantiate(node, allow=self.allow)
        if not isinstance(data, pl.LightningDataModule):
            raise ConfigError(f"data must be a LightningDataModule, got {type(data).__name__} from {node['_target_']}")
        if not isinstance(data, BatchData):
            data = AdaptedData(data, seed=self.seed)
        data.max_samples = self.settings["max_samples"]
        data.max_batch_size = self.settings["max_batch_size"]
        data.max_sequence_length = self.settings["max_sequence_length"]
        data.prepare_data()
        data.setup("fit")
        return data

    def node(self, role: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the teacher or student, completed with the sizes that the data determine."""
        return config.with_sizes(self.settings[role], sizes, self.allow)

    def model(self, role: str, sizes: Mapping[str, Any], seed: int | None = None) -> nn.Module:
        """Build the teacher or student, with weights that are a function of the seed."""
        return self.build(role, self.node(role, sizes), seed)

    def build(self, role: str, node: Mapping[str, Any], seed: int | None = None) -> nn.Module:
        """Build a model from a complete configuration, with weights that are a function of the seed and the role."""
        torch.manual_seed(mix_seed(self.seed if seed is None else seed, SEED_STREAMS[role]))
        model = config.instantiate(node, allow=self.allow)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"{role} must be a torch.nn.Module, got {type(model).__name__}")
        return model

    def distiller(
        self, student: nn.Module, teacher: nn.Module | None, changes: Mapping[str, Any] | None = None
    ) -> Distiller:
        """Build the distiller of the configuration, with ``changes`` to its settings."""
        return self._distiller({**self.settings["distiller"], **(changes or {})}, student, teacher, self.settings)

    def teacher_free(self, student: nn.Module, target: str, source: Mapping[str, Any]) -> Distiller:
        """Build the distiller ``target``, which trains on data alone, with optimizer and scheduler of ``source``."""
        micro_batch_size = self.settings["distiller"].get("micro_batch_size")
        node = {"_target_": target, "micro_batch_size": micro_batch_size, **self.settings["teacher_free"]}
        return self._distiller(node, student, None, source)

    def _distiller(
        self,
        node: Mapping[str, Any],
        student: nn.Module,
        teacher: nn.Module | None,
        source: Mapping[str, Any],
    ) -> Distiller:
        # Partial, because models and optimizer are objects and cannot pass through Hydra.
        build = config.instantiate({**node, "_partial_": True}, allow=self.allow)
        options = {"optimizer": config.instantiate(source["optimizer"], allow=self.allow)}
        if source.get("scheduler"):
            options["scheduler"] = config.instantiate(source["scheduler"], allow=self.allow)
        # The 1 separates the modules that a distiller makes from the weights of the student.
        torch.manual_seed(mix_seed(self.seed, SEED_STREAMS["student"], 1))
        with config.reraise_as_config_error(node["_target_"]):
            distiller = build(student, teacher, **options)
        if not isinstance(distiller, Distiller):
            raise ConfigError(f"distiller must be a kdzoo.Distiller, got {type(distiller).__name__}")
        self._check_optimizer(options, source)
        return distiller

    @staticmethod
    def _check_optimizer(options: Mapping[str, Any], source: Mapping[str, Any]) -> None:
        """Reject wrong arguments of optimizer and scheduler now rather than after the teacher's training.

        They are tried on a new parameter, since those of the distiller may not exist before its ``prepare``.
        """
        with config.reraise_as_config_error(source["optimizer"]["_target_"]):
            optimizer = options["optimizer"]([nn.Parameter(torch.zeros(1))])
        if "scheduler" in options:
            with config.reraise_as_config_error(source["scheduler"]["_target_"]):
                make_schedule(options["scheduler"], optimizer, total_steps=1)

    @cached_property
    def chosen_kind(self) -> kinds.Kind | None:
        """The kind that the config group ``kind`` names, or None."""
        node = self.settings.get("kind")
        if not node:
            return None
        kind = config.instantiate(node, allow=self.allow)
        if not isinstance(kind, kinds.Kind):
            raise ConfigError(f"kind must be a kdzoo.kinds.Kind, got {type(kind).__name__} from {node['_target_']}")
        return kind

    def kind_of(self, role: str, model: nn.Module, sizes: Mapping[str, Any] | None = None) -> kinds.Kind:
        """Return the kind of the teacher or student: the chosen one, or the one that follows from model and data."""
        if role == "student" and self.chosen_kind is not None:
            return self.chosen_kind
        return kinds.kind_of(model, self.chosen_kind, sizes)

    def kind_named(self, name: str) -> kinds.Kind:
        """Return the kind of that name, the chosen one or a packaged one."""
        if self.chosen_kind is not None and self.chosen_kind.name == name:
            return self.chosen_kind
        return kinds.get(name)

    def training(self, label: str, folder: Path, *, stage: str = "", **changes: Any) -> Training:
        """Return the settings of one training, with ``changes`` to those of the trainer.

        Args:
            label: The name of the training in messages.
            stage: What the progress display says while it runs.
            folder: The folder of its checkpoint.
            **changes: Arguments of the trainer.
        """
        trainer = {key: value for key, value in self.settings["trainer"].items() if key != "_target_"}
        # Objects among the arguments, such as a profiler, are made anew for each training.
        nodes = {key: node for key, node in trainer.items() if isinstance(node, Mapping) and "_target_" in node}
        trainer |= {key: self._build(node) for key, node in nodes.items()}
        loggers = self.settings.get("logger") or {}
        return Training(
            settings={**trainer, **changes},
            folder=folder,
            seed=self.seed,
            label=label,
            stage=stage,
            every_n_steps=self.settings["checkpoint_every_n_steps"],
            callbacks=[self._build(node) for node in (self.settings.get("callbacks") or {}).values()],
            loggers=[self._build({**node, "save_dir": str(folder)}) for node in loggers.values()],
            hyperparameters={key: value for key, value in self.settings.items() if key not in config.FREE_KEYS},
        )

    def _build(self, node: Mapping[str, Any]) -> Any:
        return config.instantiate(node, allow=self.allow)


def calibrated(model: nn.Module, data: Any) -> nn.Module:
    """Calibrate a model on the first training inputs if it can be; return the model."""
    if isinstance(model, CalibratesOnInputs):
        inputs: list[Tensor] = []
        for batch in data.train_eval_dataloader():
            inputs.append(as_batch(batch)["input"])
            if sum(map(len, inputs)) >= CALIBRATION_INPUTS:
                break
        model.calibrate(torch.cat(inputs)[:CALIBRATION_INPUTS])
    return model


def initialised(student: nn.Module, teacher: nn.Module | None, data: Any) -> nn.Module:
    """Initialise a student from its trained teacher if it takes weights from it; return the student."""
    if teacher is not None and isinstance(student, InitialisesFromTeacher):
        student.init_from_teacher(teacher, data)
    return student


def with_seed(node: Any, seed: int | str) -> Any:
    """Return settings with a seed wherever it is None, as in the configuration that a run over several seeds writes.

    Args:
        node: Settings as plain values.
        seed: The seed, or an interpolation such as ``${seed}``.
    """
    if isinstance(node, list):
        return [with_seed(value, seed) for value in node]
    if not isinstance(node, Mapping):
        return node
    return {key: seed if key == "seed" and value is None else with_seed(value, seed) for key, value in node.items()}


def with_largest(node: Any, largest: Mapping[str, int | float]) -> Any:
    """Return settings in which no number is larger than ``largest`` allows for its key.

    Args:
        node: Settings as plain values.
        largest: The largest value of some keys, at any depth.

    Example:
        >>> with_largest({"steps": 300, "inner": [{"steps": 2}, {"steps": None}]}, {"steps": 10})
        {'steps': 10, 'inner': [{'steps': 2}, {'steps': None}]}
    """
    if isinstance(node, list):
        return [with_largest(value, largest) for value in node]
    if not isinstance(node, Mapping):
        return node
    limited = {key: min(node[key], limit) for key, limit in largest.items() if isinstance(node.get(key), int | float)}
    return {key: limited[key] if key in limited else with_largest(value, largest) for key, value in node.items()}


def for_seed(cfg: DictConfig, seed: int) -> dict[str, Any]:
    """Return the settings of one seed: ``${seed}`` resolved, accumulation turned into micro-batches."""
    seeded = OmegaConf.merge(cfg, {"seed": seed, "seeds": None})
    settings = config.plain_settings(seeded)
    largest = settings["largest"]
    settings = {**with_largest(settings, largest), "largest": largest}
    # Lightning would average the means of the batches, which is wrong where terms have different numbers of values.
    n_accumulated = settings["trainer"].get("accumulate_grad_batches", 1)
    if n_accumulated > 1:
        if "batch_size" not in settings["data"]:
            raise ConfigError(
                f"trainer.accumulate_grad_batches={n_accumulated} needs data.batch_size; set distiller.micro_batch_size"
            )
        settings["distiller"]["micro_batch_size"] = settings["data"]["batch_size"]
        settings["data"]["batch_size"] *= n_accumulated
        settings["trainer"]["accumulate_grad_batches"] = 1
    return settings
