"""The JSON Schema of whole files: those that configure a run, and those of one config group."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdzoo import config
from kdzoo.config import validate
from kdzoo.config.overrides import MULTI_CHOICE_GROUPS
from kdzoo.config.schema.classes import CLOSED, HYDRA_KEYS, arguments, class_schema, closed, default_of
from kdzoo.config.schema.sources import GLOBAL_GROUPS, NAMED_GROUPS, ConfigFiles, described
from kdzoo.config.schema.types import INTERPOLATION, NODE, VALUE, of_type
from kdzoo.errors import ConfigError, did_you_mean

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# What may precede the name of a group in a list of defaults, as a regular expression.
_PREFIX = "^((override|optional) )?/?"


def document(group: str = "", folder: Path | None = None) -> dict[str, Any]:
    """Return the schema of the files of a config group, or of the files that configure a run.

    The latter are those of the groups ``experiment`` and ``debug``, and the ``config.yaml`` in a run folder.

    Args:
        group: Name of the group; empty for a run.
        folder: A config folder of the user, whose files are options too.

    Raises:
        ConfigError: The group does not exist, or a file of the folder is broken.
    """
    files = ConfigFiles(folder)
    if group and group not in files.groups:
        hint = did_you_mean(group, files.groups)
        raise ConfigError(f"{group!r} is not a config group{hint}; groups: {', '.join(files.groups)}")
    is_run = group in ("", *GLOBAL_GROUPS)
    content = _run(files) if is_run else _group(group, files, {"defaults": _defaults_of_group(group, files)})
    definitions = _definitions(files)
    if not is_run:
        for target in files.classes(group):
            definitions[target]["properties"]["defaults"] = True  # described at the top of the document
    return {"$schema": DIALECT, "title": f"kdzoo: {group or 'run'}", **content, "$defs": definitions}


def _definitions(files: ConfigFiles) -> dict[str, Any]:
    """Return the parts that other parts refer to."""
    names = sorted({*config.packaged_targets(), *(config.targets_in(files.folder) if files.folder else ())})
    return {
        "interpolation": {
            "type": "string",
            "pattern": r"\$\{.+\}|^\?\?\?$",
            "description": "A reference to another setting, such as ${seed}; ??? for a value that must still be set.",
        },
        # A value of unknown type: objects in it are checked.
        "value": _node_or({"if": {"type": "array"}, "then": {"items": VALUE}}),
        "node": {
            "description": "An object: the class that it is built from, and its arguments.",
            "type": "object",
            "required": ["_target_"],
            "properties": {"_target_": {**HYDRA_KEYS["_target_"], "anyOf": [{"enum": names}, {"type": "string"}]}},
            "allOf": [
                {"if": {"properties": {"_target_": {"const": name}}}, "then": _reference(name)} for name in names
            ],
        },
        **{name: class_schema(name, files) for name in names},
        **{group: _group(group, files) for group in files.key_groups},
    }


# ---------------------------------------------------------------- a run


def _run(files: ConfigFiles) -> dict[str, Any]:
    settings = {
        key: {**of_type(hint), **files.description(key), **default_of(files.run_values.get(key))}
        for key, hint in validate.RUN_TYPES.items()
    }
    names = ["_self_", *(name for group in GLOBAL_GROUPS for name in files.groups[group])]
    # Any name is accepted: files of the user's own come and go.
    other_file = {"description": "A file that this one extends.", "anyOf": [{"enum": names}, {"type": "string"}]}
    choices = {f"override /{group}": _choice(group, files) for group in files.groups}
    return {
        "type": "object",
        "properties": {
            "defaults": _defaults(other_file, choices, files),
            **{group: files.description(group) for group in files.key_groups},
            **settings,
            **{name: _training(name, files) for name in validate.TRAINING_TYPES},
            "hydra": {"type": "object", "description": "Settings of Hydra itself."},
        },
        **CLOSED,
        "allOf": [condition for group in files.key_groups for condition in _by_choice(group, files)],
    }


def _by_choice(group: str, files: ConfigFiles) -> Iterator[dict[str, Any]]:
    """Yield the schema of the key of a group for each option that ``defaults`` may choose, and for no choice."""
    options = {} if group in NAMED_GROUPS else files.options(group)
    for name, target in options.items():
        chosen = {"type": ["object", "null"], **_node_or(_reference(target))}
        yield {"if": _chooses(group, {"const": name}), "then": {"properties": {group: chosen}}}
    no_option = {"not": _chooses(group, {"enum": list(options)})} if options else {}
    yield {"if": no_option, "then": {"properties": {group: _reference(group)}}}


def _chooses(group: str, name: Mapping[str, Any]) -> dict[str, Any]:
    """Return the condition that the list of defaults chooses an option of a group."""
    item = {"properties": {f"override /{group}": name}, "required": [f"override /{group}"]}
    return {"properties": {"defaults": {"contains": {"type": "object", **item}}}, "required": ["defaults"]}


def _training(name: str, files: ConfigFiles) -> dict[str, Any]:
    """Return the schema of the settings of the teacher's or the control's training."""
    keys = {key: of_type(hint) for key, hint in validate.TRAINING_TYPES[name].items()}
    groups = keys.keys() & {"optimizer", "scheduler", "data"}
    keys |= {key: {"anyOf": [_reference(key), INTERPOLATION]} for key in groups}
    keys = {key: {**schema, **files.description(f"{name}.{key}")} for key, schema in keys.items()}
    return {"type": "object", **files.description(name), "properties": keys, **CLOSED}


# ---------------------------------------------------------------- a group


def _group(group: str, files: ConfigFiles, further: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of the key of a group; with further keys, that of its files."""
    head = {**files.description(group), "type": "object" if further else ["object", "null"]}
    further = further or {}
    if group in NAMED_GROUPS:
        objects = {key: _node_or(_reference(target)) for key, target in files.objects(group).items()}
        others = {"type": "object", **_node_or({})}
        return {**head, "properties": {**objects, **further}, "additionalProperties": others}
    targets = files.classes(group)
    if not targets:  # a group of plain settings
        settings = {key: text for name in files.groups[group] for key, text in files.comments[group, name].items()}
        keys = {key: described(text) for key, text in settings.items()}
        return {**head, "properties": {**further, **keys}, **CLOSED}
    keys = _union([arguments(target, files) for target in targets])
    # Without its class, which another file names, an object may have the arguments of any option.
    return {**head, **_node_or({"properties": {**HYDRA_KEYS, **further, **keys}, **closed(*targets)}, further)}


