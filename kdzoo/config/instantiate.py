"""Building objects from configurations. All of them are built here, so that one check covers every configuration.

Only exact names may be built: those that the YAML files of the config groups name (the packaged ones and those in
folders that the user put on the search path), and those that the user typed. The whole resolved tree is checked before
anything is imported.
"""

import inspect
import pydoc
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from kdzoo.config import plain_values
from kdzoo.errors import ConfigError, KdzooError, did_you_mean

# Arguments of teacher and student that the data or the teacher's architecture determine, so that a configuration can
# omit them.
SIZES = {"in_shape", "num_classes", "classes", "vocab_size", "pad_id", "tokenizer", "teacher_architecture"}


def to_container(node: Any) -> Any:
    """Return a configuration node as plain dictionaries and lists; interpolations are resolved, ``???`` is kept."""
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig | ListConfig) else node


def instantiate(node: Mapping[str, Any], *, allow: Collection[str], **arguments: Any) -> Any:
    """Build what ``node`` names, with nested nodes first.

    Args:
        node: A mapping with ``_target_``; with ``_partial_: true`` a partial function is returned.
        allow: Exact names that may be built.
        arguments: Further arguments, plain values; they replace those of ``node`` with the same name.

    Raises:
        ConfigError: A name is not allowed or cannot be imported, its arguments do not fit, or a value has an
            interpolation after all have been resolved.
    """
    # Imported here because the import is slow, and most commands build nothing.
    from hydra.utils import instantiate as hydra_instantiate

    tree = {**to_container(node), **arguments}
    for target in targets(tree):
        if target not in allow:
            raise ConfigError(not_allowed_message(target, allow))
    # Hydra would resolve what is left of an escaped one after the names have been checked.
    for key in plain_values.interpolations(tree):
        raise ConfigError(f"{tree['_target_']}: {key} has an interpolation (${{...}}) that is not resolved")
    with reraise_as_config_error(tree["_target_"]):
        return hydra_instantiate(tree, _convert_="all")


@contextmanager
def reraise_as_config_error(target: str, *error_types: type[Exception]) -> Iterator[None]:
    """Within this context, turn the errors by which a constructor rejects its arguments into a ConfigError of one line.

    Args:
        target: The name of what is built, for the message.
        error_types: Errors that this constructor raises, in addition to ``ValueError`` and ``TypeError``.

    Raises:
        ConfigError: The constructor has raised one of these errors. Errors of kdzoo keep their type.
    """
    caught_types: tuple[type[Exception], ...] = (InstantiationException, ValueError, TypeError, *error_types)
    try:
        yield
    except caught_types as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, KdzooError):
            raise type(cause)(_inner_key(error) + str(cause)) from None
        raise ConfigError(f"cannot build {target}: {one_line(cause or error)}") from error


def _inner_key(error: Exception) -> str:
    """Return ``"key: "`` for the inner node that could not be built; an empty string for the outermost node."""
    _, separator, key = str(error).rpartition("\nfull_key: ")
    return f"{key}: " if separator and key and isinstance(error, InstantiationException) else ""


def not_allowed_message(target: str, allow: Collection[str]) -> str:
    """Return the message that ``target`` may not be built, with the most similar name in ``allow``."""
    return (
        f"_target_ {target!r} is not in any config folder of this run{did_you_mean(target, allow)}; name it in a YAML "
        "file in a --config-dir, on the command line, or in allow="
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


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line."""
    # Hydra puts the cause into the second line and the key, which the caller names, into the last.
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines[:2] if line and not line.startswith("full_key")) or type(error).__name__


def locate(target: str) -> Any:
    """Import the class or function that ``target`` names.

    Raises:
        ConfigError: The name cannot be imported.
    """
    try:
        target_object = pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        raise ConfigError(f"_target_ {target!r} cannot be imported: {one_line(error)}") from error
    if target_object is None:
        raise ConfigError(f"_target_ {target!r} cannot be imported: there is no module or name like this")
    return target_object


def parameters(target: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a callable by name, without ``self``.

    Where the ``__init__`` of a class takes ``**options``, these are replaced by the parameters of the next base class
    that has an ``__init__``. ``**options`` itself is returned only if the last of these takes it too.
    """
    if not inspect.isclass(target):
        return dict(inspect.signature(target).parameters)
    collected: dict[str, inspect.Parameter] = {}
    options: list[inspect.Parameter] = []
    for class_ in target.__mro__[:-1]:  # all classes except object
        if "__init__" not in vars(class_):
            continue
        declared = list(inspect.signature(vars(class_)["__init__"]).parameters.values())[1:]
        collected = {**{p.name: p for p in declared if p.kind is not p.VAR_KEYWORD}, **collected}
        options = [p for p in declared if p.kind is p.VAR_KEYWORD]
        if not options:
            break
    return {**collected, **{p.name: p for p in options}}


def with_sizes(node: Any, sizes: Mapping[str, Any], allow: Collection[str]) -> Any:
    """Return ``node`` with ``sizes`` added at every ``_target_`` that has such a parameter and does not set it.

    Args:
        node: A configuration node.
        sizes: Values for some of the names in ``SIZES``.
        allow: Exact names that may be imported to read their signatures.

    Raises:
        ConfigError: A name is not allowed, or needs a size that the data do not have.
    """
    if isinstance(node, list):
        return [with_sizes(child, sizes, allow) for child in node]
    if not isinstance(node, dict):
        return node
    node = {key: with_sizes(child, sizes, allow) for key, child in node.items()}
    if "_target_" in node:
        if node["_target_"] not in allow:
            raise ConfigError(not_allowed_message(node["_target_"], allow))
        accepted = parameters(locate(node["_target_"]))
        # Lists rather than tuples, because the node is written to JSON and must be read back equal.
        node = {**{key: _as_list(value) for key, value in sizes.items() if key in accepted}, **node}
        for name in SIZES & accepted.keys() - node.keys():
            if accepted[name].default is inspect.Parameter.empty:
                raise ConfigError(
                    f"{node['_target_']} needs {name}, which these data do not have (only {sorted(sizes)})"
                )
    return node


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
