"""Measuring a model: an exported one from its folder, and what prediction costs."""

import statistics
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from kdzoo import config, kinds
from kdzoo.core.batch import as_batch
from kdzoo.run.job import Job, for_seed, kind_of_student
from kdzoo.storage.checkpoint import load_student


def evaluate_folder(folder: Path, cfg: DictConfig, *, allow: Collection[str] = ()) -> dict[str, Any]:
    """Measure an exported model on the test part of the configuration's data.

    Args:
        folder: an exported model, or the folder of a run for its student.
        cfg: a composed configuration; its data are used, and the kind of its distiller's student for models that do not
            say theirs.
        allow: names of your own classes that the folder and the configuration may build.

    Returns:
        ``parameters``, ``metrics`` of the kind, ``cpu_ms_per_1000`` and the sizes of the ``splits``.

    Raises:
        ConfigError: the model does not fit the data.
        CheckpointError: the folder holds no whole model.
        DataError: the data are unfit.
    """
    allow = {*config.packaged_targets(), *allow}
    model = load_student(folder, allow=allow)
    seed = cfg.seed if cfg.seed is not None else cfg.seeds[0]
    data = Job(for_seed(cfg, seed), seed, folder, allow).data()
    chosen = kind_of_student(cfg.distiller)
    kind = next((one for one in kinds.KINDS.values() if one.is_exclusive_match(model)), chosen)
    kind = kind.bind(data, Path(cfg.cache_dir), cfg.feature_extractor)
    batches = list(data.test_dataloader())
    sample = {key: value[:8] for key, value in as_batch(batches[0]).items()}
    kind.check("model", model, sample, data.sizes)
    return {
        "parameters": kind.size(model),
        "metrics": {**kind.metrics(kind.predict(model, batches)), **kind.properties(model)},
        "cpu_ms_per_1000": cpu_ms_per_1000(model, batches),
        "splits": data.summary(),
    }


def cpu_ms_per_1000(model: nn.Module, batches: Iterable[Any], repeats: int = 5) -> float:
    """Return the CPU milliseconds of 1000 predictions in the loader's batches, one thread, median of several."""
    inputs = as_batch(next(iter(batches)))["input"].to(next(iter(model.parameters()), torch.empty(0)).device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    with torch.no_grad():
        model(inputs)
        for _ in range(repeats):
            start = time.process_time()
            model(inputs)
            times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return 1e6 * statistics.median(times) / len(inputs)
