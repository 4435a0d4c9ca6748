"""Parsing a command line and finding every mistake in it before Hydra starts.

Hydra stops at the first mistake, after it has made a run folder. So every override is parsed, every value of a sweep is
composed, and :mod:`kdzoo.config.validate` checks the results, before Hydra is started.
"""

import itertools
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdzoo import config
from kdzoo.config import planned_jobs, search_space, validate, yaml_files
from kdzoo.errors import ConfigError, did_you_mean

# Groups of which several files may be chosen, as in ``callbacks=[early_stopping,lr_monitor]``.
MULTI_CHOICE_GROUPS = ("callbacks", "logger", "experiment", "debug", "inner_network")
# Hydra's flags that make sense here. Others, such as --config-name, would replace the packaged configuration.
FLAGS = ("-m", "--multirun", "-r", "--run", "--resolve")
ACTION_FLAGS = {
    **dict.fromkeys(("-m", "--multirun"), "sweep"),
    **dict.fromkeys(("-r", "--run"), "run"),
    **dict.fromkeys(("--cfg", "-c"), "show"),
}
FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p")
Groups = Mapping[str, list[str]]


@dataclass
class CommandLine:
    """The arguments of a command line, sorted.

    Attributes:
        flags: Flags with their values, as Hydra takes them.
        overrides: Everything without a leading dash: overrides, and the word of a subcommand.
        folder: The user's config folder, or None.
        mistakes: One line for each unknown flag.
    """

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    folder: Path | None = None
    mistakes: list[str] = field(default_factory=list)

    @property
    def is_sweep(self) -> bool:
        """Whether several values of a key are several runs."""
        return bool({"-m", "--multirun"} & set(self.flags)) or "hydra.mode=MULTIRUN" in self.overrides

    @property
    def shows_settings(self) -> bool:
        """Whether the settings are printed and nothing is run."""
        return bool({"--cfg", "-c"} & set(self.flags))


@dataclass
class CheckResult:
    """The result of checking a command line: its mistakes and the configurations that it composes.

    Attributes:
        mistakes: One line each.
        overrides: The overrides as Hydra must be given them.
        jobs: Composed configurations in which every value of every sweep occurs at least once.
        planned: The overrides of each job of a sweep, in the order in which Hydra numbers the jobs; empty if a sweeper
            chooses them during the sweep.
        params: The overrides of a sweep that are not on the command line, from ``hydra.sweeper.params``.
    """

    mistakes: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    jobs: list[DictConfig] = field(default_factory=list)
    planned: list[list[str]] = field(default_factory=list)
    params: list[str] = field(default_factory=list)


def parse(arguments: Sequence[str]) -> CommandLine:
    """Sort the arguments of a command line into flags and overrides."""
    line = CommandLine()
    rest = iter(arguments)
    for argument in rest:
        name, has_value, value = argument.partition("=")
        if not argument.startswith("-"):
            line.overrides.append(argument)
            continue
        if name in FLAGS_WITH_VALUE and not has_value:
            value = next(rest, "")
        if name in ("--config-dir", "-cd"):
            # Absolute, because Hydra resolves a relative folder against the file of its main function.
            line.folder = Path(value).expanduser().resolve()
            line.flags += ["--config-dir", str(line.folder)]
        elif name in FLAGS_WITH_VALUE:
            line.flags += [name, value]
        elif argument in FLAGS:
            line.flags.append(argument)
        else:
            hint = did_you_mean(name, [*FLAGS, *FLAGS_WITH_VALUE, "--help"])
            line.mistakes.append(f"unknown flag {argument!r}{hint}; settings have no dashes: key=value")
    actions = [flag for flag in line.flags if flag in ACTION_FLAGS]
    if len({ACTION_FLAGS[flag] for flag in actions}) > 1:
        line.mistakes.append(f"{' and '.join(actions)} exclude each other; choose one")
    return line


def folders_of(command: str) -> list[Path]:
    """Return the user's config folder that a command line in a report names; nothing if it names none.

    Example:
        >>> [str(path) for path in folders_of("kdzoo --config-dir '/my conf' seed=0")]
        ['/my conf']
    """
    if not command.startswith("kdzoo "):
        return []
    try:
        folder = parse(shlex.split(command)[1:]).folder
    except ValueError:  # a line with an open quote, written by hand
        return []
    return [folder] if folder else []


