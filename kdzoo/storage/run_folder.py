"""The folder of a run: held by one process at a time, and never overwritten by another configuration."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kdzoo.config.plain_values import check_plain
from kdzoo.errors import RunFolderError, in_one_line
from kdzoo.storage import atomic, checked_json, locks

LOCK = ".lock"
"""The file in a folder whose lock belongs to the process that uses the folder."""
# What the tables and sentences about a run are made of, with the types of the values.
REPORT_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("kind", "score", "distiller", "data"), str),
    **dict.fromkeys(("student", "controls", "fidelity", "splits", "seconds"), Mapping),
    **dict.fromkeys(("teacher", "control", "comparison"), (Mapping, type(None))),
    "seed": (int, list),
    "expected": list,
}


def is_main_process() -> bool:
    """Return whether this process writes files: False on all ranks but the first.

    Lightning knows the rank under every launcher (torchrun, SLURM, its own subprocesses), also before a trainer exists.
    """
    # Imported here: a finished run is shown without waiting for torch and Lightning.
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    # Before a trainer exists, the first process of a further node has LOCAL_RANK=0 and no RANK where Lightning itself
    # starts the processes; only NODE_RANK distinguishes it.
    is_first_node = "RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0"
    rank: Any = rank_zero_only.rank  # type: ignore[attr-defined] # Lightning sets it on the function
    return bool(rank == 0 and is_first_node)


@contextmanager
def lock(folder: Path, *, wait_for: str = "") -> Iterator[None]:
    """Lock ``folder`` for this process while the context is open; the folder is made if it does not exist.

    Args:
        folder: The folder.
        wait_for: What another process may be doing there, such as ``the training of the teacher``: the lock then waits
            until that process has finished or ended, and says so. Empty: it does not wait.

    Raises:
        RunFolderError: Another process is writing there and the lock does not wait, or the folder cannot be made.
    """
    if not is_main_process():
        yield
        return
    with locks.hold(folder / LOCK, wait_for=wait_for):
        yield


def is_locked(folder: Path) -> bool:
    """Return whether another process holds the lock of a folder; nothing is written."""
    return locks.is_held(folder / LOCK)


def reserve(folder: Path, settings: Mapping[str, Any], *, free: Collection[str] = ()) -> None:
    """Reserve a folder for a configuration: write it to ``config.yaml``, or check that a run begun there has the same.

    Args:
        folder: The run folder.
        settings: The resolved settings as plain values.
        free: Keys that may differ, such as ``cache_dir`` or ``trainer.devices``.

    Raises:
        RunFolderError: The folder holds a run of another configuration; the differing keys are named.
    """
    path = folder / "config.yaml"
    changes = _changes(folder, settings, free)
    if is_main_process() and (changes or not path.exists()):
        atomic.write_text(path, yaml.safe_dump(dict(settings), sort_keys=False))


def finished_report(folder: Path, settings: Mapping[str, Any], *, free: Collection[str] = ()) -> dict[str, Any] | None:
    """Return the report of a finished run of a configuration, or None if there is none; nothing is written.

    Args:
        folder: The run folder.
        settings: The resolved settings as plain values.
        free: Keys that may differ, such as ``cache_dir`` or ``trainer.devices``.

    Raises:
        RunFolderError: The folder holds a run of another configuration, or its report is damaged.
    """
    if not (folder / "report.json").exists():
        return None
    _changes(folder, settings, free)
    return read_report(folder / "report.json")


def read_report(path: Path) -> dict[str, Any] | None:
    """Return a report that can be shown, or None if there is none.

    Raises:
        RunFolderError: The file cannot be read, is damaged, or is something else than a report.
    """
    report = read_if_present(path)
    if report is None:
        return None
    wrong = [key for key, types in REPORT_TYPES.items() if key not in report or not isinstance(report[key], types)]
    # A run without a teacher or a control has None in the place of its measurements.
    models = [key for key in ("teacher", "student", "control") if key not in wrong and report[key] is not None]
    wrong += [key for key in models if not _is_measured(report[key])]
    if wrong:
        raise RunFolderError(f"{path} is not the report of a run: {wrong[0]} is missing or of another type")
    return report


def _is_measured(model: Mapping[str, Any]) -> bool:
    return isinstance(model.get("metrics"), Mapping) and "parameters" in model


def _changes(folder: Path, settings: Mapping[str, Any], free: Collection[str]) -> list[str]:
    """Return how a configuration differs from the one in a folder; if a run of that one has begun, raise an error."""
    path = folder / "config.yaml"
    changes: list[str] = []
    if path.exists():
        before = read_settings(path)
        begun = any(folder.glob("seed_*")) or (folder / "report.json").exists()
        changes = [line for line in differences(before, settings) if not _is_free(line.partition(":")[0], free)]
        if changes and begun:
            # Three are enough to see what is different, and the message stays one line.
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise RunFolderError(
                f"{folder} holds a run of another configuration ({'; '.join(changes[:3])}{more}); "
                "choose another hydra.run.dir, or delete the folder"
            )
    return changes


def _is_free(key: str, free: Collection[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in free)


def check_links(folder: Path) -> None:
    """Reject a run folder that came from elsewhere if a link in it leads out of it, where a run would write.

    Raises:
        RunFolderError: Names the link.
    """
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise RunFolderError(f"{path} is a link that leads out of the run folder; replace it by what it links to")


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield ``key: old -> new`` for every leaf in which two trees differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif before != now:
        yield f"{key}: {before!r} -> {now!r}"


def read_if_present(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file of a run, or None if there is none.

    Raises:
        RunFolderError: The file exists, but cannot be read or is damaged.
    """
    return checked_json.read(path, remedy="delete it to compute it again") if path.exists() else None


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in the ``config.yaml`` of a run, which are plain values.

    Raises:
        RunFolderError: The file cannot be read, or is not YAML with keys and values.
        ConfigError: It has an interpolation or something else than plain values.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # not UTF-8 is a ValueError
        raise RunFolderError(f"{path} is not valid YAML: {in_one_line(error)}") from None
    if not isinstance(settings, dict):
        raise RunFolderError(f"{path} must hold keys and values, got {type(settings).__name__}")
    check_plain(settings, str(path))
    return settings
