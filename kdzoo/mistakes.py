"""All mistakes of a configuration at once, each in a line with the nearest valid name.

``in_settings`` checks a composed configuration against the signatures of what it names. It imports these
classes, and builds nothing. The check of a command line, which needs no torch, is in ``command.py``.
"""

import inspect
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdzoo import config
from kdzoo.errors import ConfigError

HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
FILLED_BY_RUN = {
    "distiller": {"student", "teacher", "optimizer", "scheduler"},
    "teacher": {"in_shape", "num_classes"},
    "student": {"in_shape", "num_classes"},
    "logger": {"save_dir"},
    "trainer": {"callbacks", "logger", "plugins", "default_root_dir", "enable_checkpointing"},
}
"""Arguments that the run provides, by group."""
RUN_TYPES: dict[str, Any] = {
    "seed": int | None,
    "seeds": list[int],
    "control": bool,
    "teacher_cache": bool,
    "checkpoint_every_n_steps": int | None,
    "compile": bool,
    "output_dir": str | None,
    "cache_dir": str,
}


def in_settings(cfg: DictConfig, allow: Collection[str]) -> list[str]:
    """Return one line for every mistake in a composed configuration; none means that it can be built."""
    missing = [f"{key} is missing; set {key}=..." for key in sorted(OmegaConf.missing_keys(cfg))]
    try:
        tree = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        return [*missing, str(error).splitlines()[0]]
    assert isinstance(tree, dict)
    tree.pop("hydra", None)
    return [
        *missing,
        *_of_run(tree),
        *(line for group in tree for line in _of_node(group, tree[group], allow)),
    ]


def _of_run(tree: Mapping[str, Any]) -> Iterator[str]:
    known = set(OmegaConf.load(config.packaged_folder() / "train.yaml")) - {"defaults", "hydra"}
    known |= {path.name for path in config.packaged_folder().iterdir() if path.is_dir()}
    for key in tree:
        if key not in known:
            yield f"unknown key {key!r}{config.nearest(key, known)}"
    for key in sorted({"distiller", "student", "data", "optimizer", "trainer", *RUN_TYPES} - set(tree)):
        yield f"{key} is missing"
    for key, hint in RUN_TYPES.items():
        if key in tree and not _fits(tree[key], hint):
            yield f"{key} must be {_name(hint)}, got {tree[key]!r}"
    if tree.get("seed") is None and _fits(tree.get("seeds"), list[int]):
        if not tree["seeds"]:
            yield "seeds must name at least one seed, got []"
        elif len(set(tree["seeds"])) < len(tree["seeds"]):
            yield f"seeds must differ, got {tree['seeds']}"
    steps = tree.get("checkpoint_every_n_steps")
    if isinstance(steps, int) and steps < 1:
        yield f"checkpoint_every_n_steps must be at least 1 or null, got {steps}"


def _of_node(path: str, node: Any, allow: Collection[str]) -> Iterator[str]:
    """Yield the mistakes of a node and of the nodes below it."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield from _of_target(path, node, allow)
    for key, child in node.items():
        yield from _of_node(f"{path}.{key}", child, allow)


def _of_target(path: str, node: Mapping[str, Any], allow: Collection[str]) -> Iterator[str]:
    target = str(node["_target_"])
    if target not in allow:
        yield f"{path}: {config.refusal(target, allow)}"
        return
    try:
        found = config.locate(target)
        parameters = config.parameters(found)
    except (ConfigError, ValueError) as error:
        yield f"{path}: {error}"
        return
    filled = FILLED_BY_RUN.get(path.split(".")[0], set())
    known = [name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD and name not in filled]
    for key, value in node.items():
        if key in HYDRA_KEYS:
            continue
        if key not in parameters:
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                yield f"{path}.{key} is not an argument of {target}{config.nearest(key, known)}; it takes {known}"
        elif not _fits(value, _hint(found, key, parameters[key])):
            yield f"{path}.{key} must be {_name(_hint(found, key, parameters[key]))}, got {value!r}"
    if not node.get("_partial_"):
        for name, parameter in parameters.items():
            needed = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            )
            if needed and name not in filled and name not in node:
                yield f"{path}.{name} is missing: {target} needs it"
    yield from _of_loss_weights(path, node, found)


def _of_loss_weights(path: str, node: Mapping[str, Any], found: Any) -> Iterator[str]:
    terms, given = getattr(found, "terms", None), node.get("loss_weights")
    if not terms or not isinstance(given, Mapping):
        return
    for name, weight in given.items():
        if name not in terms:
            yield (
                f"{path}.loss_weights.{name} is no term of {found.__name__}{config.nearest(name, terms)}; "
                f"its terms: {sorted(terms)}"
            )
        elif isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
            yield f"{path}.loss_weights.{name} must be a number >= 0, got {weight!r}"


def _hint(found: Any, name: str, parameter: inspect.Parameter) -> Any:
    """Return the type of a parameter, resolved from its source text where needed; Any if it has none."""
    if parameter.annotation is parameter.empty:
        return Any
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    owner = found.__init__ if inspect.isclass(found) else found
    try:
        return typing.get_type_hints(owner).get(name, Any)
    except (NameError, TypeError):
        return Any


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a plain YAML value can be meant for a parameter of this type."""
    from beartype import BeartypeConf
    from beartype.door import is_bearable
    from beartype.roar import BeartypeException

    if (isinstance(value, Mapping) and "_target_" in value) or value == "???":
        return True
    if isinstance(value, bool) and hint in (int, float, int | None, float | None, list[int]):
        return False
    numbers = BeartypeConf(is_pep484_tower=True)
    try:
        return is_bearable(value, hint, conf=numbers) or (
            isinstance(value, list) and is_bearable(tuple(value), hint, conf=numbers)
        )
    except BeartypeException:
        return True


def _name(hint: Any) -> str:
    text = hint.__name__ if inspect.isclass(hint) else str(hint)
    return (
        text.replace("typing.", "").replace("collections.abc.", "").replace("NoneType", "null").replace("None", "null")
    )
