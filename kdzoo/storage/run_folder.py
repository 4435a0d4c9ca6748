"""The folder of a run: held by one process at a time, and never overwritten by another configuration."""

import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kdzoo.core.progress import stage
from kdzoo.errors import RunFolderError
from kdzoo.storage import atomic


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = (folder / ".lock").open("a")
    except OSError as error:
        raise RunFolderError(f"cannot write to {folder}: {error.strerror}; choose another hydra.run.dir") from error
    with lock_file:
        try:
            # The operating system releases this lock when the process ends, however it ends.
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not wait_for:
                raise RunFolderError(
                    f"{folder} is in use by another process; wait for it or choose another folder"
                ) from None
            with stage(f"waiting for {wait_for} in another process"):
                fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield


def reserve(folder: Path, settings: Mapping[str, Any], *, free: Collection[str] = ()) -> None:
    """Reserve a folder for a configuration: write it to ``config.yaml``, or check that a run begun there has the same.

    Args:
        folder: The run folder.
        settings: The resolved settings as plain values.
        free: Top-level keys that may differ.

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
        free: Top-level keys that may differ.

    Raises:
        RunFolderError: The folder holds a run of another configuration, or its report is not JSON.
    """
    if not (folder / "report.json").exists():
        return None
    _changes(folder, settings, free)
    return read_json(folder / "report.json")


def _changes(folder: Path, settings: Mapping[str, Any], free: Collection[str]) -> list[str]:
    """Return how a configuration differs from the one in a folder; if a run of that one has begun, raise an error."""
    path = folder / "config.yaml"
    changes: list[str] = []
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        begun = any(folder.glob("seed_*")) or (folder / "report.json").exists()
        # The top-level key is what comes before the first dot or colon.
        changes = [line for line in differences(before, settings) if re.split(r"[.:]", line)[0] not in free]
        if changes and begun:
            # Three are enough to see what is different, and the message stays one line.
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise RunFolderError(
                f"{folder} holds a run of another configuration ({'; '.join(changes[:3])}{more}); "
                "choose another hydra.run.dir, or delete the folder"
            )
    return changes


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield ``key: old -> new`` for every leaf in which two trees differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif before != now:
        yield f"{key}: {before!r} -> {now!r}"


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON in ``path``, or None if there is none.

    Raises:
        RunFolderError: The file exists but is not JSON.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{path} is not valid JSON ({error}); delete it to compute it again") from None
