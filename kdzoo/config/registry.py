"""The registered distillers: a read-only view of ``conf/distiller/*.yaml``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from kdzoo import config
from kdzoo.config.signatures import DeclaresInfo
from kdzoo.errors import ConfigError


def targets(group: str, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return name -> ``_target_`` of every YAML file of a group, in the packaged folder and in ``folders``."""
    by_name: dict[str, str] = {}
    for folder in (config.packaged_folder(), *folders):
        for path in sorted((folder / group).glob("*.yaml")):
            node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            if "_target_" in node:
                by_name[path.stem] = node["_target_"]
    return by_name


def name_of(group: str, target: str, folders: Sequence[Path] = ()) -> str:
    """Return the name under which a target is registered, or the target itself."""
    # Reversed, so that the first of several files for one class gives the name: a packaged one before a user's.
    names: Mapping[str, str] = {value: name for name, value in reversed(targets(group, folders).items())}
    return names.get(target, target)


def describe(folders: Sequence[Path] = ()) -> list[dict[str, str]]:
    """Return the rows of ``kdzoo list``: ``name``, ``summary``, ``paper``, kinds of ``teacher`` and of ``student``.

    A distiller that cannot be imported is listed with the reason, so that it does not hide the others.
    """
    rows = []
    for name, target in targets("distiller", folders).items():
        try:
            method = config.locate(target)
        except ConfigError as error:
            rows.append({"name": name, "summary": str(error), "paper": "", "teacher": "", "student": ""})
            continue
        summary = (method.__doc__ or "").strip().splitlines()
        rows.append(
            {
                "name": name,
                "summary": summary[0] if summary else "",
                "paper": method.info.paper,
                "teacher": "none" if method.info.teacher == "none" else _kinds(method.info.teacher_kinds),
                "student": _kinds(method.info.student_kinds),
            }
        )
    return rows


def _kinds(names: Sequence[str]) -> str:
    """Return the kinds that a method works with, as ``kdzoo list`` prints them."""
    return ", ".join(name.replace("_", " ") for name in names) or "any"


def citations(*names: str) -> str:
    """Return the BibTeX entries of the methods among the given ``_target_`` names, in order, without repetition."""
    methods = [target for target in map(config.locate, names) if isinstance(target, DeclaresInfo)]
    entries = dict.fromkeys(method.info.bibtex for method in methods)
    return "\n\n".join(entry for entry in entries if entry) + "\n"
