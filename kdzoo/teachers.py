"""Where a run's teacher comes from: a checkpoint, a module with weights of its own, or a cached training."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from kdzoo import kinds, run_folder, teacher_cache
from kdzoo.batch import as_batch
from kdzoo.checkpoint import load_student, save_model
from kdzoo.distiller import Distiller
from kdzoo.job import Job
from kdzoo.models import load_weights
from kdzoo.report import versions
from kdzoo.training import fit


def obtain(job: Job, kind: kinds.Kind, data: Any) -> nn.Module:
    """Return the trained teacher in eval mode.

    A teacher that the run trains itself sees every label, whatever the student's budget, and is kept under
    a key of everything that determines it: its configuration, its data, its training and the versions.
    """
    how = job.settings["teacher_training"]
    checkpoint = how["checkpoint"]
    if checkpoint is not None and Path(checkpoint).is_dir():
        return load_student(checkpoint, allow=job.allow)
    model = job.model("teacher", data.sizes, how["seed"])
    if checkpoint is not None:
        return load_weights(model, checkpoint).eval()
    if getattr(model, "new_parameters", None) == ():  # it loads weights itself, and lacks none
        return model.eval()
    return _train(job, kind, model, data.sizes)


def _train(job: Job, kind: kinds.Kind, model: nn.Module, sizes: dict[str, Any]) -> nn.Module:
    how = job.settings["teacher_training"]
    all_labels = {key: None for key in ("labels_per_class",) if key in job.settings["data"]}
    changes = {**all_labels, **how["data"]}
    data = job.data(changes)
    node = job.node("teacher", sizes)
    key = {
        "teacher": node,
        "data": {**job.settings["data"], **changes, "root": None},
        "content": data.fingerprint(),
        "training": {name: value for name, value in how.items() if name != "checkpoint"},
        "trainer": {**job.settings["trainer"], "max_epochs": how["max_epochs"]},
        "micro_batch_size": job.settings["distiller"].get("micro_batch_size"),
        "versions": versions(),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = Path(job.settings["cache_dir"]) / "teachers" / digest
    with run_folder.held(folder):
        if (folder / "config.json").exists():
            return load_student(folder, allow=job.allow)
        # What is wrong with the distiller shows now, not after the teacher's training.
        sample = {name: value[:8] for name, value in as_batch(next(iter(data.train_eval_dataloader()))).items()}
        job.distiller(job.model("student", sizes), copy.deepcopy(model)).rehearse(sample)
        distiller = job.untaught(model, kind.untaught, how)
        label = f"teacher, seed {how['seed']}"
        fit(distiller, data, job.training(label, folder, max_epochs=how["max_epochs"]))
        if run_folder.is_main_process():
            save_model(model, node, folder)
    return model.eval()


def remember_outputs(job: Job, distiller: Distiller, data: Any) -> None:
    """Give the distiller the teacher's outputs for all training rows, if that is right and worth it."""
    teacher, wanted = distiller.teacher, job.settings["teacher_cache"]
    if teacher is None or not wanted or not distiller.uses_teacher_output or data.is_augmented:
        return
    fingerprint = {
        "teacher": teacher_cache.weights_fingerprint(teacher),
        "inputs and their order": data.fingerprint(),
    }
    fingerprint["dtype"] = str(next(teacher.parameters()).dtype)
    digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(job.settings["cache_dir"]) / "teacher_outputs" / digest
    distiller.teacher_cache = teacher_cache.teacher_outputs(folder, fingerprint, teacher, data.train_eval_dataloader())
