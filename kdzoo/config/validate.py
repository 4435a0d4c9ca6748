"""All mistakes of a composed configuration at once, each in a line with the nearest valid name.

``in_settings`` compares a configuration with the signatures of what it names, and builds nothing. What is wrong
with the words of a command line is found in ``command.py``.
"""

import inspect
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from beartype import BeartypeConf
from beartype.door import is_bearable
from beartype.roar import BeartypeException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdzoo import config
from kdzoo.config.signatures import Described, Opaque, describe
from kdzoo.errors import ConfigError

HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
FILLED_BY_RUN = {
    "distiller": {"student", "teacher", "optimizer", "scheduler"},
    "logger": {"save_dir"},
    "trainer": {
        "callbacks",
        "logger",
        "plugins",
        "default_root_dir",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "use_distributed_sampler",
    },
}
"""Arguments that the run provides, by group; nobody else may."""
NEEDED = ("distiller", "student", "data", "optimizer", "trainer")
RUN_TYPES: dict[str, Any] = {
    "seed": int | None,
    "seeds": list[int],
    "control": bool,
    "teacher_free": dict[str, Any],
    "feature_extractor": str | None,
    "teacher_cache": bool,
    "checkpoint_every_n_steps": int | None,
    "compile": bool,
    "output_dir": str | None,
    "cache_dir": str,
    "expected": list[dict[str, Any]],
}
TEACHER_TRAINING_TYPES: dict[str, Any] = {
    "checkpoint": str | None,
    "seed": int | None,
    "max_epochs": int,
    "optimizer": dict[str, Any],
    "scheduler": dict[str, Any] | None,
    "data": dict[str, Any],
}
MISSING = "???"


def in_settings(cfg: DictConfig, allow: Collection[str]) -> list[str]:
    """Return one line for every mistake in a composed configuration; none means that it can be built."""
    lines: list[str] = []
    tree = _resolved(cfg, "", lines)
    lines += _of_run(tree)
    # What depends on ${seed} is checked with one that is right.
    nodes = _resolved(OmegaConf.merge(cfg, {"seed": _one_seed(tree)}), "", [])
    lines += _of_teacher(nodes, allow)
    for group, node in nodes.items():
        lines += _of_node(group, _without_copies(node, nodes), allow)
    return list(dict.fromkeys(lines))


def _without_copies(node: Any, groups: Mapping[str, Any]) -> Any:
    """Return a group's node without what it repeats of another group, as ``inner_network: ${inner_network}`` does."""
    if not isinstance(node, Mapping):
        return node
    return {key: child for key, child in node.items() if not (isinstance(child, Mapping) and groups.get(key) == child)}


def _one_seed(tree: Mapping[str, Any]) -> int:
    seeds = [tree.get("seed"), *_as_list(tree.get("seeds"))]
    return next((seed for seed in seeds if isinstance(seed, int) and seed >= 0), 0)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _resolved(node: Any, path: str, lines: list[str]) -> Any:
    """Return plain values; what is missing or cannot be resolved becomes ``???`` and a line."""
    if isinstance(node, ListConfig):
        return [_resolved_child(node, i, f"{path}[{i}]", lines) for i in range(len(node))]
    if isinstance(node, DictConfig):
        names = [name for name in map(str, node) if name != "hydra"]
        return {name: _resolved_child(node, name, f"{path}.{name}".lstrip("."), lines) for name in names}
    return node


def _resolved_child(node: Any, key: Any, path: str, lines: list[str]) -> Any:
    if OmegaConf.is_missing(node, key):
        lines.append(f"{path} is missing; set {path}=...")
        return MISSING
    try:
        return _resolved(node[key], path, lines)
    except OmegaConfBaseException as error:
        lines.append(f"{path} cannot be resolved: {config.one_line(error)}")
        return MISSING


# ---------------------------------------------------------------- the settings of the run itself