def _union(schemas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the arguments of several classes; one of different types may be of any of them."""
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for schema in schemas:
        for key, argument in schema.items():
            by_key.setdefault(key, []).append(argument)
    return {key: _any_of(variants) for key, variants in by_key.items()}


def _any_of(variants: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what fits any of the schemas of an argument, without a default, which depends on the class."""
    if all("properties" in variant for variant in variants):
        return {**_without_default(variants[0]), "properties": _union([item["properties"] for item in variants])}
    types = {json.dumps({**_without_default(item), "description": ""}): _without_default(item) for item in variants}
    return next(iter(types.values())) if len(types) == 1 else {"anyOf": list(types.values())}


def _without_default(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "default"}


def _defaults_of_group(group: str, files: ConfigFiles) -> dict[str, Any]:
    others = [other for other in files.groups if other != group]
    choices = {f"override /{other}@_global_.{other}": _choice(other, files) for other in others}
    names = {"description": "A file that this one extends.", "enum": ["_self_", *files.groups[group]]}
    return _defaults(names, choices, files)


def _defaults(names: Mapping[str, Any], choices: Mapping[str, Any], files: ConfigFiles) -> dict[str, Any]:
    """Return the schema of a list of defaults.

    Args:
        names: Schema of an item that is a name.
        choices: Schemas of the choices of other groups by their keys, which an editor offers.
        files: The config files.
    """
    # Other forms of the same keys, such as /distiller@_here_.
    forms = {f"{_PREFIX}{re.escape(group)}(@.*)?$": _choice(group, files) for group in files.groups}
    choice = {"type": "object", "properties": choices, "patternProperties": {**forms, f"{_PREFIX}hydra/": {}}, **CLOSED}
    return {"type": "array", "description": "The files that this one is merged into.", "items": _either(names, choice)}


def _choice(group: str, files: ConfigFiles) -> dict[str, Any]:
    """Return the schema of the choice of a group: a name, null, or several names."""
    name = {"enum": files.groups[group]}
    several = [{"type": "array", "items": name}] if group in MULTI_CHOICE_GROUPS else []
    return {**files.description(group), "anyOf": [name, {"type": "null"}, *several, INTERPOLATION]}


def _either(text: Mapping[str, Any], mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a string or a mapping, whose errors are only about the one that is there."""
    return {"if": {"type": "string"}, "then": text, "else": mapping}


def _node_or(partial: Mapping[str, Any], further: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of an object, given whole with its ``_target_``, or as changes of some of its arguments."""
    node = {**NODE, "properties": further} if further else NODE
    return {"if": {"type": "object", "required": ["_target_"]}, "then": node, "else": partial}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}
