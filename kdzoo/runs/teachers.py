"""The teacher of a run: from a checkpoint, from a module that loads its weights itself, or from a cached training."""

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from kdzoo import kinds
from kdzoo.core.abilities import DescribesArchitecture, LoadsPretrained
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch
from kdzoo.core.frozen_teacher import ComputeOutputs, StoredOutputs, TeacherOutputs
from kdzoo.models import load_weights
from kdzoo.runs import snapshots
from kdzoo.runs.job import Job, calibrated
from kdzoo.runs.statistics import versions
from kdzoo.runs.training import HISTORY_FILE, fit_in_run
from kdzoo.storage import checked_json, run_folder, teacher_outputs
from kdzoo.storage.checkpoint import load_student, save_model


def build(job: Job, sizes: dict[str, Any]) -> nn.Module:
    """Return the teacher, with the weights of ``teacher_training.checkpoint`` if there is one."""
    settings = job.settings["teacher_training"]
    checkpoint = settings["checkpoint"]
    if checkpoint is not None and Path(checkpoint).is_dir():  # an exported model, which names its own architecture
        return load_student(checkpoint, allow=job.allow)
    model = job.model("teacher", sizes, settings["seed"])
    return model if checkpoint is None else load_weights(model, checkpoint)


def sizes(teacher: nn.Module | None) -> dict[str, Any]:
    """Return the teacher's architecture, for students that are built from it; empty if it cannot be written down."""
    return {"teacher_architecture": teacher.architecture} if isinstance(teacher, DescribesArchitecture) else {}


def brings_weights(job: Job, model: nn.Module) -> bool:
    """Return whether the teacher need not be trained.

    This holds for a teacher with a checkpoint, one that has loaded complete weights itself, and one without parameters.
    """
    has_checkpoint = job.settings["teacher_training"]["checkpoint"] is not None
    is_complete = isinstance(model, LoadsPretrained) and not model.new_parameters
    return has_checkpoint or is_complete or next(model.parameters(), None) is None


def train(job: Job, kind: kinds.Kind, model: nn.Module, sizes: dict[str, Any]) -> None:
    """Train the teacher in place, unless it has weights or was trained before in the same way.

    A teacher is trained with all labels, however few the student gets. Its weights are cached under a key of everything
    that determines them: its configuration, its data, its training and the versions. The history of its training,
    whenever that was, is copied to the folder of the seed.
    """
    settings = job.settings["teacher_training"]
    if brings_weights(job, model):
        return
    # All labels, new masks in every epoch, and an order of the samples that does not depend on the student's seed.
    defaults = {"labels_per_class": None, "copies": None, "seed": settings["seed"]}
    changes = {**{key: defaults[key] for key in defaults if key in job.settings["data"]}, **settings["data"]}
    data = job.data(changes)
    node = job.node("teacher", sizes)
    folder = Path(job.settings["cache_dir"]) / "teachers" / _digest(_determinants(job, node, changes, data))
    # The runs of a parallel sweep may need the same teacher: the first one trains it, and the others wait.
    with run_folder.lock(folder, wait_for="the training of the teacher"):
        if (folder / "config.json").exists():
            model.load_state_dict(load_student(folder, allow=job.allow).state_dict())
        else:
            distiller = job.teacher_free(calibrated(model, data), str(kind.teacher_free), settings)
            label = f"teacher, seed {settings['seed']}"
            training = job.training(label, folder, stage="training the teacher", max_epochs=settings["max_epochs"])
            training = replace(training, seed=settings["seed"], snapshot=snapshots.drawing(kind, data))
            fit_in_run(distiller, distiller.transfer_set(data), training)
            if run_folder.is_main_process():
                save_model(model, node, folder)
        history = run_folder.read_if_present(folder / HISTORY_FILE)  # None in a cache of an earlier version
        if history is not None and run_folder.is_main_process():
            checked_json.write(job.folder / "checkpoints" / "teacher" / HISTORY_FILE, history)


