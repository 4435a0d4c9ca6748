"""The check of a command line: every mistake in a line of its own, before Hydra stops at the first.

Nothing here imports torch. Only a key that no YAML file mentions is looked up in the signature of what it
belongs to, which imports that class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from kdzoo import config
from kdzoo.errors import ConfigError


@dataclass
class Checked:
    """What is wrong with a command line, and the overrides to hand to Hydra if nothing is."""

    mistakes: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)


def check(overrides: Sequence[str], folder: Path | None, *, multirun: bool = False) -> Checked:
    """Check overrides against the packaged config groups and those in the user's ``folder``."""
    result = Checked()
    if folder is not None and not folder.is_dir():
        result.mistakes.append(f"--config-dir {folder} is not a folder")
        folder = None
    options = groups([config.packaged_folder(), *([folder] if folder else [])])
    result.mistakes += _shadowed(folder)
    chosen, values = [], []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            result.mistakes.append(f"{text!r} is not an override: {str(error).splitlines()[0]}")
            continue
        if override.is_sweep_override() and not multirun and not text.startswith("hydra"):
            result.mistakes.append(f"{text!r} is a sweep over several values; add -m, or quote the value")
        elif _is_group(override, options):
            wrong = list(_of_group(override, options))
            result.mistakes += wrong
            chosen += [] if wrong else [(text, override)]
        else:
            values.append((text, override))
    cfg = _composed([_first_choice(text, override) for text, override in chosen], folder, result)
    result.overrides = [text for text, _ in chosen]
    for text, override in values:
        result.overrides.append(_check_value(text, override, cfg, options, result))
    if cfg is not None:
        given = {override.key_or_group for _, override in values}
        missing = [key for key in sorted(OmegaConf.missing_keys(cfg)) if not _covered(key, given)]
        result.mistakes += [f"{key} is missing; set {key}=..." for key in missing if not key.startswith("hydra")]
    return result


def groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the config groups in these folders, each with the names of its files."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(names) for group, names in found.items()}


def _shadowed(folder: Path | None) -> Iterator[str]:
    """Name the user's YAML files that have the name of a packaged one, which Hydra would pass over in silence."""
    if folder is None:
        return
    packaged = config.packaged_folder()
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder)
        if (packaged / name).exists() and packaged.resolve() != folder.resolve():
            yield f"{path} is hidden by the packaged {name.as_posix()}; give it another name"


def _is_group(override: Override, options: dict[str, list[str]]) -> bool:
    return override.key_or_group in options


def _choices(override: Override) -> list[Any]:
    """Return the values that an override stands for; a sweep over a range or interval counts as one."""
    value = override.value()
    swept = getattr(value, "list", None)
    return list(swept) if swept is not None else [value]


def _of_group(override: Override, options: dict[str, list[str]]) -> Iterator[str]:
    group = override.key_or_group
    for choice in _choices(override):
        names = choice if isinstance(choice, list) else [choice]
        for name in names:
            if name is not None and str(name) not in options[group]:
                near = config.nearest(str(name), options[group])
                yield f"{group}={name} does not exist{near}; {group} can be {options[group]}"


def _first_choice(text: str, override: Override) -> str:
    if not override.is_sweep_override():
        return text
    first = _choices(override)[0]
    return f"{override.get_key_element()}={'null' if first is None else first}"


def _composed(chosen: list[str], folder: Path | None, result: Checked) -> DictConfig | None:
    try:
        return config.compose(*chosen, config_dir=folder)
    except ConfigError as error:
        result.mistakes.append(str(error))
        return None


def _check_value(
    text: str, override: Override, cfg: DictConfig | None, options: dict[str, list[str]], result: Checked
) -> str:
    """Check a value override; return it as Hydra must be given it."""
    key = override.key_or_group
    if key.startswith("hydra.") or key.startswith("hydra/"):
        if "_target_" in key or key.startswith("hydra.callbacks"):
            result.mistakes.append(f"{key}: objects in Hydra's own settings are refused; use the callbacks group")
        return text
    if cfg is None:
        return text
    owner, rest = _descend(cfg, key.split("."))
    if rest:
        if _accepts(owner, rest) or (key.startswith("teacher_training.data.") and len(key.split(".")) >= 3):
            return text if text.startswith(("+", "~")) else f"++{text}"
        result.mistakes.append(_unknown(key, owner, rest, options))
        return text
    if override.is_delete():
        return text
    current = (
        OmegaConf.select(cfg, key, throw_on_missing=False)
        if not OmegaConf.is_missing(
            OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg, key.rpartition(".")[2]
        )
        else None
    )
    for choice in _choices(override):
        wanted = _mismatch(current, choice)
        if wanted:
            result.mistakes.append(f"{key} must be {wanted}, got {_plain(choice)!r}")
    if isinstance(current, DictConfig) and isinstance(override.value(), dict):
        known = set(current)
        for name in override.value():
            if known and str(name) not in known:
                near = config.nearest(str(name), map(str, known))
                result.mistakes.append(f"{key}.{name} is unknown{near}")
    return text


def _descend(cfg: DictConfig, parts: list[str]) -> tuple[Any, list[str]]:
    """Follow a key as far as it exists; return the last node and the parts that are not there."""
    node: Any = cfg
    for i, part in enumerate(parts):
        if isinstance(node, DictConfig) and part in node:
            node = None if OmegaConf.is_missing(node, part) else node[part]
        elif isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return node, parts[i:]
    return node, []


def _accepts(owner: Any, rest: list[str]) -> bool:
    """Return whether a node takes a key that its YAML does not mention."""
    if owner is None:
        return True  # a mapping that is not set yet, such as data.augment
    if not isinstance(owner, DictConfig) or "_target_" not in owner:
        return False
    try:
        parameters = config.parameters(config.locate(owner["_target_"]))
    except ConfigError:
        return False
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return rest[0] in parameters or free


def _unknown(key: str, owner: Any, rest: list[str], options: dict[str, list[str]]) -> str:
    parent = key[: len(key) - len(".".join(rest))].rstrip(".")
    known = [str(name) for name in owner if not str(name).startswith("_")] if isinstance(owner, DictConfig) else []
    if not parent:
        known = sorted({*known, *options})
    elif isinstance(owner, DictConfig) and "_target_" in owner:
        try:
            known = sorted({*known, *config.parameters(config.locate(owner["_target_"]))})
        except ConfigError:
            pass
    matches = config.nearest(rest[0], known)
    if matches:
        return f"{key} does not exist{matches}"
    where = f"{parent} has {known}" if parent else f"there are {known}"
    return f"{key} does not exist; {where}"


def _mismatch(current: Any, value: Any) -> str | None:
    """Return what a value must be, judged by the present one; None if it may be what it is."""
    value = _plain(value)
    if value is None or (isinstance(value, str) and "${" in value):
        return None
    if isinstance(current, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(current, int):
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if isinstance(current, float):
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if isinstance(current, str):
        return None if isinstance(value, str | int | float) and not isinstance(value, bool) else "a string"
    if isinstance(current, ListConfig):
        return None if isinstance(value, list) else "a list"
    if isinstance(current, DictConfig):
        return None if isinstance(value, dict) else "a mapping"
    return None


def _plain(value: Any) -> Any:
    """Return a parsed override value without Hydra's wrappers for quotes and casts."""
    return getattr(value, "text", value)


def _covered(key: str, given: set[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in given)
