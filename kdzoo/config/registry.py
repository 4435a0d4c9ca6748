"""Read-only views of the config groups: the class behind each YAML file, the table of distillers, their citations."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo import config
from kdzoo.config import signatures, yaml_files
from kdzoo.errors import ConfigError


def targets(group: str, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return the ``_target_`` of every YAML file of a config group by the file's name without its ending.

    Files that cannot be read are left out: a broken file of the user, which a run does not use, must not end it.

    Args:
        group: Name of the group, such as ``distiller``.
        folders: Config folders to read after the packaged one; of two files with one name, the later one counts.
    """
    found: dict[str, str] = {}
    for name in files_of(group, folders):
        with suppress(ConfigError):
            node = content(group, name, folders)
            found |= {name: node["_target_"]} if "_target_" in node else {}
    return found


def settings(group: str, name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the settings of a YAML file of a config group, with those of the files that it extends."""
    node = content(group, name, folders)
    return {str(key): value for key, value in node.items() if key != "_target_"}


def name_of(group: str, target: str, folders: Sequence[Path] = ()) -> str:
    """Return the name of the YAML file in ``group`` that builds ``target``; that of the class if there is none."""
    # Reversed, so that the first of several files for one class gives the name: a packaged one before a user's.
    name_by_target = {value: name for name, value in reversed(targets(group, folders).items())}
    return name_by_target.get(target, target.rpartition(".")[2])


def content(group: str, name: str, folders: Sequence[Path], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the content of a YAML file on top of the files in its ``defaults`` that it extends.

    These are files of the same group by their names, and of another group by ``/group@_here_: name``.

    Args:
        group: Name of the group.
        name: Name of the file without its ending.
        folders: Config folders to read after the packaged one.
        above: The files that extend this one, as ``group/name``.

    Raises:
        ConfigError: A file is missing, is not YAML, holds something else than keys and values, or extends itself.
    """
    files, path = files_of(group, folders), f"{group}/{name}"
    if name not in files:
        raise ConfigError(f"{' extends '.join([*above, path])}, and there is no {path}.yaml")
    if path in above:
        raise ConfigError(f"{' extends '.join([*above, path])}: a file cannot extend itself")
    node = yaml_files.read(files[name]) or {}
    if not isinstance(node, dict):
        raise ConfigError(f"{files[name]} must hold keys and values, got {type(node).__name__}")
    merged: dict[str, Any] = {}
    for base in node.pop("defaults", []):
        if isinstance(base, str) and base in files:
            merged = _merge(merged, content(group, base, folders, (*above, path)))
        for key, other in base.items() if isinstance(base, dict) else ():
            # Other mappings, such as ``override /optimizer: adam``, choose files for other parts of a configuration.
            if str(key).startswith("/") and str(key).endswith("@_here_"):
                other_group = str(key)[1:].removesuffix("@_here_")
                merged = _merge(merged, content(other_group, str(other), folders, (*above, path)))
    return _merge(merged, node)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a file on top of that of another, with mappings merged key by key, as Hydra does."""
    result = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            result[key] = _merge(below[key], above[key])
    return result


def files_of(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """Return the YAML files of a config group by name; of two files with one name, the later one counts."""
    paths = (
        path for folder in (config.packaged_folder(), *folders) for path in sorted((folder / group).glob("*.yaml"))
    )
    return {path.stem: path for path in paths}


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
    result = []
    for name in files_of("distiller", folders):
        target = ""
        try:
            node = content("distiller", name, folders)
            if "_target_" in node:
                target = node["_target_"]
                result.append(Entry(name, target, signatures.describe(target)))
        except ConfigError as error:
            result.append(Entry(name, target, None, str(error)))
    return result


def citations(*names: str) -> str:
    """Return the BibTeX entries of the distillers among the given ``_target_`` names, in order, without repetition.

    Raises:
        ConfigError: A name cannot be imported.
    """
    bibtex = dict.fromkeys(signatures.describe(name).info.get("bibtex", "") for name in names)
    return "\n\n".join(entry for entry in bibtex if entry) + "\n"


def default_data() -> list[str]:
    """Return the data sets that packaged distillers choose by default, all of them embedded, that of a run first."""
    files = [config.packaged_folder() / "train.yaml", *files_of("distiller", ()).values()]
    choices = [choice for path in files for choice in (yaml_files.read(path) or {}).get("defaults", [])]
    names = [
        choice[key]
        for choice in choices
        if isinstance(choice, dict)
        for key in ("data", "override /data@_global_.data")
        if key in choice
    ]
    return list(dict.fromkeys(names))
