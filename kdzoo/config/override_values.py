"""Values of settings as they are written on the command line."""

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any


def as_override(value: Any) -> str:
    """Return a setting as it is written on the command line.

    Example:
        >>> as_override({"soft": 0.9, "layers": [1, None, "a b"], "on": True})
        '{soft:0.9,layers:[1,null,"a b"],on:true}'
    """
    if value is inspect.Parameter.empty:
        return "???"  # Hydra's sign for a value that must be given
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_override, value)) + "]"
    is_plain_word = isinstance(value, str) and re.fullmatch(r"[\w./${}:-]+", value)
    return value if is_plain_word else json.dumps(value, ensure_ascii=False)
