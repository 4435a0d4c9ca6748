"""From configuration to objects: the one place that instantiates, what it may build, and its checks.

Only exact names may be built: those that the YAML files of the config groups name (the packaged ones and
those in folders that the user put on the search path), and those that the user typed. The whole
resolved tree is checked before anything is imported.
"""

import difflib
import hashlib
import inspect
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from kdzoo.errors import ConfigError

_TARGET_LINE = re.compile(r"""^\s*-?\s*_target_:\s*["']?([\w.]+)""", re.MULTILINE)
FREE_KEYS = ("output_dir", "cache_dir", "logger", "hydra")
"""Settings that change no result, and so may differ when a run is continued."""


def lasting(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that determine the result of a run, resolved."""
    kept = OmegaConf.masked_copy(cfg, [key for key in cfg if key not in FREE_KEYS])
    return plain(kept)


def run_id(cfg: DictConfig) -> str:
    """Return a short name that is the same for the same settings."""
    return hashlib.sha256(json.dumps(lasting(cfg), sort_keys=True, default=str).encode()).hexdigest()[:10]


def register_resolvers() -> None:
    """Make ``${run_id:}`` known to OmegaConf."""
    OmegaConf.register_new_resolver("run_id", lambda *, _root_: run_id(_root_), replace=True)


def compose(*overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """Return the configuration of a run, as the command line would compose it.

    Args:
        *overrides: as on the command line, ``"data=mnist"`` or ``"student.hidden=[800,800]"``.
        config_dir: a folder with config groups of your own.

    Raises:
        ConfigError: an override does not parse or names no key.

    Example:
        >>> compose("distiller.temperature=2", "seed=0").distiller.temperature
        2
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    register_resolvers()
    path = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("kdzoo.conf", version_base="1.3"):
            cfg = hydra_compose("train", [*overrides, *path], return_hydra_config=True)
    except HydraException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    finally:
        GlobalHydra.instance().hydra = running
    choices = cfg.hydra.runtime.choices
    OmegaConf.set_struct(cfg, False)
    if cfg.output_dir is None:
        cfg.output_dir = f"outputs/{choices.distiller}-{choices.data}-{run_id(cfg)}"
    del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    return cfg


def plain(node: Any) -> Any:
    """Return a configuration node as plain dictionaries and lists, all interpolations resolved."""
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
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    tree = {**plain(node), **arguments}
    for target in targets(tree):
        if target not in allow:
            raise ConfigError(refusal(target, allow))
    try:
        return hydra_instantiate(tree, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        reason = str(cause or error).splitlines()[0]
        raise ConfigError(f"cannot build {tree['_target_']}: {reason}") from error


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
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def locate(target: str) -> Any:
    """Import the class or function that ``target`` names.

    Raises:
        ConfigError: there is no such name.
    """
    from hydra.utils import get_object

    try:
        return get_object(target)
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[-1]
        raise ConfigError(f"_target_ {target!r} cannot be imported: {reason}") from error


def parameters(target: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a callable by name, following ``**kwargs`` to the base classes' ``__init__``."""
    if not inspect.isclass(target):
        return dict(inspect.signature(target).parameters)
    found: dict[str, inspect.Parameter] = {}
    for owner in target.__mro__:
        if "__init__" not in vars(owner):
            continue
        signature = inspect.signature(owner.__init__)
        own = list(signature.parameters.values())[1:]
        found = {**{p.name: p for p in own if p.kind is not p.VAR_KEYWORD}, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return found


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
    return node


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
