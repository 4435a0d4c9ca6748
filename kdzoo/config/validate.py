"""All mistakes of a composed configuration at once, each as one line that names the nearest valid key.

:func:`mistakes` compares a configuration with the signatures of the classes that it names, without building anything.
Mistakes in the command line itself are found by :mod:`kdzoo.config.overrides`.
"""

import inspect
import typing
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from beartype import BeartypeConf
from beartype.door import is_bearable
from beartype.roar import BeartypeException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdzoo import config
from kdzoo.config import trainer_settings
from kdzoo.config.plain_values import has_interpolation
from kdzoo.config.signatures import TargetSignature, describe
from kdzoo.config.type_words import in_words
from kdzoo.errors import ConfigError, did_you_mean

# Keys that Hydra reads and does not pass on to the class.
HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
# Arguments that the run provides, by group. A value in the configuration would be overwritten or, as with the trainer's
# callbacks, switch off what makes a run resumable.
SET_BY_RUN = {
    "distiller": {"student", "teacher", "optimizer", "scheduler"},
    "logger": {"save_dir", "root_dir"},  # root_dir is the name of save_dir in the base class of TensorBoardLogger
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
# Packages that loggers import when they are built, by the class; each has the name of an extra of kdzoo.
EXTRAS = {
    "kdzoo.runs.loggers.WandbLogger": "wandb",
    "kdzoo.runs.loggers.MLFlowLogger": "mlflow",
    "pytorch_lightning.loggers.TensorBoardLogger": "tensorboard",
}
# Groups without which there is nothing to train. The teacher is not one of them: some methods have none.
REQUIRED = ("distiller", "student", "data", "optimizer", "trainer")
RUN_TYPES: dict[str, Any] = {
    "seed": int | None,
    "seeds": list[int],
    "max_samples": int | None,
    "max_batch_size": int | None,
    "max_sequence_length": int | None,
    "largest": dict[str, float],
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
CONTROL_TRAINING_TYPES: dict[str, Any] = {
    "max_epochs": int,
    "optimizer": dict[str, Any],
    "scheduler": dict[str, Any] | None,
}
TRAINING_TYPES: dict[str, dict[str, Any]] = {
    "teacher_training": {
        "checkpoint": str | None,
        "seed": int | None,
        **CONTROL_TRAINING_TYPES,
        "data": dict[str, Any],
    },
    "control_training": CONTROL_TRAINING_TYPES,
}
# How OmegaConf writes a mandatory value that is not set.
MISSING = "???"

# In the message about a part without a class, by which ``overrides`` recognises it.
NO_TARGET = " has no _target_"


def mistakes(cfg: DictConfig, allow: Collection[str]) -> list[str]:
    """Return one line for every mistake in a composed configuration; an empty list means that it can be built.

    Args:
        cfg: The composed configuration.
        allow: Exact names of the classes and functions that may be built.
    """
    lines: list[str] = []
    tree = _resolved(cfg, "", lines)
    # What refers to a group that is missing is not a mistake of its own.
    absent = tuple(f"Interpolation key {group!r} not found" for group in REQUIRED if not tree.get(group))
    lines = [line for line in lines if not line.endswith(absent)]
    lines += _run_mistakes(tree)
    # Settings that depend on ${seed} are checked with a valid one, so that a wrong seed is reported only once.
    nodes = _resolved(OmegaConf.merge(cfg, {"seed": _valid_seed(tree)}), "", [])
    lines += _missing_targets(nodes)
    for training in TRAINING_TYPES:
        lines += _training_mistakes(training, nodes, allow)
    if not nodes.get("teacher"):
        lines += _missing_teacher(nodes.get("distiller"), allow)
    for group, node in nodes.items():
        lines += _node_mistakes(group, _without_copies(node, nodes), allow)
    return list(dict.fromkeys(lines))


def _missing_targets(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each part that is built from a class, and does not say which."""
    parts = {key: tree.get(key) for key in ("distiller", "teacher", "student", "data", "optimizer", "scheduler")}
    for name in TRAINING_TYPES:
        training = tree.get(name)
        if isinstance(training, Mapping):
            parts |= {f"{name}.{key}": training.get(key) for key in ("optimizer", "scheduler")}
    for path, node in parts.items():
        if isinstance(node, Mapping) and node and "_target_" not in node:
            yield f"{path}{NO_TARGET}, the class that it is built from, got {dict(node)}"


def _without_copies(node: Any, groups: Mapping[str, Any]) -> Any:
    """Return a group's node without what it repeats of another group, as ``inner_network: ${inner_network}`` does."""
    if not isinstance(node, Mapping):
        return node
    return {key: child for key, child in node.items() if not (isinstance(child, Mapping) and groups.get(key) == child)}


def _valid_seed(tree: Mapping[str, Any]) -> int:
    """Return the first valid seed of a configuration, or 0."""
    seeds = [tree.get("seed"), *_as_list(tree.get("seeds"))]
    return next((seed for seed in seeds if isinstance(seed, int) and seed >= 0), 0)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _resolved(node: Any, path: str, lines: list[str]) -> Any:
    """Return plain values; one that is missing or cannot be resolved becomes ``???`` and adds a line."""
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
        value = _resolved(node[key], path, lines)
    except OmegaConfBaseException as error:
        lines.append(f"{path} cannot be resolved: {config.one_line(error)}")
        return MISSING
    if has_interpolation(value):
        lines.append(f"{path} still has an interpolation when all are resolved; values cannot contain '${{'")
    return value


# ---------------------------------------------------------------- the settings of the run itself


def _run_mistakes(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield the mistakes in the top-level keys."""
    known = {*RUN_TYPES, *TRAINING_TYPES, *(group for group in config.groups() if "/" not in group)}
    for key in tree:
        if key not in known:
            yield f"unknown key {key!r}{did_you_mean(str(key), known)}"
    for key in [key for key in (*REQUIRED, *RUN_TYPES) if key not in tree]:
        yield f"{key} is missing"
    for key in [key for key in REQUIRED if key in tree]:
        if not isinstance(tree[key], Mapping) or "_target_" not in tree[key]:
            yield f"{key} must be one of {config.groups()[key]} or a mapping with _target_, got {tree[key]!r}"
    for key in ("callbacks", "logger"):
        if not isinstance(tree.get(key), Mapping | None):
            yield f"{key} must be a mapping of names to mappings with _target_, got {tree[key]!r}"
    yield from _type_mistakes("", tree, RUN_TYPES)
    yield from _seed_mistakes(tree)
    yield from trainer_settings.mistakes(tree.get("trainer"))
    for key in ("checkpoint_every_n_steps", "max_samples", "max_batch_size", "max_sequence_length"):
        count = tree.get(key)
        if isinstance(count, int) and count < 1:
            yield f"{key} must be at least 1 or null, got {count}"


def _seed_mistakes(tree: Mapping[str, Any]) -> Iterator[str]:
    if tree.get("seed") is None and _fits(tree.get("seeds"), list[int]):
        if not tree["seeds"]:
            yield "seeds must name at least one seed, got []"
        elif len(set(tree["seeds"])) < len(tree["seeds"]):
            yield f"seeds must differ, got {tree['seeds']}"
    for seed in [tree.get("seed"), *_as_list(tree.get("seeds"))]:
        if isinstance(seed, int) and seed < 0:
            yield f"seeds must be >= 0, got {seed}"


def _training_mistakes(name: str, tree: Mapping[str, Any], allow: Collection[str]) -> Iterator[str]:
    """Yield the mistakes in how the teacher or the control is trained."""
    training, types = tree.get(name), TRAINING_TYPES[name]
    if not isinstance(training, Mapping):
        yield f"{name} must be a mapping, got {training!r}"
        return
    for key in training:
        if key not in types:
            yield f"{name}.{key} is unknown{did_you_mean(str(key), types)}"
    yield from _type_mistakes(f"{name}.", training, types)
    yield from trainer_settings.idle(name, training, tree.get("trainer"))
    for key in ("optimizer", "scheduler"):
        if training.get(key) != tree.get(key):  # equal nodes would be reported twice
            yield from _node_mistakes(f"{name}.{key}", training.get(key), allow)
    data, changes = tree.get("data"), training.get("data")
    if isinstance(data, Mapping) and isinstance(changes, Mapping) and changes:
        lines = _node_mistakes(f"{name}.data", {**data, **changes}, allow)
        yield from (line for line in lines if any(f"{name}.data.{key}" in line for key in changes))


def _missing_teacher(distiller: Any, allow: Collection[str]) -> Iterator[str]:
    """Yield a line if the method of a configuration without a teacher needs one."""
    target = str(distiller.get("_target_")) if isinstance(distiller, Mapping) else ""
    if target not in allow:
        return
    try:
        needed = describe(target).info.get("teacher")
    except ConfigError:  # the distiller's own node reports this
        return
    if needed not in (None, "none"):
        yield f"teacher is missing: {target} needs a teacher; choose one of teacher={config.groups()['teacher']}"


def _type_mistakes(prefix: str, node: Mapping[str, Any], hints: Mapping[str, Any]) -> Iterator[str]:
    for key, hint in hints.items():
        if key in node and not _fits(node[key], hint):
            yield f"{prefix}{key} must be {in_words(hint)}, got {node[key]!r}"


# ---------------------------------------------------------------- nodes with _target_


def _node_mistakes(path: str, node: Any, allow: Collection[str]) -> Iterator[str]:
    """Yield the mistakes of a node and of the nodes below it."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield from _target_mistakes(path, node, allow)
    for key, child in node.items():
        if path in ("callbacks", "logger") and not (isinstance(child, Mapping) and "_target_" in child):
            yield f"{path}.{key} must be a mapping with _target_, got {child!r}"
        if path not in TRAINING_TYPES:  # checked by _training_mistakes
            yield from _node_mistakes(f"{path}.{key}", child, allow)


def _target_mistakes(path: str, node: Mapping[str, Any], allow: Collection[str]) -> Iterator[str]:
    """Yield the mistakes of one node with ``_target_``: its name, its arguments and those that are missing."""
    target = str(node["_target_"])
    if target not in allow:
        yield f"{path}: {config.not_allowed_message(target, allow)}"
        return
    extra = EXTRAS.get(target)
    if extra is not None and not _is_installed(extra):
        yield f"{path} needs the package {extra}, which is not installed: pip install 'kdzoo[{extra}]'"
        return
    try:
        signature = describe(target)
    except (ConfigError, ValueError) as error:  # inspect raises ValueError for functions written in C
        yield f"{path}: {error}"
        return
    yield from _argument_mistakes(path, node, signature)
    if path.split(".")[-1] in ("optimizer", "scheduler"):
        if not node.get("_partial_"):
            yield f"{path}._partial_ must be true: the run gives {target} its first argument"
    elif not node.get("_partial_"):
        yield from _missing_arguments(path, node, signature)
    yield from _loss_weight_mistakes(path, node, signature)


def _is_installed(package: str) -> bool:
    spec = find_spec(package)
    # A folder of that name in the working folder, which wandb itself makes, is found as well, but without a file.
    return spec is not None and spec.origin is not None


def _named_parameters(signature: TargetSignature) -> dict[str, inspect.Parameter]:
    """Return the parameters without ``*args`` and ``**kwargs``."""
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {p.name: p for p in signature.parameters.values() if p.kind not in variadic}


def _argument_mistakes(path: str, node: Mapping[str, Any], signature: TargetSignature) -> Iterator[str]:
    """Yield a line for every argument that is unknown, set by the run, or of another type."""
    set_by_run = SET_BY_RUN.get(path.split(".")[0], set())
    named = _named_parameters(signature)
    takes_any_name = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key, value in node.items():
        if key in HYDRA_KEYS:
            continue
        if key in set_by_run:
            yield f"{path}.{key} is set by the run; leave it out"
        elif key not in named:
            if not takes_any_name:
                valid = [name for name in named if name not in set_by_run]
                hint = did_you_mean(str(key), valid) or f"; it takes {valid}"
                yield f"{path}.{key} is not an argument of {node['_target_']}{hint}"
        elif not _fits(value, named[key].annotation):
            yield f"{path}.{key} must be {in_words(named[key].annotation)}, got {value!r}"


def _missing_arguments(path: str, node: Mapping[str, Any], signature: TargetSignature) -> Iterator[str]:
    """Yield a line for every argument without a default that neither the configuration nor the run provides."""
    group = path.split(".")[0]
    sizes = config.SIZES if group in ("teacher", "student", "inner_network") else set()
    provided = {*node, *SET_BY_RUN.get(group, set()), *sizes}
    for name, parameter in _named_parameters(signature).items():
        if parameter.default is parameter.empty and name not in provided:
            yield f"{path}.{name} is missing: {node['_target_']} needs it; set {path}.{name}=..."


def _loss_weight_mistakes(path: str, node: Mapping[str, Any], signature: TargetSignature) -> Iterator[str]:
    """Yield a line for every weight of an unknown term, and for every weight that is not a number >= 0."""
    terms, weights = signature.info.get("terms"), node.get("loss_weights")
    if not terms or not isinstance(weights, Mapping):
        return
    for name, weight in weights.items():
        if name not in terms:
            hint = did_you_mean(str(name), terms)
            yield f"{path}.loss_weights.{name} is not a term of {signature.name}{hint}; its terms: {sorted(terms)}"
        elif weight != MISSING and (isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0):
            yield f"{path}.loss_weights.{name} must be a number >= 0, got {weight!r}"


# ---------------------------------------------------------------- types


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a plain YAML value is accepted for a parameter of this type."""
    # What a node builds is known only when it is built, and a missing value is reported elsewhere.
    if _is_node(value) or value == MISSING:
        return True
    if isinstance(value, Mapping) and value and all(map(_is_node, value.values())):
        return True
    if isinstance(value, bool) and _is_number_type(hint):
        return False
    try:
        if isinstance(value, list):
            # YAML has no tuples: a list is passed where a tuple is expected.
            return _all_fit(value, lambda item: [item], hint) or _all_fit(tuple(value), lambda item: (item,), hint)
        if isinstance(value, Mapping):
            return _all_fit(value, lambda key: {key: value[key]}, hint)
        return _bearable(value, hint)
    except BeartypeException:  # a type that beartype does not support is not checked
        return True


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _all_fit(values: Any, single: Any, hint: Any) -> bool:
    """Return whether a container and each of its elements fit; beartype itself looks at one random element only."""
    if not _bearable(values, hint):
        return False
    has_fixed_length = isinstance(values, tuple) and not _bearable((), hint)
    return has_fixed_length or all(_element_fits(single(item), hint) for item in values)


def _element_fits(container: Any, hint: Any) -> bool:
    """Return whether the only element of a container fits."""
    (value,) = container.values() if isinstance(container, Mapping) else container
    is_bool_as_number = isinstance(value, bool) and any(map(_is_number_type, typing.get_args(hint)[-1:]))
    return not is_bool_as_number and _bearable(container, hint)


def _is_number_type(hint: Any) -> bool:
    """Return whether a type is a number, or a number or null. To Python, True is a number as well."""
    members = {member for member in typing.get_args(hint) or (hint,) if member is not type(None)}
    return bool(members) and members <= {int, float}


def _bearable(value: Any, hint: Any) -> bool:
    # The numeric tower of PEP 484 accepts an int for a float, as in ``lr: 1``.
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))