def check(line: CommandLine, commands: Sequence[str] = (), *, complete: bool = True) -> CheckResult:
    """Check a command line against the packaged config groups and those in the user's folder.

    Args:
        line: The parsed command line.
        commands: Names of the subcommands, to suggest one for an unknown word without ``=``.
        complete: Whether settings that are still missing (``???``) are mistakes.
    """
    folder = line.folder if line.folder is not None and line.folder.is_dir() else None
    groups = config.groups(folder)
    result = CheckResult([*line.mistakes, *yaml_files.folder_mistakes(line.folder)])
    accepted, rejected = list[Override](), set[str]()
    for text in line.overrides:
        try:
            override = _parse_override(text, commands)
        except ConfigError as error:
            result.mistakes.append(str(error))
            continue
        lines = list(_override_mistakes(override, groups, line.is_sweep))
        result.mistakes += lines
        if lines:
            rejected.add(override.key_or_group)
        else:
            accepted.append(override)
    accepted = _without(accepted, rejected)
    _compose_jobs(accepted, groups, folder, result)
    if not result.jobs:
        # A chosen file that cannot be composed must not hide the mistakes of the others.
        broken = {item.key_or_group for item in accepted if _is_broken_choice(item, groups, folder)}
        if broken:
            rejected |= broken
            accepted = _without(accepted, rejected)
            _compose_jobs(accepted, groups, folder, result)
    params = search_space.params(result.jobs[0], [item.key_or_group for item in accepted]) if result.jobs else []
    if params and (line.is_sweep or result.jobs[0].hydra.mode == RunMode.MULTIRUN):
        sweep = replace(line, flags=[*line.flags, "-m"], overrides=[*line.overrides, *params])
        return replace(check(sweep, commands, complete=complete), params=params)
    if params and not line.shows_settings:
        result.mistakes.append(f"the settings are to be searched (hydra.sweeper.params: {', '.join(params)}); add -m")
    if line.is_sweep and result.jobs:
        result.mistakes += search_space.mistakes(result.jobs[0], accepted)
        own = [item for item in accepted if not item.key_or_group.startswith("hydra")]
        result.planned = planned_jobs.combinations(result.jobs[0], [_single_overrides(item, groups) for item in own])
    allow = allowed_targets([override.input_line or "" for override in accepted], folder)
    for job in result.jobs:
        lines = [*_hydra_callback_mistakes(job), *validate.mistakes(job, allow)]
        lines = [text for text in lines if not _is_excused(text, rejected, complete)]
        result.mistakes += [text for text in lines if not _is_consequence(text, result.mistakes)]
    result.mistakes = list(dict.fromkeys(result.mistakes))
    return result


def _without(overrides: Sequence[Override], rejected: Collection[str]) -> list[Override]:
    """Return the overrides but the rejected ones and those of keys below them.

    The latter would be compared with the default file of the group.
    """
    prefixes = tuple(f"{group}." for group in rejected)
    return [
        item for item in overrides if item.key_or_group not in rejected and not item.key_or_group.startswith(prefixes)
    ]


def _is_broken_choice(override: Override, groups: Groups, folder: Path | None) -> bool:
    """Return whether an override chooses a file of one part of the configuration that cannot be composed by itself.

    Not one that configures a whole run: without it, every setting would be compared with those of another run.
    """
    if not _is_group_choice(override, groups) or override.key_or_group in ("experiment", "debug"):
        return False
    try:
        config.compose_all(_single_overrides(override, groups)[:1], folder)
    except ConfigError:
        return True
    return False


def allowed_targets(overrides: Sequence[str], folder: Path | None) -> set[str]:
    """Return the names that may be built: packaged ones, those in the user's folder, and those in the overrides."""
    in_overrides: set[str] = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        is_target = override.key_or_group.endswith("_target_")
        for value in _values(override, {}):
            in_overrides |= {str(_unquoted(value))} if is_target else set(config.targets(value))
    return {*config.packaged_targets(), *(config.targets_in(folder) if folder else ()), *in_overrides}


