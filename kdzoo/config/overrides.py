"""The words of a command line: all that is wrong with them at once, and what Hydra is given.

Hydra stops at the first mistake, after it has made a run folder. So every override is parsed, every value
of a sweep is composed, and ``mistakes`` reads the result, before Hydra is started.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from kdzoo import config
from kdzoo.config import validate
from kdzoo.errors import ConfigError

MANY_OF_A_GROUP = ("callbacks", "logger", "experiment", "debug", "inner_network")
"""Groups of which several files may be chosen, as in ``callbacks=[early_stopping,lr_monitor]``."""
FLAGS = ("-m", "--multirun", "-r", "--run", "--resolve")
VALUED = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p")
Groups = Mapping[str, list[str]]


@dataclass
class Words:
    """A command line: its flags with their values, its overrides and the user's config folder."""

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    folder: Path | None = None
    mistakes: list[str] = field(default_factory=list)

    @property
    def is_sweep(self) -> bool:
        """Whether several values of a key are several runs."""
        return bool({"-m", "--multirun"} & set(self.flags)) or "hydra.mode=MULTIRUN" in self.overrides


@dataclass
class Checked:
    """What a command line means.

    Attributes:
        mistakes: a line each.
        overrides: what Hydra is given.
        jobs: composed configurations in which every value of every sweep occurs.
    """

    mistakes: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    jobs: list[DictConfig] = field(default_factory=list)


def words(arguments: Sequence[str]) -> Words:
    """Sort the arguments of a command line."""
    found = Words()
    rest = iter(arguments)
    for argument in rest:
        name, has_value, value = argument.partition("=")
        if not argument.startswith("-"):
            found.overrides.append(argument)
            continue
        if name in VALUED and not has_value:
            value = next(rest, "")
        if name in ("--config-dir", "-cd"):
            found.folder = Path(value).expanduser().resolve()
            found.flags += ["--config-dir", str(found.folder)]
        elif name in VALUED:
            found.flags += [name, value]
        elif argument in FLAGS:
            found.flags.append(argument)
        else:
            near = config.nearest(name, [*FLAGS, *VALUED, "--help"])
            found.mistakes.append(f"unknown flag {argument!r}{near}; settings have no dashes: key=value")
    return found


def check(given: Words, commands: Sequence[str] = (), *, complete: bool = True) -> Checked:
    """Check a command line against the packaged config groups and those in the user's folder.

    Args:
        given: the words.
        commands: subcommands, one of which a word without ``=`` may have meant.
        complete: whether settings that are still missing (``???``) are mistakes.
    """
    folder = given.folder
    lines = [*given.mistakes, *_of_folder(folder)]
    folder = folder if folder is not None and folder.is_dir() else None
    groups = config.groups(folder)
    typed: list[Override] = []
    refused: set[str] = set()
    for text in given.overrides:
        try:
            override = _parsed(text, commands)
        except ConfigError as error:
            lines.append(str(error))
            continue
        wrong = list(_of_override(override, groups, given.is_sweep))
        lines += wrong
        if wrong:
            refused.add(override.key_or_group)
        else:
            typed.append(override)
    # What was refused is left out, and so is what is below it: it would be compared with the wrong defaults.
    typed = [one for one in typed if not any(one.key_or_group.startswith(f"{group}.") for group in refused)]
    result = Checked(lines)
    _compose(typed, groups, folder, result)
    allow = allowed([one.input_line or "" for one in typed], folder)
    for job in result.jobs:
        found = [*_of_hydra(job), *validate.in_settings(job, allow)]
        result.mistakes += [line for line in found if not _is_excused(line, refused, complete)]
    result.mistakes = list(dict.fromkeys(result.mistakes))
    return result


def allowed(overrides: Sequence[str], folder: Path | None) -> set[str]:
    """Return the names that may be built: packaged, in the user's folder, or typed."""
    typed: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        for value in _values(override, {}):
            typed |= {str(_text(value))} if override.key_or_group.endswith("_target_") else set(config.targets(value))
    return {*config.packaged_targets(), *(config.targets_in(folder) if folder else ()), *typed}


# ---------------------------------------------------------------- one word


def _parsed(text: str, commands: Sequence[str]) -> Override:
    if "=" not in text and not text.startswith("~"):
        near = config.nearest(text, commands)
        raise ConfigError(f"{text!r} is neither key=value nor a command{near}; commands: {', '.join(commands)}")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"{text!r} is not an override: {config.one_line(error)}") from error


def _of_override(override: Override, groups: Groups, is_sweep: bool) -> Iterator[str]:
    key, text = override.key_or_group, override.input_line
    if key.startswith("hydra"):
        if "_target_" in key:
            yield f"{key}: objects in Hydra's own settings are refused"
    elif override.is_sweep_override() and not is_sweep:
        yield f"{text!r} is a sweep over several values; add -m, or quote the value"
    elif _chooses(override, groups):
        yield from _of_choice(override, groups)


def _of_choice(override: Override, groups: Groups) -> Iterator[str]:
    group = override.key_or_group
    if override.is_add() and "/" not in group:
        yield f"{override.input_line!r}: leave out the +, {group} has a place already"
        return
    values = list(_values(override, groups))
    if not values:
        yield f"{override.input_line!r} matches nothing; {group} can be {groups[group]}"
    for value in values:
        if isinstance(value, list) and group not in MANY_OF_A_GROUP:
            yield f"{group} takes one name, got {value}"
            continue
        if value is None and override.is_sweep_override():
            yield f"{override.input_line!r}: null cannot be part of a sweep over {group}"
        for name in value if isinstance(value, list) else [value]:
            if name is not None and _text(name) not in groups[group]:
                near = config.nearest(str(_text(name)), groups[group])
                yield f"{group}={_text(name)} does not exist{near}; {group} can be {groups[group]}"