def _of_run(tree: Mapping[str, Any]) -> Iterator[str]:
    known = {*RUN_TYPES, "teacher_training", *(group for group in config.groups() if "/" not in group)}
    for key in tree:
        if key not in known:
            yield f"unknown key {key!r}{config.nearest(str(key), known)}"
    for key in [key for key in (*NEEDED, *RUN_TYPES) if key not in tree]:
        yield f"{key} is missing"
    for key in [key for key in NEEDED if key in tree]:
        if not isinstance(tree[key], Mapping) or "_target_" not in tree[key]:
            yield f"{key} must be one of {config.groups()[key]} or a mapping with _target_, got {tree[key]!r}"
    yield from _of_types("", tree, RUN_TYPES)
    if tree.get("seed") is None and _fits(tree.get("seeds"), list[int]):
        if not tree["seeds"]:
            yield "seeds must name at least one seed, got []"
        elif len(set(tree["seeds"])) < len(tree["seeds"]):
            yield f"seeds must differ, got {tree['seeds']}"
    for seed in [tree.get("seed"), *_as_list(tree.get("seeds"))]:
        if isinstance(seed, int) and seed < 0:
            yield f"seeds must be >= 0, got {seed}"
    steps = tree.get("checkpoint_every_n_steps")
    if isinstance(steps, int) and steps < 1:
        yield f"checkpoint_every_n_steps must be at least 1 or null, got {steps}"


