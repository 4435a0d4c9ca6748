"""Where a configuration that comes from a file may write: only into the folder of its run."""

from collections.abc import Iterator, Mapping
from typing import Any

from kdzoo.errors import ConfigError

# Arguments of packaged classes that choose a folder, a file or a server to write to. The run sets some of them itself.
FOLDER_ARGUMENTS = {"cache", "default_root_dir", "dirpath", "root_dir", "save_dir", "sub_dir", "tracking_uri"}
FILE_ARGUMENTS = {"filename"}  # in a folder that the run chooses, so that names alone are harmless


def check_places(settings: Mapping[str, Any], source: str) -> None:
    """Reject settings from a file that would let a run write outside of its folder.

    Args:
        settings: Plain values.
        source: The name of the file, for the message.

    Raises:
        ConfigError: Names the file, the key and its value.
    """
    for key, value in _arguments(settings, ""):
        name = key.rpartition(".")[2]
        # Without its name, a folder is not seen to be one.
        if name == "_args_" and value:
            raise ConfigError(f"{source}: {key} must be empty, got {value!r}: arguments in a file need their names")
        if name in FOLDER_ARGUMENTS and value is not None:
            raise ConfigError(f"{source}: {key} must be null, got {value!r}: a file may not choose where others are")
        if name in FILE_ARGUMENTS and value is not None and set("/\\") & set(str(value)):
            raise ConfigError(f"{source}: {key} must be a name without folders, got {value!r}")


def _arguments(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of all nodes with ``_target_``, with their dotted keys."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            path = f"{key}.{name}".lstrip(".")
            if "_target_" in node:
                yield path, child
            yield from _arguments(child, path)
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from _arguments(child, f"{key}[{i}]")
