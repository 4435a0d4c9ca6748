"""Measurement of models: all models of a run, an exported one from its folder, and the cost of prediction."""

import statistics
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from kdzoo import config, kinds
from kdzoo.core.base import DRY_RUN_SAMPLES
from kdzoo.core.batch import as_batch
from kdzoo.core.inference import inference
from kdzoo.core.progress import track
from kdzoo.kinds.protocols import BindsToData, DescribesModel, MeasuresUnseenClasses, PlotsPredictions, Warns
from kdzoo.runs.job import Job, for_seed
from kdzoo.storage.checkpoint import load_student
from kdzoo.storage.run_folder import is_main_process

# Measurements of the cost of prediction, and the CPU seconds after which there are no more.
MEASUREMENTS, MEASURED_SECONDS = 5, 2.0


def bound_kind(kind: kinds.Kind, data: Any, settings: Mapping[str, Any]) -> kinds.Kind:
    """Return a kind that is ready to measure models of some data."""
    if not isinstance(kind, BindsToData):
        return kind
    bound: kinds.Kind = kind.bind(data, Path(settings["cache_dir"]), settings["feature_extractor"])
    return bound


def evaluate(
    kind: kinds.Kind, models: Mapping[str, nn.Module], data: Any, folder: Path, unseen: Sequence[int] = ()
) -> dict[str, Any]:
    """Measure every model on the test split, and student and controls against the teacher.

    Args:
        kind: The student's kind, bound to the data.
        models: Teacher, student and controls by role.
        data: The data module.
        folder: Folder of the seed, for figures.
        unseen: Classes that the student's training split lacks. What corrects for that is chosen on the validation
            split, if there is one.
    """
    batches = list(data.test_dataloader())
    predicting = track(models.items(), "predicting the test samples", unit="models")
    predictions = {role: kind.predict(model, batches) for role, model in predicting}
    measuring = track(models.items(), "measuring", unit="models")
    measured = {role: measure(kind, model, predictions[role], batches) for role, model in measuring}
    validation = list(data.val_dataloader()) if unseen else []
    if validation and isinstance(kind, MeasuresUnseenClasses):
        for role, model in models.items():
            corrected = kind.unseen(predictions[role], kind.predict(model, validation), unseen)
            measured[role]["metrics"] |= corrected
    # Every rank measures all samples; only one may write.
    if isinstance(kind, PlotsPredictions) and is_main_process():
        kind.plot_predictions(predictions, folder / "figures")
    compared = [role for role in predictions if role != "teacher" and "teacher" in predictions]
    return {
        "kind": kind.name,
        "models": measured,
        "fidelity": {role: kind.fidelity(predictions[role], predictions["teacher"]) for role in compared},
        "splits": data.summary(),
        "warnings": warnings_of(kind, measured),
        "validation": validation_score(kind, models["student"], data),
    }


def warnings_of(kind: kinds.Kind, measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a clause for each fault that the kind recognises in the measurements of models, with the model's role."""
    if not isinstance(kind, Warns):
        return []
    # Without parameters are the stored samples of reference scores, which nothing has trained.
    trained = {role: model["metrics"] for role, model in measured.items() if model["parameters"]}
    return [f"{role}: {fault}" for role, metrics in trained.items() for fault in kind.warnings(metrics)]


def validation_score(kind: kinds.Kind, model: nn.Module, data: Any) -> float | None:
    """Return the score of a model on the validation split, on which settings are chosen; None without such a split."""
    batches = list(data.val_dataloader() or ())
    return kinds.quick_scores(kind, model, batches)[kind.score] if batches else None


def measure(kind: kinds.Kind, model: nn.Module, predictions: Any, batches: Iterable[Any]) -> dict[str, Any]:
    """Return the measurements of one model: its size, its metrics and properties, and the cost of prediction."""
    properties = kind.properties(model) if isinstance(kind, DescribesModel) else {}
    return {
        "parameters": kinds.count_parameters(kind, model),
        "metrics": {**kind.metrics(predictions), **properties},
        "cpu_ms_per_1000": cpu_ms_per_1000(model, batches),
    }


def evaluate_folder(folder: Path, cfg: DictConfig, *, allow: Collection[str] = ()) -> dict[str, Any]:
    """Measure an exported model on the test split of the configuration's data.

    Args:
        folder: An exported model, or the folder of a run for its student.
        cfg: A composed configuration; its data are used, and its ``kind`` if it chooses one.
        allow: Names of your own classes that the folder and the configuration may build.

    Returns:
        ``parameters``, ``metrics`` of the kind, ``cpu_ms_per_1000`` and the sizes of the ``splits``.

    Raises:
        ConfigError: The model does not fit the data.
        CheckpointError: The folder does not hold a complete model.
        DataError: The data are missing or do not fit the task.
    """
    allow = {*config.packaged_targets(), *allow}
    model = load_student(folder, allow=allow)
    seed = cfg.seed if cfg.seed is not None else cfg.seeds[0]
    job = Job(for_seed(cfg, seed), seed, folder, allow)
    data = job.data()
    kind = bound_kind(job.kind_of("student", model, data.sizes), data, job.settings)
    batches = list(data.test_dataloader())
    sample = {key: value[:DRY_RUN_SAMPLES] for key, value in as_batch(batches[0]).items()}
    kind.check("model", model, sample, data.sizes)
    return {**measure(kind, model, kind.predict(model, batches), batches), "splits": data.summary()}


def cpu_ms_per_1000(model: nn.Module, batches: Iterable[Any]) -> float:
    """Return the CPU milliseconds of 1000 predictions, in one thread, as the median of up to five measurements.

    Args:
        model: The model.
        batches: The first batch is predicted.
    """
    inputs = as_batch(next(iter(batches)))["input"].to(next(iter(model.parameters()), torch.empty(0)).device)
    # One thread, so that the time does not depend on the number of cores. CPU time rather than wall time, so that other
    # processes on the machine hardly change it.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times: list[float] = []
    with inference(model):
        model(inputs)  # the first call allocates memory and may compile
        # Long measurements vary little, so that of a slow model fewer are enough.
        while len(times) < MEASUREMENTS and sum(times) < MEASURED_SECONDS:
            start = time.process_time()
            model(inputs)
            times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    # Seconds per len(inputs) predictions, in milliseconds per 1000.
    return 1e6 * statistics.median(times) / len(inputs)
