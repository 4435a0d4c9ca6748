"""What ``kdzoo list NAME`` prints of a file of a config group other than the distillers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from kdzoo import config
from kdzoo.config import registry, signatures, validate, yaml_files
from kdzoo.config.docstrings import argument_meanings, parse_docstring
from kdzoo.config.override_values import as_override
from kdzoo.config.schema.comments import comments
from kdzoo.config.schema.sources import GLOBAL_GROUPS, NAMED_GROUPS

# Docstrings of these packages have other sections and markup; our YAML files say in a sentence what their classes do.
LIBRARIES = ("torch.", "pytorch_lightning.")


def print_option(group: str, name: str, folders: Sequence[Path] = ()) -> None:
    """Print what a file of a config group is for, and its settings with their values and meanings.

    A file that configures a whole run, as those of ``experiment`` do, is printed as it is.

    Args:
        group: Name of the group.
        name: Name of the file without its ending.
        folders: Config folders to read in addition to the packaged one.

    Raises:
        ConfigError: The file is not valid, or its class cannot be imported.
    """
    text, console = registry.files_of(group, folders)[name].read_text(encoding="utf-8"), Console(highlight=False)
    if group in GLOBAL_GROUPS:
        console.print(f"[bold]{group}={name}[/bold]\n")
        console.print(text.removeprefix("# @package _global_\n").strip(), markup=False, soft_wrap=True)
        return
    node = registry.content(group, name, folders)
    # Objects of groups of which several files can be chosen stand below a key of their own.
    inner = next(iter(node.values()), {}) if group in NAMED_GROUPS else node
    target = inner.get("_target_", "") if isinstance(inner, Mapping) else ""
    console.print(f"[bold]{group}={name}[/bold]{f'  ({target})' if target else ''}\n")
    console.print(_description(text, target), markup=False)
    documented = argument_meanings(target) if target and not target.startswith(LIBRARIES) else {}
    # The comments in the file come last, since they are about this option; those of nested keys have dotted paths.
    below = f"{next(iter(node))}." if inner is not node else ""
    meanings = {f"{below}{key}": meaning for key, meaning in documented.items()}
    meanings |= _comments(group, name, folders)
    settings = {**dict(_flat(node)), **_defaults(group, inner, target, below)}
    print_settings(console, {f"{group}.{key}": (value, meanings.get(key, "")) for key, value in settings.items()})


def print_settings(console: Console, settings: Mapping[str, tuple[Any, str]]) -> None:
    """Print each setting as it is typed, with its meaning below it.

    Args:
        console: Where to print.
        settings: The value and the meaning of each setting by its dotted key; a meaning may be empty.
    """
    if settings:
        console.print("\n[bold]Settings[/bold]")
    for key, (value, meaning) in settings.items():
        console.print(f"{key}={as_override(value)}", markup=False)
        if meaning:
            console.print(Padding(Text(meaning), (0, 0, 0, 4)))


def _comments(group: str, name: str, folders: Sequence[Path]) -> dict[str, str]:
    """Return the comments on the keys of a YAML file, and of the files of its group that it extends."""
    files = registry.files_of(group, folders)
    bases = (yaml_files.read(files[name]) or {}).get("defaults", [])
    extended = [_comments(group, base, folders) for base in bases if isinstance(base, str) and base in files]
    text = files[name].read_text(encoding="utf-8")
    return {key: comment for of_base in extended for key, comment in of_base.items()} | comments(text)


def _description(text: str, target: str) -> str:
    """Return the comment at the top of a YAML file, and what the class of the file says of itself."""
    head = re.match(r"(#.*\n)*", text)
    lines = [line.removeprefix("#").strip() for line in head[0].splitlines()] if head else []
    doc = signatures.describe(target).doc if target and not target.startswith(LIBRARIES) else ""
    return "\n\n".join(filter(None, (" ".join(lines), parse_docstring(doc)[0])))


def _defaults(group: str, node: Mapping[str, Any], target: str, below: str) -> dict[str, Any]:
    """Return the defaults of the arguments of a class that neither its file nor the run sets, nor the data."""
    # The first arguments of a partial function are given by the run, and those of libraries are too many to list.
    if not target or target.startswith(LIBRARIES) or "_partial_" in node:
        return {}
    given = {*node, *validate.SET_BY_RUN.get(group, ()), *config.SIZES}
    parameters = signatures.describe(target).parameters.values()
    listed = [p for p in parameters if p.name not in given and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return {f"{below}{p.name}": p.default for p in listed}


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting, without the class of the object and other keys of Hydra."""
    for key, value in node.items():
        if isinstance(value, Mapping) and "_target_" in value:
            yield from _flat(value, f"{prefix}{key}.")
        elif key not in validate.HYDRA_KEYS:
            yield f"{prefix}{key}", value
