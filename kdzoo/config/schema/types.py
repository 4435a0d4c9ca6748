"""From the types of arguments to JSON Schema: which YAML values fit a type."""

import inspect
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from kdzoo.config.signatures import Opaque

# Parts of the document to which the schemas of types refer: a reference to another setting, a mapping that describes an
# object, and a value of which nothing is known, with the objects in it.
INTERPOLATION = {"$ref": "#/$defs/interpolation"}
NODE = {"$ref": "#/$defs/node"}
VALUE = {"$ref": "#/$defs/value"}
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", type(None): "null"}


def of_type(hint: Any) -> dict[str, Any]:
    """Return the schema of the YAML values that fit a type; where nothing is known, every value fits.

    A value may be a reference to another setting, and a list or mapping may be built from a mapping with ``_target_``.

    Example:
        >>> of_type(str | None)
        {'type': ['string', 'null']}
    """
    schemas: list[dict[str, Any]] = []
    for schema in _alternatives(hint):
        if schema not in schemas:
            schemas.append(schema)
    if VALUE in schemas:
        return dict(VALUE)
    names = [schema["type"] for schema in schemas if list(schema) == ["type"]]
    structured = [schema for schema in schemas if list(schema) != ["type"]]
    if any(schema.get("type") in ("array", "object") for schema in schemas) and NODE not in structured:
        structured.append(NODE)
    if "string" not in names:
        structured.append(INTERPOLATION)
    if names:
        structured.insert(0, {"type": names[0] if len(names) == 1 else names})
    return structured[0] if len(structured) == 1 else {"anyOf": structured}


def _alternatives(hint: Any) -> list[dict[str, Any]]:
    """Return the schemas of the members of a type, which is a union of several or one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [schema for member in arguments for schema in _alternatives(member)]
    if origin is typing.Literal:
        return [{"enum": list(arguments)}]
    if hint is None or hint in _SCALARS:
        return [{"type": _SCALARS[type(None) if hint is None else hint]}]
    if hint is Opaque:  # an object, which can only be built
        return [NODE]
    container = origin or hint
    if not inspect.isclass(container):
        return [VALUE]
    if issubclass(container, Mapping):
        return [{"type": "object", "additionalProperties": of_type(arguments[1]) if len(arguments) == 2 else VALUE}]
    if container is tuple and arguments and Ellipsis not in arguments:
        items = [of_type(member) for member in arguments]
        return [{"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}]
    # Collection includes Sequence, list, set and tuple; strings were handled above, and bytes are not YAML.
    if issubclass(container, Collection) or container is Iterable:
        return [{"type": "array", "items": of_type(arguments[0]) if arguments else VALUE}]
    return [VALUE]