def _chooses(override: Override, groups: Groups) -> bool:
    """Return whether an override chooses a file of a group, and does not set values below its key."""
    return (
        override.key_or_group in groups
        and not override.is_delete()
        and not any(isinstance(value, dict) for value in _values(override, groups))
    )


def _values(override: Override, groups: Groups) -> Iterator[Any]:
    """Yield every value that an override stands for; of an interval, its ends."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        yield from (value.start, value.end)
    elif isinstance(value, Glob):
        yield from value.filter(groups.get(override.key_or_group, []))
    elif override.is_sweep_override():
        yield from override.sweep_iterator()
    else:
        yield value


def _text(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value


def _single(override: Override, groups: Groups) -> list[str]:
    """Return an override for every value that this one stands for, as Hydra must be given it."""
    text, key = override.input_line or "", override.get_key_element()
    value = override.value()
    if _chooses(override, groups) and value is None:
        return [f"~{override.key_or_group}"]  # Hydra's word for "no file of this group"
    if isinstance(value, IntervalSweep | Glob):
        texts = [f"{key}={one}" for one in _values(override, groups)]
    elif override.is_sweep_override():
        texts = [f"{key}={one}" for one in override.sweep_string_iterator()]
    else:
        texts = [text]
    return [config.with_new_key(one, groups) for one in texts]


# ---------------------------------------------------------------- all words together


def _compose(typed: Sequence[Override], groups: Groups, folder: Path | None, result: Checked) -> None:
    """Fill in the jobs: every combination of group choices, and in these every value at least once."""
    typed = [one for one in typed if not _fails_alone(one, typed, groups, folder, result)]
    choices = [one for one in typed if _chooses(one, groups)]
    values = [one for one in typed if not _chooses(one, groups)]
    to_container: list[DictConfig] = []
    for chosen in itertools.product(*(_single(one, groups) for one in choices)):
        columns = [_single(one, groups) for one in values]
        try:
            to_container.append(config.compose_all([*chosen, *_of_hydra_itself(values, groups)], folder))
            for i in range(max(map(len, columns), default=1)):
                row = [column[i % len(column)] for column in columns]
                result.jobs.append(config.compose_all([*chosen, *row], folder))
        except ConfigError as error:
            result.mistakes.append(f"{' '.join(chosen)}: {error}".removeprefix(": "))
    for override in typed:
        result.mistakes += _of_shared(override, to_container)
        text = override.input_line or ""
        if _chooses(override, groups) and override.value() is None:
            text = f"~{override.key_or_group}"
        # A mapping may bring keys that the one in the file lacks, as loss_weights={z1: 0.5} does.
        is_new = isinstance(override.value(), dict) or not all(_has(cfg, override.key_or_group) for cfg in to_container)
        result.overrides.append(config.with_new_key(text, groups) if is_new else text)


def _of_hydra_itself(values: Sequence[Override], groups: Groups) -> list[str]:
    return [text for one in values if one.key_or_group.startswith("hydra") for text in _single(one, groups)[:1]]


def _fails_alone(
    override: Override, typed: Sequence[Override], groups: Groups, folder: Path | None, result: Checked
) -> bool:
    """Note what Hydra says of an override that is not a plain choice or value: those cannot fail."""
    text = _single(override, groups)[0]
    if text.startswith("++") or (_chooses(override, groups) and not text.startswith("+")):
        return False
    launcher = [one.input_line or "" for one in typed if one.key_or_group.startswith("hydra/") and one is not override]
    try:
        config.compose_all([*launcher, text], folder)
    except ConfigError as error:
        result.mistakes.append(f"{override.input_line}: {error}")
        return True
    return False


def _has(cfg: DictConfig, key: str) -> bool:
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(node, DictConfig) and (last in node or OmegaConf.is_missing(node, last))


def _of_shared(override: Override, to_container: Sequence[DictConfig]) -> Iterator[str]:
    """Refuse to set a key below a reference: the value would be set in what is referred to as well."""
    parts = override.key_or_group.split(".")
    for cfg, i in itertools.product(to_container[:1], range(1, len(parts))):
        parent, above = ".".join(parts[:i]), ".".join(parts[: i - 1])
        node = OmegaConf.select(cfg, above) if above else cfg
        if isinstance(node, DictConfig) and parts[i - 1] in node and OmegaConf.is_interpolation(node, parts[i - 1]):
            source = dict(OmegaConf.to_container(node, resolve=False))[parts[i - 1]]  # type: ignore[arg-type]
            yield f"{override.key_or_group} would change {source} too; set all of {parent}={{_target_: ..., ...}}"


def _of_hydra(job: DictConfig) -> Iterator[str]:
    if job.hydra.callbacks:
        yield "hydra.callbacks are refused; use the callbacks group"


def _of_folder(folder: Path | None) -> Iterator[str]:
    """Name YAML files with the name of a packaged one, which Hydra would pass over in silence."""
    if folder is None:
        return
    if not folder.is_dir():
        yield f"--config-dir {folder} is not a folder"
        return
    packaged = config.packaged_folder()
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder)
        if (packaged / name).exists() and packaged.resolve() != folder:
            yield f"{path} is hidden by the packaged {name.as_posix()}; give it another name"


def _is_excused(line: str, refused: set[str], complete: bool) -> bool:
    """Return whether a setting is missing only because the word that gives it was refused."""
    key, is_missing, _ = line.partition(" is missing")
    return bool(is_missing) and (not complete or any(key == one or key.startswith(f"{one}.") for one in refused))
