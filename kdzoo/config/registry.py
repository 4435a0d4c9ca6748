"""Read-only views of the config groups: the class behind each YAML file, the table of distillers, their citations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kdzoo import config
from kdzoo.config import signatures
from kdzoo.errors import ConfigError


def targets(group: str, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return the ``_target_`` of every YAML file of a config group by the file's name without its ending.

    Args:
        group: Name of the group, such as ``distiller``.
        folders: Config folders to read after the packaged one; of two files with one name, the later one counts.
    """
    return {path.stem: node["_target_"] for path, node in _nodes(group, folders) if "_target_" in node}


def settings(group: str, name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the settings that a YAML file of a config group writes down, without its ``_target_``."""
    node = {path.stem: node for path, node in _nodes(group, folders)}[name]
    return {str(key): value for key, value in node.items() if key not in ("_target_", "defaults")}


def _nodes(group: str, folders: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every YAML file of a config group with its content; of two files with one name, the later one counts."""
    for folder in (config.packaged_folder(), *folders):
        for path in sorted((folder / group).glob("*.yaml")):
            yield path, yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def name_of(group: str, target: str, folders: Sequence[Path] = ()) -> str:
    """Return the name of the YAML file in ``group`` that builds ``target``; ``target`` itself if there is none."""
    # Reversed, so that the first of several files for one class gives the name: a packaged one before a user's.
    name_by_target = {value: name for name, value in reversed(targets(group, folders).items())}
    return name_by_target.get(target, target)


@dataclass(frozen=True)
class Entry:
    """A registered distiller.

    Attributes:
        name: Name of its YAML file, for ``distiller=``.
        target: Its class.
        signature: What is known of the class; None if it cannot be imported.
        error: Why it cannot be imported; empty otherwise.
    """

    name: str
    target: str
    signature: signatures.TargetSignature | None
    error: str = ""

    @property
    def summary(self) -> str:
        """The first sentence of the docstring, or the error."""
        doc_lines = self.signature.doc.splitlines() if self.signature else [self.error]
        return doc_lines[0] if doc_lines else ""


def entries(folders: Sequence[Path] = ()) -> list[Entry]:
    """Return all registered distillers, without importing those whose source text is enough.

    A distiller that cannot be imported has the error message in its entry, so that the others are still listed.

    Args:
        folders: Config folders to read in addition to the packaged one.
    """
    found = []
    for name, target in targets("distiller", folders).items():
        try:
            found.append(Entry(name, target, signatures.describe(target)))
        except ConfigError as error:
            found.append(Entry(name, target, None, str(error)))
    return found


def citations(*names: str) -> str:
    """Return the BibTeX entries of the distillers among the given ``_target_`` names, in order, without repetition.

    Raises:
        ConfigError: A name cannot be imported.
    """
    bibtex = dict.fromkeys(signatures.describe(name).info.get("bibtex", "") for name in names)
    return "\n\n".join(entry for entry in bibtex if entry) + "\n"
