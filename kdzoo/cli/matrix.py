"""The command ``kdzoo matrix``: which teachers, students and distillers work together."""

from collections.abc import Collection, Sequence
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kdzoo import config
from kdzoo.config import registry
from kdzoo.errors import ConfigError

ROLES = ("distiller", "teacher", "student")
CHOICES = (*ROLES, "data")
"""Groups of which ``kdzoo matrix`` takes names."""


def print_kinds(folder: Path | None = None) -> None:
    """Print the kinds of teachers and students that each registered distiller declares.

    Args:
        folder: A folder with config groups of the user's own.
    """
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("distiller", "teacher", "student"):
        table.add_column(head, overflow="fold")
    for entry in registry.entries([folder] if folder else []):
        info = entry.signature.info if entry.signature else {}
        teacher = "none" if info.get("teacher") == "none" else _listed(info.get("teacher_kinds", ()))
        table.add_row(entry.name, teacher, _listed(info.get("student_kinds", ())))
    console.print(table)
    console.print(
        "\n[bold]kdzoo matrix teacher=NAME student=NAME[/bold] tries every distiller on two models, and "
        "[bold]kdzoo matrix distiller=NAME[/bold] every two models. data=NAME chooses the data."
    )


def print_outcomes(overrides: Sequence[str], folder: Path | None, allow: Collection[str] = ()) -> None:
    """Try combinations of distillers, teachers and students, and print which work and why others do not.

    Args:
        overrides: Names for at least one of ``distiller``, ``teacher`` and ``student``, and for ``data``, as in
            ``teacher=mlp``; all options of a role that is left out are tried, and so is all embedded data. Other
            settings are those of every combination.
        folder: A folder with config groups of the user's own.
        allow: Exact names of the classes and functions that may be built.

    Raises:
        ConfigError: None of the roles has a name.
    """
    from kdzoo.runs.compatibility import Compatibility, Outcome  # imports torch

    settings = dict(text.split("=", 1) for text in overrides)
    chosen = {key: value for key, value in settings.items() if key in CHOICES}
    if not chosen.keys() & set(ROLES):
        raise ConfigError("kdzoo matrix needs at least one of distiller=NAME, teacher=NAME and student=NAME")
    others = [text for text in overrides if text.split("=")[0] not in CHOICES]
    groups = config.groups(folder)
    data = [chosen["data"]] if "data" in chosen else registry.default_data()
    compatibility = Compatibility(data, others, folder, allow)
    names = [[chosen[role]] if role in chosen else groups[role] for role in ROLES]
    # A distiller without a teacher has the same outcome with each.
    outcomes = dict.fromkeys(compatibility.outcome(*combination) for combination in product(*names))
    console = Console(highlight=False)
    works = [outcome for outcome in outcomes if not outcome.reason]
    if works:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for head in (*ROLES, "works on"):
            table.add_column(head)
        for outcome in works:
            table.add_row(outcome.distiller, outcome.teacher or "none", outcome.student, outcome.data)
        console.print(table)
    by_reason: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.reason:
            by_reason.setdefault(outcome.reason, []).append(outcome)
    for reason, refused in by_reason.items():
        console.print(Text(f"\nrefused: {reason}"))
        listed = "; ".join(f"{one.distiller}: {one.teacher or 'none'} to {one.student}" for one in refused)
        console.print(Padding(Text(listed), (0, 0, 0, 4), expand=False))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "any"
