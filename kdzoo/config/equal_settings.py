"""One form for settings that are equal, such as ``temperature=4`` and ``temperature=4.0``, for the name of a run."""

import types
import typing
from collections.abc import Mapping
from typing import Any

from kdzoo.config import signatures

# The annotation of loss weights names int as well, for callers whose types are checked strictly; 1 and 1.0 are equal.
_FLOATS: dict[str, Any] = {"loss_weights": Mapping[str, float]}


def with_floats(node: Any) -> Any:
    """Return settings with a float in place of an integer wherever an argument takes floats and no integers.

    An argument that takes both is left as it is: ``1`` may be a number of batches and ``1.0`` a share of them. Types
    are read from source text, without importing anything.

    Example:
        >>> with_floats({"_target_": "kdzoo.distillers.LogitKD", "temperature": 4, "micro_batch_size": 8})
        {'_target_': 'kdzoo.distillers.LogitKD', 'temperature': 4.0, 'micro_batch_size': 8}
    """
    if isinstance(node, list):
        return [with_floats(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    signature = signatures.from_source(str(node["_target_"])) if "_target_" in node else None
    hints = {name: parameter.annotation for name, parameter in signature.parameters.items()} if signature else {}
    hints |= {name: hint for name, hint in _FLOATS.items() if name in hints}
    return {key: with_floats(_as_annotated(value, hints.get(key, Any))) for key, value in node.items()}


def _as_annotated(value: Any, hint: Any) -> Any:
    """Return a value with floats where its type says so, also within a list or a mapping."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if float in members and int not in members else value
    # The last argument is the type of the items, or an ellipsis behind it.
    items = [[arg for arg in typing.get_args(member) if arg is not ...][-1:] for member in members]
    item_hints = [hints[0] for hints in items if hints]
    if len(item_hints) != 1:
        return value
    if isinstance(value, list):
        return [_as_annotated(item, item_hints[0]) for item in value]
    if isinstance(value, Mapping):
        return {key: _as_annotated(item, item_hints[0]) for key, item in value.items()}
    return value
