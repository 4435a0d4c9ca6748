"""The other ranks of a data-parallel job: processes that Lightning starts as copies of the whole command line."""

import json
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdzoo.cli import working_folder
from kdzoo.config.processes import is_data_parallel
from kdzoo.errors import ConfigError

# Path of the settings for the other ranks. An environment variable, because only these reach the processes that
# Lightning starts.
RANK_SETTINGS = "KDZOO_RANK_SETTINGS"


def is_other_rank() -> bool:
    """Return whether this process was started as another rank than the first."""
    return RANK_SETTINGS in os.environ


def run_rank() -> None:
    """Run as another rank than the first, with the settings that the first rank has resolved."""
    working_folder.make_importable()
    from kdzoo.runs.pipeline import run
    from kdzoo.runs.resume import Interrupted

    content = json.loads(Path(os.environ[RANK_SETTINGS]).read_text(encoding="utf-8"))
    try:
        run(OmegaConf.create(content["cfg"]), allow=content["allow"], command=content["command"])
    except Interrupted as stop:
        sys.exit(stop.exit_code)


@contextmanager
def pinned_ranks(cfg: DictConfig, allow: Collection[str], line: str) -> Iterator[None]:
    """Give the other ranks of this job its settings.

    In a sweep they would not know which job they belong to, and a sweeper such as Optuna would choose other
    hyperparameters for them.

    Args:
        cfg: The configuration of the job.
        allow: Names of the classes and functions that it may build.
        line: The command line that starts it again.
    """
    if not is_data_parallel(cfg.trainer):
        yield
        return
    path = Path(cfg.output_dir) / "rank_settings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"cfg": OmegaConf.to_container(cfg), "allow": sorted(allow), "command": line}
    path.write_text(json.dumps(content), encoding="utf-8")
    before = dict(os.environ)
    os.environ[RANK_SETTINGS] = str(path)
    try:
        yield
    finally:
        # Variables that Lightning set for this job would make the next job of a sweep wait for ranks that have ended.
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        path.unlink(missing_ok=True)
        _leave_process_group()


def check_launcher(cfg: DictConfig, settings: DictConfig) -> None:
    """Reject data-parallel runs in the worker processes of a launcher, which must not start processes themselves.

    Args:
        cfg: The configuration of the job.
        settings: Hydra's own settings.

    Raises:
        ConfigError: Names the number of devices and the launcher.
    """
    launcher = settings.runtime.choices.get("hydra/launcher", "basic")
    if is_data_parallel(cfg.trainer) and settings.mode == RunMode.MULTIRUN and launcher != "basic":
        raise ConfigError(f"trainer.devices={cfg.trainer.devices} needs hydra/launcher=basic, got {launcher}")


def _leave_process_group() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
