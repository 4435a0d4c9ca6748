"""The commands that print what there is: the registered distillers, anything with a name in detail, and the metrics."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdzoo import config
from kdzoo.cli.options import print_option, print_settings
from kdzoo.config import registry, signatures, validate
from kdzoo.config.docstrings import argument_meanings, parse_docstring, without_markup
from kdzoo.core import metric_catalogue
from kdzoo.errors import ConfigError, did_you_mean

YOURS = "Yours"
# Below this, a terminal breaks the lines rather than the summary into pieces that say nothing.
MIN_SUMMARY = 20


def print_methods(folders: Sequence[Path] = ()) -> None:
    """Print a line for each registered distiller, grouped by task.

    Args:
        folders: Config folders to read in addition to the packaged one.
    """
    groups: dict[str, list[registry.Entry]] = {}
    for entry in registry.entries(folders):
        groups.setdefault(_task(entry), []).append(entry)
    console = Console(highlight=False)
    width = max(len(entry.name) for entries in groups.values() for entry in entries)
    for title, entries in groups.items():
        console.print(f"[bold]{title}[/bold]")
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=width + 2, no_wrap=True)
        table.add_column(no_wrap=True)
        room = max(console.width - width - 6, MIN_SUMMARY)
        for entry in entries:
            summary = shorten(without_markup(entry.summary), room, placeholder=" ...")
            table.add_row(Text(f"  {entry.name}"), Text(summary))
        console.print(table)
    console.print("\n[bold]kdzoo list NAME[/bold] describes one of them, or a teacher, student, data set, ...")


def print_named(name: str, folders: Sequence[Path] = ()) -> None:
    """Print what every option of that name does, in whichever config groups there is one, and its settings.

    Raises:
        ConfigError: No group has an option of that name, or its class cannot be imported.
    """
    known = [config.groups(folder) for folder in (None, *folders)]
    groups = dict.fromkeys(group for options in known for group in options if name in options[group])
    if not groups:
        names = {other for options in known for group in options for other in options[group]}
        raise ConfigError(f"kdzoo list {name}: unknown name{did_you_mean(name, names)}; kdzoo --help lists all names")
    for i, group in enumerate(groups):
        if i:
            print()
        if group == "distiller":
            print_method(name, folders)
        else:
            print_option(group, name, folders)


def print_method(name: str, folders: Sequence[Path] = ()) -> None:
    """Print what a distiller does, its settings with their defaults, its loss terms and its source.

    Raises:
        ConfigError: The name is unknown, or its class cannot be imported.
    """
    entries = {entry.name: entry for entry in registry.entries(folders)}
    if name not in entries:
        hint = did_you_mean(name, entries)
        raise ConfigError(f"kdzoo list {name}: unknown distiller{hint}; allowed: {', '.join(entries)}")
    entry = entries[name]
    if entry.signature is None:
        raise ConfigError(entry.error)
    info, console = {**signatures.INFO_DEFAULTS, **entry.signature.info}, Console(highlight=False)
    description, _ = parse_docstring(entry.signature.doc)
    console.print(f"[bold]distiller={name}[/bold]  ({entry.target})\n")
    console.print(description, markup=False)
    terms = ", ".join(f"{term} (weight {weight:g})" for term, weight in info["terms"].items())
    teacher = "none" if info["teacher"] == "none" else _kinds(info["teacher_kinds"])
    rows = {"Loss terms": terms, "Teacher": teacher, "Student": _kinds(info["student_kinds"]), "Source": info["paper"]}
    console.print()
    _print_pairs(console, {f"{title}:": text for title, text in rows.items() if text})
    defaults = {
        key: parameter.default
        for key, parameter in entry.signature.parameters.items()
        if key not in validate.SET_BY_RUN["distiller"] and parameter.kind is not parameter.VAR_KEYWORD
    } | registry.settings("distiller", name, folders)
    meanings = argument_meanings(entry.target)
    print_settings(console, {f"distiller.{key}": (value, meanings.get(key, "")) for key, value in defaults.items()})


def print_metric(name: str) -> None:
    """Print what a metric means, its unit and its better direction; without a name, those of all metrics.

    Raises:
        ConfigError: The name is unknown.
    """
    console = Console(highlight=False)
    if not name:
        for title, metrics in metric_catalogue.GROUPS.items():
            console.print(f"[bold]{title}[/bold]")
            for listed in metrics:
                console.print(f"  {listed.name}", markup=False)
        console.print("\n[bold]kdzoo explain METRIC[/bold] says what one of them means.")
        return
    # As a table of a report writes it, "kl (teacher) ↓" is the metric kl.
    name = re.sub(r" \(teacher\)| [↑↓]", "", name).strip().replace(" ", "_")
    metric = metric_catalogue.find(name)
    if metric is None:
        names = [listed.name for metrics in metric_catalogue.GROUPS.values() for listed in metrics]
        hint = did_you_mean(name.lower(), names)
        raise ConfigError(f"kdzoo explain {name}: unknown metric{hint}; kdzoo explain lists all")
    console.print(f"{name}: {metric.meaning}", markup=False)
    if metric.unit:
        console.print(f"Unit: {metric.unit}", markup=False)
    if metric.better:
        console.print(f"{metric.better.capitalize()} is better.")


def group_of_cited(name: str, groups: Mapping[str, Sequence[str]]) -> str:
    """Return the config group of a name that ``kdzoo cite`` is given."""
    citable = {group: groups[group] for group in ("distiller", "experiment")}
    for group, names in citable.items():
        if name in names:
            return group
    raise ConfigError(
        f"kdzoo cite {name}: unknown name{did_you_mean(name, itertools.chain(*citable.values()))}; it takes a "
        f"distiller, an experiment or settings of a run (data=...), with --config-dir FOLDER for your own; distillers: "
        f"{', '.join(groups['distiller'])}; kdzoo --help lists the experiments"
    )


def _print_pairs(console: Console, pairs: Mapping[str, str]) -> None:
    """Print titles and texts as two columns."""
    table = Table.grid(padding=(0, 2))
    for title, text in pairs.items():
        table.add_row(title, Text(text))
    console.print(table)


def _task(entry: registry.Entry) -> str:
    """Return the heading of a distiller: what its package says of itself, or that it is the user's."""
    package = signatures.package_summary(entry.target)
    return package.removesuffix(".") if entry.target.startswith("kdzoo.") and package else YOURS


def _kinds(names: Sequence[str]) -> str:
    """Return the kinds of models that a distiller works with."""
    return ", ".join(name.replace("_", " ") for name in names) or "any model"
