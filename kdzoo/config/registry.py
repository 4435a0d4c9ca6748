"""The registered distillers: a read-only view of ``conf/distiller/*.yaml``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from kdzoo import config
from kdzoo.config.signatures import DeclaresInfo
from kdzoo.errors import ConfigError


def targets(group: str, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return name -> ``_target_`` of every YAML file of a group, in the packaged folder and in ``folders``."""
    found: dict[str, str] = {}
    for folder in (config.packaged_folder(), *folders):
        for path in sorted((folder / group).glob("*.yaml")):
            node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            if "_target_" in node:
                found[path.stem] = node["_target_"]
    return found


def name_of(group: str, target: str, folders: Sequence[Path] = ()) -> str:
    """Return the name under which a target is registered, or the target itself."""
    names: Mapping[str, str] = {value: name for name, value in reversed(targets(group, folders).items())}
    return names.get(target, target)


def describe(folders: Sequence[Path] = ()) -> list[dict[str, str]]:
    """Return what ``kdzoo list`` prints: name, one line, paper, and the kinds of teacher and student.

    A distiller that cannot be imported is listed with the reason.
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
    """Return the BibTeX entries of everything named by ``_target_``, in order, without repetition."""
    cited = [found for name in names if isinstance(found := config.locate(name), DeclaresInfo)]
    entries = dict.fromkeys(found.info.bibtex for found in cited)
    return "\n\n".join(entry for entry in entries if entry) + "\n"
