"""Reading of single YAML files of the config groups, without Hydra."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from kdzoo.errors import ConfigError, in_one_line

# The parser that is written in C is several times as fast; PyYAML may have been built without it. It is for packaged
# files alone: thousands of brackets in brackets crash it.
FastLoader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def packaged_folder() -> Path:
    """Return the folder of the packaged configuration groups."""
    return Path(str(resources.files("kdzoo.conf")))


def read(path: Path) -> Any:
    """Return the plain values in a YAML file, interpolations as text; None for an empty file.

    Raises:
        ConfigError: The file cannot be read or is not YAML.
    """
    loader = FastLoader if path.is_relative_to(packaged_folder()) else yaml.SafeLoader
    try:
        return loader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # text that is not UTF-8 is a ValueError
        raise ConfigError(f"{path} is not valid YAML: {in_one_line(error)}") from None


def folder_mistakes(folder: Path | None) -> Iterator[str]:
    """Yield a line for every YAML file with the name of a packaged one, since Hydra would silently ignore it.

    Args:
        folder: The user's config folder, or None.
    """
    if folder is None:
        return
    if not folder.is_dir():
        yield f"--config-dir {folder} is not a folder"
        return
    packaged = packaged_folder()
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder)
        if (packaged / name).exists() and packaged.resolve() != folder:
            yield f"{path} is hidden by the packaged {name.as_posix()}; give it another name"
