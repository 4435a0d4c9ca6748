"""From configuration to objects: the one place that composes, and the one that instantiates.

Only exact names may be built: those that the YAML files of the config groups name (the packaged ones and
those in folders that the user put on the search path), and those that the user typed. The whole
resolved tree is checked before anything is imported.
"""

import difflib
import hashlib
import inspect
import json
import pydoc
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdzoo.errors import ConfigError, KdzooError

_TARGET_LINE = re.compile(r"""^\s*-?\s*_target_:\s*["']?([\w.]+)""", re.MULTILINE)
_PLAIN_VALUE = re.compile(r"[\w./-]+=")
SIZES = {"in_shape", "num_classes", "vocab_size", "pad_id", "tokenizer", "teacher_architecture"}
"""Arguments of teacher and student that the data fix."""
FREE_KEYS = ("output_dir", "cache_dir", "logger", "expected", "hydra")
"""Settings that change no result, and so may differ when a run is continued."""


def lasting(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that determine the result of a run, resolved."""
    kept = OmegaConf.masked_copy(cfg, [key for key in map(str, cfg) if key not in FREE_KEYS])
    return plain(kept)


def run_id(cfg: DictConfig) -> str:
    """Return a short name that is the same for the same settings."""
    return hashlib.sha256(json.dumps(lasting(cfg), sort_keys=True, default=str).encode()).hexdigest()[:10]


# Registered by the import, so that the worker processes of a launcher know it too.
OmegaConf.register_new_resolver("run_id", lambda *, _root_: run_id(_root_), replace=True)


def compose(*overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """Return the configuration of a run, as the command line would compose it.

    Args:
        *overrides: as on the command line, ``"data=mnist"`` or ``"student.hidden=[800,800]"``. Keys that
            no YAML file mentions may be set; ``kdzoo.run`` refuses those that nothing takes.
        config_dir: a folder with config groups of your own.

    Raises:
        ConfigError: an override does not parse, or names no file of its group.

    Example:
        >>> compose("distiller.temperature=2", "seed=0").distiller.temperature
        2
    """
    folder = Path(config_dir) if config_dir is not None else None
    known = groups(folder)
    cfg = compose_all([with_new_key(text, known) for text in overrides], folder)
    choices = cfg.hydra.runtime.choices
    OmegaConf.set_struct(cfg, False)
    if cfg.output_dir is None:
        cfg.output_dir = f"outputs/{choices.distiller}-{choices.data}-{run_id(cfg)}"
    del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    return cfg


def compose_all(overrides: Sequence[str], folder: Path | None) -> DictConfig:
    """Return what Hydra composes, with its own settings below ``hydra``.

    Raises:
        ConfigError: Hydra cannot; the message is one line.
    """
    searched = [f"hydra.searchpath=['file://{folder.resolve()}']"] if folder else []
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("kdzoo.conf", version_base="1.3"):
            return hydra_compose("train", [*overrides, *searched], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(one_line(error)) from error
    finally:
        GlobalHydra.instance().hydra = running


def with_new_key(text: str, known_groups: Collection[str]) -> str:
    """Return an override as Hydra must be given it to set a key that no YAML file mentions."""
    key = text.partition("=")[0]
    is_choice = key in known_groups and not text.startswith(f"{key}={{")
    is_plain = _PLAIN_VALUE.match(text) and not key.startswith(("hydra.", "hydra/"))
    return f"++{text}" if is_plain and not is_choice else text


def groups(folder: Path | None = None) -> dict[str, list[str]]:
    """Return the packaged config groups and those in ``folder``, each with the names of its files."""
    found: dict[str, set[str]] = {}
    for root in filter(None, (packaged_folder(), folder)):
        for path in root.rglob("*.yaml"):
            group = path.parent.relative_to(root).as_posix()
            if group != ".":
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(names) for group, names in found.items()}


def plain(node: Any) -> Any:
    """Return a configuration node as plain dictionaries and lists; interpolations are resolved, ``???`` is kept."""
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig | ListConfig) else node


def instantiate(node: Mapping[str, Any], *, allow: Collection[str], **arguments: Any) -> Any:
    """Build what ``node`` names, with nested nodes first.

    Args:
        node: a mapping with ``_target_``; with ``_partial_: true`` a partial function is returned.
        allow: exact names that may be built.
        arguments: plain values that are added to the node's own.

    Raises:
        ConfigError: a name is not allowed or cannot be imported, or its arguments do not fit.
    """
    from hydra.utils import instantiate as hydra_instantiate

    tree = {**plain(node), **arguments}
    for target in targets(tree):
        if target not in allow:
            raise ConfigError(refusal(target, allow))
    with construction(tree["_target_"]):
        return hydra_instantiate(tree, _convert_="all")


@contextmanager
def construction(target: str, *others: type[Exception]) -> Iterator[None]:
    """Turn what a constructor says of its arguments into a ConfigError of one line; ``others`` are its own errors."""
    caught: tuple[type[Exception], ...] = (InstantiationException, ValueError, TypeError, *others)
    try:
        yield
    except caught as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, KdzooError):
            raise type(cause)(_inner_key(error) + str(cause)) from None
        raise ConfigError(f"cannot build {target}: {one_line(cause or error)}") from error


def _inner_key(error: Exception) -> str:
    """Return the key of the inner node that could not be built and a colon; nothing for the node itself."""
    _, found, key = str(error).rpartition("\nfull_key: ")
    return f"{key}: " if found and key and isinstance(error, InstantiationException) else ""


def refusal(target: str, allow: Collection[str]) -> str:
    """Return the line that says that ``target`` may not be built."""
    return (
        f"_target_ {target!r} is not in any config folder of this run{nearest(target, allow)}; name it in a YAML file "
        "in a --config-dir, on the command line, or in allow="
    )


def targets(tree: Any) -> Iterator[str]:
    """Yield every ``_target_`` in a tree of mappings and lists."""
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield str(tree["_target_"])
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for child in tree:
            yield from targets(child)


def targets_in(folder: Path) -> set[str]:
    """Return every ``_target_`` that the YAML files below ``folder`` name, read as text."""
    files = sorted(folder.rglob("*.yaml"))
    return {name for file in files for name in _TARGET_LINE.findall(file.read_text(encoding="utf-8"))}


@cache
def packaged_targets() -> frozenset[str]:
    """Return the names that the packaged configuration may build."""
    return frozenset(targets_in(packaged_folder()))


def packaged_folder() -> Path:
    """Return the folder of the packaged configuration groups."""
    return Path(str(resources.files("kdzoo.conf")))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the known name that is nearest, or nothing."""
    matches = difflib.get_close_matches(name, [str(one) for one in known], n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines[:2] if line and not line.startswith("full_key")) or type(error).__name__


def locate(target: str) -> Any:
    """Import the class or function that ``target`` names.

    Raises:
        ConfigError: there is no such name.
    """
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        raise ConfigError(f"_target_ {target!r} cannot be imported: {one_line(error)}") from error
    if found is None:
        raise ConfigError(f"_target_ {target!r} cannot be imported: there is no module or name like this")
    return found


def parameters(target: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a callable by name, following ``**kwargs`` to the base classes' ``__init__``.

    ``**kwargs`` itself is among them only if no base class says what it takes.
    """
    if not inspect.isclass(target):
        return dict(inspect.signature(target).parameters)
    found: dict[str, inspect.Parameter] = {}
    anything: list[inspect.Parameter] = []
    for owner in target.__mro__[:-1]:  # all but object
        if "__init__" not in vars(owner):
            continue
        own = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        found = {**{p.name: p for p in own if p.kind is not p.VAR_KEYWORD}, **found}
        anything = [p for p in own if p.kind is p.VAR_KEYWORD]
        if not anything:
            break
    return {**found, **{p.name: p for p in anything}}


def with_sizes(node: Any, sizes: Mapping[str, Any], allow: Collection[str]) -> Any:
    """Return ``node`` with the sizes that the data fix, wherever a ``_target_`` takes them and has none."""
    if isinstance(node, list):
        return [with_sizes(child, sizes, allow) for child in node]
    if not isinstance(node, dict):
        return node
    node = {key: with_sizes(child, sizes, allow) for key, child in node.items()}
    if "_target_" in node:
        if node["_target_"] not in allow:
            raise ConfigError(refusal(node["_target_"], allow))
        accepted = parameters(locate(node["_target_"]))
        node = {**{key: _listed(value) for key, value in sizes.items() if key in accepted}, **node}
        for name in SIZES & accepted.keys() - node.keys():
            if accepted[name].default is inspect.Parameter.empty:
                raise ConfigError(
                    f"{node['_target_']} needs {name}, which these data do not have (only {sorted(sizes)})"
                )
    return node


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