# ---------------------------------------------------------------- one override


def _parse_override(text: str, commands: Sequence[str]) -> Override:
    if "=" not in text and not text.startswith("~"):
        hint = did_you_mean(text, commands)
        raise ConfigError(f"{text!r} is neither key=value nor a command{hint}; commands: {', '.join(commands)}")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"{text!r} is not an override: {config.one_line(error)}") from error


def _override_mistakes(override: Override, groups: Groups, is_sweep: bool) -> Iterator[str]:
    key, text = override.key_or_group, override.input_line
    if key.startswith("hydra"):
        if "_target_" in key:  # Hydra builds these itself, without asking which names are allowed
            yield f"{key}: objects in Hydra's own settings are rejected"
    elif override.is_sweep_override() and not is_sweep:
        yield f"{text!r} is a sweep over several values; add -m, or quote the value"
    elif _is_group_choice(override, groups):
        yield from _choice_mistakes(override, groups)


def _choice_mistakes(override: Override, groups: Groups) -> Iterator[str]:
    """Yield the mistakes of an override that chooses a file of a config group."""
    group = override.key_or_group
    if override.is_add() and "/" not in group:
        yield f"{override.input_line!r}: leave out the +, {group} has a place already"
        return
    values = list(_values(override, groups))
    if not values:
        yield f"{override.input_line!r} matches nothing; {group} can be {groups[group]}"
    for value in values:
        if isinstance(value, list) and group not in MULTI_CHOICE_GROUPS:
            yield f"{group} takes one name, got {value}"
            continue
        if value is None and override.is_sweep_override():
            yield f"{override.input_line!r}: null cannot be part of a sweep over {group}"
        for name in value if isinstance(value, list) else [value]:
            if name is not None and _unquoted(name) not in groups[group]:
                yield config.no_such_choice(group, str(_unquoted(name)), groups[group])


def _is_group_choice(override: Override, groups: Groups) -> bool:
    """Return whether an override chooses a file of a group, rather than setting values below its key."""
    return (
        override.key_or_group in groups
        and not override.is_delete()
        and not any(isinstance(value, dict) for value in _values(override, groups))
    )


def _values(override: Override, groups: Groups) -> Iterator[Any]:
    """Yield every value that an override gives to its key; for an interval, its two ends."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        yield from (value.start, value.end)
    elif isinstance(value, Glob):
        yield from value.filter(groups.get(override.key_or_group, []))
    elif override.is_sweep_override():
        yield from override.sweep_iterator()
    else:
        yield value


def _unquoted(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value


def _single_overrides(override: Override, groups: Groups) -> list[str]:
    """Return one override for every value that this one gives to its key, in the form that Hydra requires."""
    text, key = override.input_line or "", override.get_key_element()
    value = override.value()
    if _is_group_choice(override, groups) and value is None:
        return [f"~{override.key_or_group}"]  # how Hydra is told to use no file of this group
    if isinstance(value, IntervalSweep | Glob):
        texts = [f"{key}={item}" for item in _values(override, groups)]
    elif override.is_sweep_override():
        texts = [f"{key}={item}" for item in override.sweep_string_iterator()]
    else:
        texts = [text]
    return [config.with_new_key(item, groups) for item in texts]


# ---------------------------------------------------------------- all overrides together


def _compose_jobs(overrides: Sequence[Override], groups: Groups, folder: Path | None, result: CheckResult) -> None:
    """Fill in the jobs: every combination of group choices, and in these every value at least once."""
    overrides = [item for item in overrides if not _fails_alone(item, overrides, groups, folder, result)]
    choices = [override for override in overrides if _is_group_choice(override, groups)]
    settings = [override for override in overrides if not _is_group_choice(override, groups)]
    defaults: list[DictConfig] = []  # the configurations of the choices alone, before any value is set
    for chosen in itertools.product(*(_single_overrides(choice, groups) for choice in choices)):
        columns = [_single_overrides(setting, groups) for setting in settings]
        try:
            hydra_settings = _hydra_settings(settings, groups)
            defaults.append(config.compose_all([*chosen, *hydra_settings], folder))
            # Not every combination of values: their number grows exponentially, and values are validated one by one.
            for i in range(max(map(len, columns), default=1)):
                row = [column[i % len(column)] for column in columns]
                # Composing takes a third of a second, so that without any setting the defaults serve as the job.
                job = defaults[-1] if row == hydra_settings else config.compose_all([*chosen, *row], folder)
                result.jobs.append(job)
        except ConfigError as error:
            result.mistakes.append(f"{' '.join(chosen)}: {error}".removeprefix(": "))
    for override in overrides:
        result.mistakes += _interpolation_mistakes(override, defaults)
        text = override.input_line or ""
        if _is_group_choice(override, groups) and override.value() is None:
            text = f"~{override.key_or_group}"
        # A mapping may bring keys that the one in the file lacks, as loss_weights={z1: 0.5} does.
        is_new = isinstance(override.value(), dict) or not all(_has_key(cfg, override.key_or_group) for cfg in defaults)
        result.overrides.append(config.with_new_key(text, groups) if is_new else text)


def _hydra_settings(settings: Sequence[Override], groups: Groups) -> list[str]:
    """Return the overrides of Hydra's own settings, each with its first value."""
    of_hydra = [override for override in settings if override.key_or_group.startswith("hydra")]
    return [text for override in of_hydra for text in _single_overrides(override, groups)[:1]]


