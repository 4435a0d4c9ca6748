"""Settings that come as data, in the files of a run or beside the weights of a model: plain JSON values and no more.

OmegaConf resolves interpolations wherever it meets them, also in strings that another interpolation has returned, and
Hydra builds what comes out. A downloaded file could so read an environment variable or call a function that is not
allowed. Therefore such files are searched for interpolations before anything looks at what they name.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kdzoo.errors import ConfigError

# Every interpolation and resolver begins with this, also in each form in which it can be escaped.
INTERPOLATION = "${"
# A run has a few hundred values on at most ten levels. YAML aliases let a few lines stand for billions of values.
MAX_VALUES = 100_000
MAX_DEPTH = 50


def check_plain(value: Any, source: str) -> None:
    """Reject values of a file that JSON does not have, interpolations, and files that are far too large.

    Args:
        value: What the file contains.
        source: The name of the file, for the message.

    Raises:
        ConfigError: Names the file and the key. The value is not repeated, since it may name a secret.
    """
    for n_values, (key, node, depth) in enumerate(_walk(value)):
        if n_values >= MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigError(
                f"{source} has more than {MAX_VALUES} values or {MAX_DEPTH} levels; it is not a file that a run writes"
            )
        if isinstance(node, Mapping):
            if not all(isinstance(name, str) and not has_interpolation(name) for name in node):
                raise ConfigError(f"{source}: the keys below {key or 'its top'} must be plain strings")
        elif has_interpolation(node):
            raise ConfigError(f"{source}: {key} has an interpolation (${{...}}), where only plain values are allowed")
        elif not (node is None or isinstance(node, bool | int | float | str | list)):
            raise ConfigError(f"{source}: {key} must be a plain value, got {type(node).__name__}")


def interpolations(tree: Any) -> Iterator[str]:
    """Yield the keys at which a resolved tree still has interpolations, such as ``student.name``."""
    for key, node, _ in _walk(tree):
        if has_interpolation(node) or (isinstance(node, Mapping) and any(map(has_interpolation, node))):
            yield key or "its top"


def has_interpolation(value: Any) -> bool:
    """Return whether a value is a string with an interpolation, escaped or not."""
    return isinstance(value, str) and INTERPOLATION in value


def _walk(tree: Any) -> Iterator[tuple[str, Any, int]]:
    """Yield each value of a tree, mappings and lists as well, with its dotted key and its depth."""
    # Without recursion, which a file of many levels would exhaust.
    pending: list[tuple[str, Any, int]] = [("", tree, 0)]
    while pending:
        key, node, depth = pending.pop()
        yield key, node, depth
        if isinstance(node, Mapping):
            pending += [(f"{key}.{name}".lstrip("."), child, depth + 1) for name, child in node.items()]
        elif isinstance(node, list | tuple):
            pending += [(f"{key}[{i}]", child, depth + 1) for i, child in enumerate(node)]