def _of_teacher(tree: Mapping[str, Any], allow: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with how the teacher is trained, and whether there is one where one is needed."""
    how = tree.get("teacher_training")
    if not isinstance(how, Mapping):
        yield f"teacher_training must be a mapping, got {how!r}"
        return
    for key in how:
        if key not in TEACHER_TRAINING_TYPES:
            yield f"teacher_training.{key} is unknown{config.nearest(str(key), TEACHER_TRAINING_TYPES)}"
    yield from _of_types("teacher_training.", how, TEACHER_TRAINING_TYPES)
    for key in ("optimizer", "scheduler"):
        if how.get(key) != tree.get(key):  # the same is checked once
            yield from _of_node(f"teacher_training.{key}", how.get(key), allow)
    data, changes = tree.get("data"), how.get("data")
    if isinstance(data, Mapping) and isinstance(changes, Mapping) and changes:
        changed = list(_of_node("teacher_training.data", {**data, **changes}, allow))
        yield from (line for line in changed if any(f"teacher_training.data.{key}" in line for key in changes))
    distiller = tree.get("distiller")
    target = str(distiller.get("_target_")) if isinstance(distiller, Mapping) else ""
    if target in allow and not tree.get("teacher"):
        try:
            needed = describe(target).info.get("teacher")
        except ConfigError:
            return
        if needed not in (None, "none"):
            yield f"teacher is missing: {target} needs a teacher; choose one of teacher={config.groups()['teacher']}"


def _of_types(prefix: str, node: Mapping[str, Any], types: Mapping[str, Any]) -> Iterator[str]:
    for key, hint in types.items():
        if key in node and not _fits(node[key], hint):
            yield f"{prefix}{key} must be {_name(hint)}, got {node[key]!r}"


# ---------------------------------------------------------------- what is built


def _of_node(path: str, node: Any, allow: Collection[str]) -> Iterator[str]:
    """Yield the mistakes of a node and of the nodes below it."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield from _of_target(path, node, allow)
    for key, child in node.items():
        if path in ("callbacks", "logger") and not (isinstance(child, Mapping) and "_target_" in child):
            yield f"{path}.{key} must be a mapping with _target_, got {child!r}"
        if path != "teacher_training":  # see _of_teacher
            yield from _of_node(f"{path}.{key}", child, allow)


def _of_target(path: str, node: Mapping[str, Any], allow: Collection[str]) -> Iterator[str]:
    target = str(node["_target_"])
    if target not in allow:
        yield f"{path}: {config.refusal(target, allow)}"
        return
    try:
        found = describe(target)
    except (ConfigError, ValueError) as error:
        yield f"{path}: {error}"
        return
    group = path.split(".")[0]
    filled = FILLED_BY_RUN.get(group, set())
    everything = found.parameters.values()
    named = {p.name: p for p in everything if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    takes_anything = any(p.kind is p.VAR_KEYWORD for p in everything)
    for key, value in node.items():
        if key in HYDRA_KEYS:
            continue
        if key in filled:
            yield f"{path}.{key} is set by the run; leave it out"
        elif key not in named:
            if not takes_anything:
                takes = [name for name in named if name not in filled]
                hint = config.nearest(str(key), takes) or f"; it takes {takes}"
                yield f"{path}.{key} is not an argument of {target}{hint}"
        elif not _fits(value, named[key].annotation):
            yield f"{path}.{key} must be {_name(named[key].annotation)}, got {value!r}"
    if path.split(".")[-1] in ("optimizer", "scheduler"):
        if not node.get("_partial_"):
            yield f"{path}._partial_ must be true: the run gives {target} its first argument"
    elif not node.get("_partial_"):
        given = {*node, *filled, *(config.SIZES if group in ("teacher", "student", "inner_network") else ())}
        for name, parameter in named.items():
            if parameter.default is parameter.empty and name not in given:
                yield f"{path}.{name} is missing: {target} needs it; set {path}.{name}=..."
    yield from _of_loss_weights(path, node, found)


def _of_loss_weights(path: str, node: Mapping[str, Any], found: Described) -> Iterator[str]:
    terms, given = found.info.get("terms"), node.get("loss_weights")
    if not terms or not isinstance(given, Mapping):
        return
    for name, weight in given.items():
        if name not in terms:
            near = config.nearest(str(name), terms)
            yield f"{path}.loss_weights.{name} is not a term of {found.name}{near}; its terms: {sorted(terms)}"
        elif weight != MISSING and (isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0):
            yield f"{path}.loss_weights.{name} must be a number >= 0, got {weight!r}"


# ---------------------------------------------------------------- types


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a plain YAML value can be meant for a parameter of this type."""
    if _is_built(value) or value == MISSING:
        return True
    if isinstance(value, Mapping) and value and all(map(_is_built, value.values())):
        return True
    if isinstance(value, bool) and _takes_number_only(hint):
        return False
    try:
        if isinstance(value, list):
            return _all_fit(value, lambda one: [one], hint) or _all_fit(tuple(value), lambda one: (one,), hint)
        if isinstance(value, Mapping):
            return _all_fit(value, lambda key: {key: value[key]}, hint)
        return _bearable(value, hint)
    except BeartypeException:
        return True


def _is_built(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _all_fit(values: Any, single: Any, hint: Any) -> bool:
    """Look at every element, since beartype looks at one that it draws by chance."""
    if not _bearable(values, hint):
        return False
    fixed_length = isinstance(values, tuple) and not _bearable((), hint)
    return fixed_length or all(_fits_inside(single(one), hint) for one in values)


def _fits_inside(container: Any, hint: Any) -> bool:
    (value,) = container.values() if isinstance(container, Mapping) else container
    numbers_only = isinstance(value, bool) and any(_takes_number_only(one) for one in typing.get_args(hint)[-1:])
    return not numbers_only and _bearable(container, hint)


def _takes_number_only(hint: Any) -> bool:
    """Return whether a type is a number, perhaps null: to Python, True is a number as well."""
    members = {one for one in typing.get_args(hint) or (hint,) if one is not type(None)}
    return bool(members) and members <= {int, float}


def _bearable(value: Any, hint: Any) -> bool:
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))


def _name(hint: Any) -> str:
    """Return the words for a type; classes that no plain value can be are left out."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_name(one) for one in typing.get_args(hint) if one is not Opaque)
    text = hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint)
    for long, short in (("typing.", ""), ("collections.abc.", ""), ("NoneType", "null"), ("None", "null")):
        text = text.replace(long, short)
    return text