def _fails_alone(
    override: Override, overrides: Sequence[Override], groups: Groups, folder: Path | None, result: CheckResult
) -> bool:
    """Return whether Hydra rejects an override even without the others; the reason is added to the mistakes.

    Only a deletion, an addition or one of Hydra's own settings can be rejected; composing takes too long to try others.
    """
    text = _single_overrides(override, groups)[0]
    if text.startswith("++") or (_is_group_choice(override, groups) and not text.startswith("+")):
        return False
    # Hydra's settings below hydra.launcher exist only once the launcher is chosen.
    launcher = [
        other.input_line or ""
        for other in overrides
        if other.key_or_group.startswith("hydra/") and other is not override
    ]
    try:
        config.compose_all([*launcher, text], folder)
    except ConfigError as error:
        result.mistakes.append(f"{override.input_line}: {error}")
        return True
    return False


def _has_key(cfg: DictConfig, key: str) -> bool:
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(node, DictConfig) and (last in node or OmegaConf.is_missing(node, last))


def _is_consequence(text: str, mistakes: Sequence[str]) -> bool:
    """Return whether a part lacks its class because a key below it was set, which is reported already."""
    part, lacks_class, _ = text.partition(validate.NO_TARGET)
    return bool(lacks_class) and any(line.startswith(f"{part}.") for line in mistakes)


def _interpolation_mistakes(override: Override, defaults: Sequence[DictConfig]) -> Iterator[str]:
    """Yield an error for a key below an interpolation: its value would also be set in the node referred to."""
    parts = override.key_or_group.split(".")
    for cfg, i in itertools.product(defaults[:1], range(1, len(parts))):
        parent, above = ".".join(parts[:i]), ".".join(parts[: i - 1])
        node = OmegaConf.select(cfg, above) if above else cfg
        if isinstance(node, DictConfig) and parts[i - 1] in node and OmegaConf.is_interpolation(node, parts[i - 1]):
            source = dict(OmegaConf.to_container(node, resolve=False))[parts[i - 1]]  # type: ignore[arg-type]
            yield f"{override.key_or_group} would change {source} too; set all of {parent}={{_target_: ..., ...}}"


def _hydra_callback_mistakes(job: DictConfig) -> Iterator[str]:
    # Hydra builds its callbacks before the run can check their names.
    if job.hydra.callbacks:
        yield "hydra.callbacks are rejected; use the callbacks group"


def _is_excused(line: str, rejected: set[str], complete: bool) -> bool:
    """Return whether a setting is missing only because the override that sets it was rejected."""
    key, is_missing, _ = line.partition(" is missing")
    return bool(is_missing) and (not complete or any(key == name or key.startswith(f"{name}.") for name in rejected))
