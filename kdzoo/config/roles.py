"""Which packaged classes each part of a configuration may name, if the configuration comes from a file of a run."""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from kdzoo.config.compose import packaged_folder, packaged_targets, targets_in
from kdzoo.config.instantiate import targets
from kdzoo.errors import ConfigError

_MODELS = ("teacher", "student", "inner_network")
# The config groups whose classes may stand below each top-level key, where these are more than the group of that name.
_GROUPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_MODELS, _MODELS),
    "distiller": ("distiller", *_MODELS),
    "teacher_training": ("data", "optimizer", "scheduler"),
    "control_training": ("optimizer", "scheduler"),
    "trainer": ("trainer", "debug"),
}


def check_roles(settings: Mapping[str, Any], source: str) -> None:
    """Reject settings from a file that name a packaged class of another sort, such as a logger as the data.

    Args:
        settings: Plain values.
        source: The name of the file, for the message.

    Raises:
        ConfigError: Names the file, the key and the class.
    """
    for key, node in settings.items():
        allowed = _packaged_in((*_GROUPS.get(key, (key,)), "experiment"))
        for target in targets(node):
            if target in packaged_targets() and target not in allowed:
                raise ConfigError(
                    f"{source}: {key} names {target}, which is of another sort; allowed: {sorted(allowed)}"
                )


def models_in(allow: Collection[str]) -> set[str]:
    """Return the names that the description of an exported model may build: packaged models, and a user's own classes.

    Args:
        allow: Names that the caller allows; packaged ones among them that are not models are left out.
    """
    return {*_packaged_in(_MODELS), *(set(allow) - packaged_targets())}


@cache
def _packaged_in(groups: tuple[str, ...]) -> frozenset[str]:
    """Return the names in the YAML files of some packaged config groups."""
    return frozenset(name for group in groups for name in targets_in(packaged_folder() / group))