def _determinants(job: Job, node: dict[str, Any], changes: dict[str, Any], data: Any) -> dict[str, Any]:
    """Return everything that determines the weights of a teacher that is trained here."""
    settings = job.settings["teacher_training"]
    return {
        "teacher": node,
        # Where the files are does not matter; what they contain is in "content".
        "data": {**job.settings["data"], **changes, "root": None},
        "content": data.fingerprint(),
        "training": {name: value for name, value in settings.items() if name != "checkpoint"},
        "trainer": {**job.settings["trainer"], "max_epochs": settings["max_epochs"]},
        "teacher_free": job.settings["teacher_free"],
        "micro_batch_size": job.settings["distiller"].get("micro_batch_size"),
        "versions": versions(),
    }


@dataclass(frozen=True)
class OutputStore:
    """Where the outputs of a teacher for all training samples are stored, and how they are computed.

    Attributes:
        folder: The folder of the store, which is named by the fingerprint.
        fingerprint: What the outputs depend on, as checksums.
        compute: Runs the teacher on a batch.
        batches: All training inputs in index order.
    """

    folder: Path
    fingerprint: Mapping[str, str]
    compute: ComputeOutputs
    batches: Iterable[Any]

    def fill(self) -> None:
        """Compute what is missing, with all other processes that do so now; return when the store is complete."""
        teacher_outputs.fill(self.folder, self.fingerprint, self.compute, self.batches)

    def load(self) -> StoredOutputs:
        """Return the outputs, computed first as far as they are missing."""
        return teacher_outputs.load_or_compute(self.folder, self.fingerprint, self.compute, self.batches)


def output_store(job: Job, distiller: Distiller, data: Any) -> OutputStore | None:
    """Return the store of the outputs of a distiller's teacher; None if they cannot or must not be stored.

    They cannot for samples that change from epoch to epoch or differ in shape, and must not with
    ``teacher_cache=false``.
    """
    teacher, frozen = distiller.teacher, distiller.frozen_teacher
    if teacher is None or not job.settings["teacher_cache"] or data.is_augmented or not data.has_equal_rows:
        return None
    like = next(teacher.parameters(), torch.empty(0))  # a teacher without parameters runs on the CPU in float32
    fingerprint = {
        "format": teacher_outputs.FORMAT,
        "teacher": teacher_outputs.weights_fingerprint(teacher),
        "inputs and their order": data.fingerprint(),
        "dtype": str(like.dtype),
        # Another version of a model or of a function that the method calls can have other outputs.
        "versions": json.dumps(versions(), sort_keys=True),
        "computation": json.dumps([_code_of(distiller.teacher_outputs), frozen.cache_key], sort_keys=True),
    }

    def compute(batch: Batch) -> TeacherOutputs:
        return distiller.teacher_outputs({name: value.to(like.device) for name, value in batch.items()})

    folder = Path(job.settings["cache_dir"]) / "teacher_outputs" / _digest(fingerprint)
    return OutputStore(folder, fingerprint, compute, data.train_eval_dataloader())


def cache_teacher_outputs(job: Job, distiller: Distiller, data: Any) -> None:
    """Compute the teacher's outputs for all training and validation samples, unless they are not stored."""
    store = output_store(job, distiller, data)
    if store is None:
        return
    distiller.frozen_teacher.cache["train"] = store.load()
    # A user's own data module may have several validation loaders or none, and promises nothing about their order.
    if isinstance(validation := data.val_dataloader(), DataLoader):
        distiller.frozen_teacher.cache["val"] = teacher_outputs.compute_all(store.compute, validation)


def _code_of(function: Callable[..., Any]) -> str:
    """Return a function's name and a checksum of its code, so that outputs of another function are not reused.

    Comments, docstrings and layout do not count: they change no output.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # there is no source, as of a function defined in a prompt
        return f"{function.__module__}.{function.__qualname__}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    code = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return f"{function.__module__}.{function.__qualname__} {code}"


def _digest(value: Any) -> str:
    """Return a short checksum of plain values, as the name of a folder."""
    # 64 bits: no two teachers of one machine will have the same name.
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
