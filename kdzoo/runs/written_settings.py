"""The settings that a run has written to its ``config.yaml``, read as data: the file may come from elsewhere."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdzoo import config
from kdzoo.config.places import check_places
from kdzoo.config.roles import check_roles
from kdzoo.errors import ConfigError
from kdzoo.runs.job import with_seed
from kdzoo.storage import run_folder

# Folder of one seed in a run folder.
_SEED_FOLDER = re.compile(r"seed_\d+")


def load(path: Path) -> DictConfig:
    """Return the configuration of the run that has written a file, which writes only to the file's folder.

    Args:
        path: The ``config.yaml``.

    Raises:
        ConfigError: The file is missing, has something else than plain values, names a class of another sort, or
            chooses a folder to write to or a program.
        RunFolderError: The file cannot be read, or a link leads out of its folder.
    """
    if not path.is_file():
        raise ConfigError(f"the configuration file {str(path)!r} does not exist; kdzoo.compose makes one of overrides")
    run_folder.check_links(path.parent)
    written = run_folder.read_settings(path)
    # These settings change no result, so that the caller's own can be used.
    places = {"output_dir": str(path.parent), "cache_dir": config.compose().cache_dir, "logger": None}
    ignored = [key for key in ("cache_dir", "logger") if written.get(key) != places[key]]
    if ignored:
        print(f"kdzoo: {' and '.join(ignored)} in {path} are not used: they write elsewhere", file=sys.stderr)
    if written.get("feature_extractor") is not None:  # a program
        raise ConfigError(f"{path}: feature_extractor must be null: a file may not choose a program; compose the run")
    kept = {key: value for key, value in written.items() if key not in places}
    _check(kept, path)
    # A seed that follows ``${seed}`` is null in the file if the run has several seeds.
    return OmegaConf.create({key: with_seed(value, "${seed}") for key, value in kept.items()} | places)


def with_data_of_run(cfg: DictConfig, folder: Path) -> DictConfig:
    """Return a configuration with the data of the run that an exported model belongs to, if the folder is in a run.

    Args:
        cfg: A composed configuration.
        folder: An exported model in a run folder, or the run folder.

    Raises:
        ConfigError: The run's settings are not plain values, or choose a folder to write to.
        RunFolderError: The file of the settings cannot be read.
    """
    for place in (folder, folder.parent, folder.parent.parent):
        path = place / "config.yaml"
        settings = run_folder.read_settings(path) if path.is_file() else {}
        if isinstance(settings.get("data"), dict):
            _check({"data": settings["data"]}, path)
            seed = next((int(part[5:]) for part in folder.parts[::-1] if _SEED_FOLDER.fullmatch(part)), None)
            seeds = settings.get("seeds") or [0]
            data = with_seed(settings["data"], seeds[0] if seed is None else seed)
            # The student of a trial run is measured on as few and as short samples as it was in the run.
            limits = {key: settings.get(key) for key in ("max_samples", "max_sequence_length")}
            changes: dict[str, Any] = {"data": data, **limits}
            unchanged = {str(key): cfg[key] for key in cfg if key not in changes}
            return OmegaConf.create({**unchanged, **changes})
    return cfg


def _check(settings: Mapping[str, Any], path: Path) -> None:
    """Reject settings by which a file would write elsewhere or build something that does not belong there."""
    check_places(settings, str(path))
    check_roles(settings, str(path))
