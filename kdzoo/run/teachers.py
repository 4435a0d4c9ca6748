"""Where a run's teacher comes from: a checkpoint, a module with weights of its own, or a cached training."""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from kdzoo import kinds
from kdzoo.core.base import Distiller, TeacherOutputs
from kdzoo.core.batch import Batch
from kdzoo.models import load_weights
from kdzoo.run.job import Job, calibrated
from kdzoo.run.report import versions
from kdzoo.run.training import fit
from kdzoo.storage import run_folder, teacher_outputs
from kdzoo.storage.checkpoint import load_student, save_model


def build(job: Job, sizes: dict[str, Any]) -> nn.Module:
    """Return the teacher, with the weights of ``teacher_training.checkpoint`` if there is one."""
    how = job.settings["teacher_training"]
    if how["checkpoint"] is not None and Path(how["checkpoint"]).is_dir():
        return load_student(how["checkpoint"], allow=job.allow)
    model = job.model("teacher", sizes, how["seed"])
    return model if how["checkpoint"] is None else load_weights(model, how["checkpoint"])


def sizes(teacher: nn.Module | None) -> dict[str, Any]:
    """Return what a student may need to know of its teacher's architecture."""
    architecture = getattr(teacher, "architecture", None)
    return {} if architecture is None else {"teacher_architecture": architecture}


def brings_weights(job: Job, model: nn.Module) -> bool:
    """Return whether the teacher need not be trained: it has a checkpoint, or loads weights itself and lacks none."""
    given = job.settings["teacher_training"]["checkpoint"] is not None
    return given or getattr(model, "new_parameters", None) == ()


def train(job: Job, kind: kinds.Kind, model: nn.Module, sizes: dict[str, Any]) -> None:
    """Train the teacher in place, unless it has weights or was trained before in the same way.

    A teacher sees every label, whatever the student's budget. Its weights are kept under a key of everything
    that determines them: its configuration, its data, its training and the versions.
    """
    how = job.settings["teacher_training"]
    if brings_weights(job, model):
        return
    own = {"labels_per_class": None, "copies": None, "seed": how["seed"]}  # every label, masks and an order of its own
    changes = {**{key: own[key] for key in own if key in job.settings["data"]}, **how["data"]}
    data = job.data(changes)
    node = job.node("teacher", sizes)
    folder = Path(job.settings["cache_dir"]) / "teachers" / _digest(_determinants(job, node, changes, data))
    with run_folder.lock(folder):
        if (folder / "config.json").exists():
            model.load_state_dict(load_student(folder, allow=job.allow).state_dict())
            return
        distiller = job.teacher_free(calibrated(model, data), str(kind.teacher_free), how)
        label = f"teacher, seed {how['seed']}"
        training = job.training(label, folder, max_epochs=how["max_epochs"])
        fit(distiller, distiller.transfer_set(data), replace(training, seed=how["seed"]))
        if run_folder.is_main_process():
            save_model(model, node, folder)


def _determinants(job: Job, node: dict[str, Any], changes: dict[str, Any], data: Any) -> dict[str, Any]:
    """Return everything that determines the weights of a teacher that is trained here."""
    how = job.settings["teacher_training"]
    return {
        "teacher": node,
        "data": {**job.settings["data"], **changes, "root": None},
        "content": data.fingerprint(),
        "training": {name: value for name, value in how.items() if name != "checkpoint"},
        "trainer": {**job.settings["trainer"], "max_epochs": how["max_epochs"]},
        "teacher_free": job.settings["teacher_free"],
        "micro_batch_size": job.settings["distiller"].get("micro_batch_size"),
        "versions": versions(),
    }


def _source(function: Callable[..., Any]) -> str:
    """Return which function this is and what it does, so that answers to another question are not taken for its own."""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed in where no source is kept
        text = ""
    return f"{function.__module__}.{function.__qualname__} {hashlib.sha256(text.encode()).hexdigest()}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def cache_teacher_outputs(job: Job, distiller: Distiller, data: Any) -> None:
    """Give the distiller the teacher's answers to all training and validation rows, if that is right and worth it."""
    teacher, wanted = distiller.teacher, job.settings["teacher_cache"]
    if teacher is None or not wanted or not distiller.uses_teacher_output or data.is_augmented:
        return
    if not data.has_equal_rows:
        return
    fingerprint = {
        "teacher": teacher_outputs.weights_fingerprint(teacher),
        "inputs and their order": data.fingerprint(),
        "dtype": str(next(teacher.parameters()).dtype),
        "question": json.dumps([_source(distiller.teacher_outputs), distiller.cache_key], sort_keys=True),
    }
    folder = Path(job.settings["cache_dir"]) / "teacher_outputs" / _digest(fingerprint)
    device = next(teacher.parameters()).device

    def ask(batch: Batch) -> TeacherOutputs:
        return distiller.teacher_outputs({name: one.to(device) for name, one in batch.items()})

    distiller.teacher_cache["train"] = teacher_outputs.answers(folder, fingerprint, ask, data.train_eval_dataloader())
    # A user's own data module may have several loaders or none, and promises nothing about the order in them.
    if isinstance(validation := data.val_dataloader(), DataLoader):
        distiller.teacher_cache["val"] = teacher_outputs.compute(ask, validation)
