"""The JSON Schema of the arguments of a class, from its signature, its docstring, and comments in the config files."""

import inspect
from collections.abc import Mapping
from typing import Any

from kdzoo.config import signatures, validate
from kdzoo.config.docstrings import argument_meanings, without_markup
from kdzoo.config.schema.sources import ConfigFiles, Target, described
from kdzoo.config.schema.types import INTERPOLATION, of_type

# Arguments that the run provides: those that ``validate`` rejects, and the first one of optimizers and schedulers.
SET_BY_RUN = {**validate.SET_BY_RUN, "optimizer": {"params"}, "scheduler": {"optimizer"}}
HYDRA_KEYS: dict[str, Any] = {
    "_target_": {"type": "string", "description": "Dotted name of the class or function that is called."},
    "_partial_": {"type": "boolean", "description": "Whether the run gives further arguments."},
    "_convert_": {"enum": ["none", "partial", "object", "all"]},
    "_recursive_": {"type": "boolean"},
    "_args_": {"type": "array"},
}
CLOSED = {"additionalProperties": False}


def class_schema(target: str, files: ConfigFiles) -> dict[str, Any]:
    """Return the schema of a mapping with the arguments of a class; other keys are refused if its source is known."""
    signature = signatures.from_source(target)
    summary = " ".join(signature.doc.split("\n\n")[0].split()) if signature else ""
    keys = {**HYDRA_KEYS, **arguments(target, files)}
    return {**described(without_markup(summary)), "type": "object", "properties": keys, **closed(target)}


def closed(*targets: str) -> dict[str, Any]:
    """Return the keyword that refuses unknown keys, or nothing if one of the classes may take unknown arguments."""
    found = [signatures.from_source(target) for target in targets]
    takes_any = [
        signature is None or any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()) for signature in found
    ]
    return {} if any(takes_any) else dict(CLOSED)


def arguments(target: str, files: ConfigFiles) -> dict[str, Any]:
    """Return the schema of each argument of a class that a configuration may set.

    If the source text of the class is not enough, these are the arguments that the config files give it.
    """
    known, signature = files.targets.get(target, Target()), signatures.from_source(target)
    if signature is None:
        return {key: described(known.comments.get(key)) for key in known.values if key not in HYDRA_KEYS}
    meanings = argument_meanings(target)
    set_by_run = {name for group in known.groups for name in SET_BY_RUN.get(group, ())}
    keys = {}
    for name, parameter in signature.parameters.items():
        if name in set_by_run or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        text = known.comments.get(name) or meanings.get(name)
        default = default_of(known.values.get(name) if _is_unknown(parameter.default) else parameter.default)
        keys[name] = {**of_type(parameter.annotation), **described(text), **default}
    if "terms" in signature.info:
        keys["loss_weights"] = _loss_weights(signature.info["terms"], known.comments)
    return keys


def default_of(value: Any) -> dict[str, Any]:
    """Return a part of a schema that has a value as its default; nothing for a value that is not plain."""
    plain = list(value) if isinstance(value, tuple) else value
    is_plain = plain is None or isinstance(plain, bool | int | float | str | list | dict)
    is_reference = isinstance(plain, str) and ("${" in plain or plain == validate.MISSING)
    return {"default": plain} if is_plain and not is_reference else {}


def _is_unknown(default: Any) -> bool:
    return default is ... or default is inspect.Parameter.empty


def _loss_weights(terms: Mapping[str, float], comments: Mapping[str, str]) -> dict[str, Any]:
    """Return the schema of the weights of the terms of a method."""
    number = {"anyOf": [{"type": "number", "minimum": 0}, INTERPOLATION]}
    weights = {
        name: {**number, **described(comments.get(f"loss_weights.{name}")), "default": weight}
        for name, weight in terms.items()
    }
    text = comments.get("loss_weights", "Weight of each loss term.")
    return {"type": ["object", "null"], **described(text), "properties": weights, **CLOSED}
