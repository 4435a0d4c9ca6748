"""Filling the stores of teacher outputs that runs read, before the runs, in as many processes as there are."""

import tempfile
from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig

from kdzoo import config
from kdzoo.config import validate
from kdzoo.core.base import Distiller
from kdzoo.errors import ConfigError
from kdzoo.runs import teachers
from kdzoo.runs.job import Job, for_seed
from kdzoo.runs.preparation import prepare_models


def cache_outputs(cfg: DictConfig, *, allow: Collection[str] = ()) -> list[Path]:
    """Train the teachers of a run as far as they have to be, and store their outputs for all training samples.

    Processes that do this at the same time share the work, and the run itself then finds it done.

    Args:
        cfg: What ``kdzoo.compose`` returns.
        allow: Names of your own classes that the configuration may build; packaged ones are always allowed.

    Returns:
        The folder of the store of each seed.

    Raises:
        ConfigError: The configuration has mistakes, or its runs do not store the outputs.
        KdzooError: The data, a file or the training of a teacher has failed.
    """
    allow = {*config.packaged_targets(), *allow}
    mistakes = validate.mistakes(cfg, allow)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    seeds = list(cfg.seeds) if cfg.seed is None else [cfg.seed]
    # What belongs to a run and not to its cache, such as the history of the teacher's training, is not kept.
    with tempfile.TemporaryDirectory() as folder:
        return [_cache_seed(Job(for_seed(cfg, seed), seed, Path(folder) / f"seed_{seed}", allow)) for seed in seeds]


def _cache_seed(job: Job) -> Path:
    data = job.data()
    method: type[Distiller] = config.locate(job.settings["distiller"]["_target_"])
    models, is_cacheable = prepare_models(job, method, data)
    distiller = job.distiller(models["student"], models.get("teacher"))
    transfer_set = distiller.transfer_set(data)
    store = teachers.output_store(job, distiller, transfer_set) if is_cacheable else None
    if store is None:
        raise ConfigError(
            f"{method.__name__} on {type(data).__name__} stores no outputs of a teacher: its losses must read the "
            "teacher through its outputs only, the samples must be of one shape and not augmented, and teacher_cache "
            "must be true"
        )
    store.fill()
    return store.folder
