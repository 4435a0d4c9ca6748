"""Composing the configuration of a run with Hydra, and what the packaged config groups contain."""

import copy
import hashlib
import json
import re
import shlex
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdzoo.config import sweepers, yaml_files
from kdzoo.config.equal_settings import with_floats
from kdzoo.config.instantiate import one_line, targets, to_container
from kdzoo.config.yaml_files import packaged_folder
from kdzoo.errors import ConfigError, did_you_mean

_PLAIN_OVERRIDE = re.compile(r"[\w./-]+=")  # key=value, without a prefix that says whether the key must exist
# Settings that change no result, and so may differ when a run is continued.
FREE_KEYS = ("output_dir", "cache_dir", "logger", "expected", "hydra")
# Keys of the trainings beside the student's, with settings of their own.
OTHER_TRAININGS = ("teacher_training", "control_training")
# The batch is that of all processes, so that a run may be continued on another number of them. They are not left out of
# the name of a run: methods that draw random numbers in a step draw others on each process.
FREE_WHEN_CONTINUED = (*FREE_KEYS, "trainer.devices", "trainer.num_nodes", "trainer.strategy")
# Run id -> command line of what this process has composed. A configuration is found here by its settings rather than as
# an object, so that one that was changed after it was composed is not taken for what its overrides say.
_commands: dict[str, str] = {}


def result_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that determine the result of a run, resolved."""
    return to_container(OmegaConf.masked_copy(cfg, [key for key in map(str, cfg) if key not in FREE_KEYS]))


def plain_settings(cfg: DictConfig | ListConfig) -> dict[str, Any]:
    """Return all settings of a run as plain values."""
    settings = copy.deepcopy(to_container(cfg))
    # For the teacher, a schedule over ${trainer.max_epochs} is one over the teacher's epochs; so for the control.
    for training in OTHER_TRAININGS:
        epochs = {"trainer": {"max_epochs": settings[training]["max_epochs"]}}
        settings[training] = to_container(OmegaConf.merge(cfg, epochs))[training]
    return settings


def run_id(cfg: DictConfig) -> str:
    """Return a short name that is the same for the same settings."""
    # Ten hexadecimal digits: the chance that any two of 1000 runs have one name is below 1 in a million.
    settings = json.dumps(with_floats(result_settings(cfg)), sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()[:10]


# Registered when this module is imported, so that the worker processes of a launcher know them too.
OmegaConf.register_new_resolver("run_id", lambda *, _root_: run_id(_root_), replace=True)
sweepers.register()


def compose(*overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """Return the configuration of a run, as the command line would compose it.

    Args:
        *overrides: As on the command line, ``"data=mnist"`` or ``"student.hidden=[800,800]"``. Keys that no YAML file
            mentions may be set; ``kdzoo.run`` rejects those that are not an argument of anything.
        config_dir: A folder with config groups of your own.

    Raises:
        ConfigError: An override is not a string, cannot be parsed, or names a file that its group does not have.

    Example:
        >>> compose("distiller.temperature=2", "seed=0").distiller.temperature
        2
    """
    folder = Path(config_dir) if config_dir is not None else None
    known = groups(folder)
    for text in overrides:
        if not isinstance(text, str):
            raise ConfigError(f"compose takes overrides as strings, such as 'data=digits', got {text!r}")
        group, _, name = text.partition("=")
        # Plain names only; Hydra reports what is wrong with lists and other forms.
        if group in known and name.isidentifier() and name != "null" and name not in known[group]:
            raise ConfigError(no_such_choice(group, name, known[group]))
    cfg = compose_all([with_new_key(text, known) for text in overrides], folder)
    choices = cfg.hydra.runtime.choices
    OmegaConf.set_struct(cfg, False)
    if cfg.output_dir is None:
        cfg.output_dir = f"outputs/{choices.distiller}-{choices.data}-{run_id(cfg)}"
    del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    flags = ["--config-dir", str(folder.resolve())] if folder else []
    with suppress(OmegaConfBaseException):  # a value that cannot be resolved is reported when the run is checked
        _commands[run_id(cfg)] = shlex.join(["kdzoo", *flags, *overrides])
    return cfg


def composing_command(cfg: DictConfig) -> str:
    """Return the command line of the overrides that :func:`compose` made these settings of; empty if it did not."""
    return _commands.get(run_id(cfg), "")


def no_such_choice(group: str, name: str, known: Sequence[str]) -> str:
    """Return the message for a name that a config group does not have."""
    return f"{group}={name} does not exist{did_you_mean(name, known)}; {group} can be {', '.join(known)}"


def compose_all(overrides: Sequence[str], folder: Path | None) -> DictConfig:
    """Return the composed configuration, with Hydra's settings below ``hydra``.

    Raises:
        ConfigError: Hydra rejects an override or a file; the message is one line.
    """
    search_path = [f"hydra.searchpath=['file://{folder.resolve()}']"] if folder else []
    # Hydra keeps one global state; inside of a run that it has started, that state must be put back.
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("kdzoo.conf", version_base="1.3"):
            return hydra_compose("train", [*overrides, *search_path], return_hydra_config=True)
    except MissingConfigException as error:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        known = groups(folder)
        raise ConfigError(no_such_choice(group, name, known[group]) if group in known else one_line(error)) from error
    except RecursionError:
        raise ConfigError("a YAML file includes itself in its defaults, or has brackets in brackets") from None
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(_reason(error, folder)) from error
    finally:
        GlobalHydra.instance().hydra = running


def _reason(error: BaseException, folder: Path | None) -> str:
    """Return one line on why a configuration cannot be composed, with the file where the error does not name it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, UnicodeDecodeError | yaml.YAMLError):
        for path in folder.rglob("*.yaml") if folder else ():
            yaml_files.read(path)
    # Some of Hydra's errors say nothing themselves, or only which override it is, which is reported with it.
    while (not str(error) or str(error).startswith("Error merging override")) and error.__cause__ is not None:
        error = error.__cause__
    key = error.full_key if isinstance(error, OmegaConfBaseException) else None
    return f"{key}: {one_line(error)}" if key else one_line(error)


def with_new_key(text: str, known_groups: Collection[str]) -> str:
    """Return an override as Hydra must be given it, so that keys that no YAML file mentions and ``group=null`` work."""
    key, _, value = text.partition("=")
    if key in known_groups and value == "null":
        return f"~{key}"  # how Hydra is told to use no file of this group
    is_choice = key in known_groups and not text.startswith(f"{key}={{")
    is_plain = _PLAIN_OVERRIDE.match(text) and not key.startswith(("hydra.", "hydra/"))
    return f"++{text}" if is_plain and not is_choice else text


def groups(folder: Path | None = None) -> dict[str, list[str]]:
    """Return the packaged config groups and those in ``folder``, each with the names of its files."""
    names: dict[str, set[str]] = {}
    for root in filter(None, (packaged_folder(), folder)):
        for path in root.rglob("*.yaml"):
            group = path.parent.relative_to(root).as_posix()
            if group != ".":
                names.setdefault(group, set()).add(path.stem)
    return {group: sorted(stems) for group, stems in names.items()}


def targets_in(folder: Path) -> set[str]:
    """Return every ``_target_`` that the YAML files below ``folder`` name.

    A file that cannot be read names none: it must not keep the others from being used, and whoever chooses it is told.
    """
    names: set[str] = set()
    for path in folder.rglob("*.yaml"):
        with suppress(ConfigError):
            names.update(targets(yaml_files.read(path)))
    return names


@cache
def packaged_targets() -> frozenset[str]:
    """Return the names that the packaged configuration may build."""
    return frozenset(targets_in(packaged_folder()))
