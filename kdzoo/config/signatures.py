"""The parameters of a class or function, read from its source text where possible, so that nothing is imported.

A typing mistake on the command line is then reported without waiting seconds for torch. A class whose source text is
not enough, such as a dataclass, is imported after all.
"""

import ast
import collections.abc
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from kdzoo import config

# Fields of a method's ``info`` (kdzoo.core.method_info.MethodInfo) that a validation reads, and their defaults there.
INFO_DEFAULTS: dict[str, Any] = {"terms": {}, "teacher": "required"}
_BUILT_IN = {kind.__name__: kind for kind in (int, float, str, bool, bytes, list, dict, tuple, set)}
TYPES: dict[str, Any] = {**vars(typing), **vars(collections.abc), **_BUILT_IN, "Path": Path}


@runtime_checkable
class DeclaresInfo(Protocol):
    """A distiller class."""

    info: Any


@dataclass(frozen=True)
class Described:
    """A class or function as a configuration sees it.

    Attributes:
        name: Its name without the module.
        parameters: The parameters by name, with their types as annotations; Any where a type is not a plain one.
        info: Fields of a method's ``info``, those named in ``INFO_DEFAULTS``; empty for other classes and functions.
    """

    name: str
    parameters: dict[str, inspect.Parameter]
    info: dict[str, Any]


@cache
def describe(target: str) -> Described:
    """Return the description of ``target``.

    Raises:
        ConfigError: There is no such name.
    """
    return _from_source(target) or _imported(target)


def _imported(target: str) -> Described:
    found = config.locate(target)
    owner = found.__init__ if inspect.isclass(found) else found
    try:
        hints = typing.get_type_hints(owner)
    except (NameError, TypeError, AttributeError):  # annotations that name something which is not imported
        hints = {}
    parameters = {
        name: parameter.replace(annotation=hints.get(name, Any)) for name, parameter in config.parameters(found).items()
    }
    declared = vars(found.info) if isinstance(found, DeclaresInfo) else {}
    info = {name: declared[name] for name in INFO_DEFAULTS if name in declared}
    return Described(target.rpartition(".")[2], parameters, info)


# ---------------------------------------------------------------- source text


def _from_source(target: str) -> Described | None:
    """Return the description of a class, or None where the source text alone is not enough."""
    module, _, name = target.rpartition(".")
    parameters: dict[str, inspect.Parameter] = {}
    info: dict[str, Any] = {}
    is_open = True  # whether **options are still passed on to the next base class
    has_init = False
    for home, owner in _lineage(module, name):
        if owner.decorator_list:  # a decorator, such as dataclass, may replace the constructor
            return None
        for key, value in _info(owner):
            info.setdefault(key, value)
        init = next((one for one in owner.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        has_init = has_init or init is not None
        if init is not None and is_open:
            own = dict(_parameters(init.args, home))
            parameters = {**own, **parameters}
            is_open = init.args.kwarg is not None
        if not is_open and info.keys() >= INFO_DEFAULTS.keys():
            break
    takes_nothing = not has_init and _ends_at_object(module, name)
    return None if is_open and not takes_nothing else Described(name, parameters, info)


def _lineage(module: str, name: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield the class and its first bases, each with its module, as far as their source can be found."""
    found = _class(module, name)
    while found is not None:
        module, owner = found
        yield found
        base = owner.bases[0] if owner.bases else None
        base = base.value if isinstance(base, ast.Subscript) else base  # Base[T] is Base
        if not isinstance(base, ast.Name):
            return
        found = _class(module, base.id)


def _ends_at_object(module: str, name: str) -> bool:
    """Return whether the source of all base classes is known, up to those that have no constructor of their own."""
    lineage = list(_lineage(module, name))
    return bool(lineage) and [ast.unparse(base) for base in lineage[-1][1].bases] in ([], ["ABC"], ["object"])


def _class(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """Return the module that defines a class, following imports from one module to the next, and the class."""
    for _ in range(8):  # re-exports are two or three modules deep; the bound ends a circle of imports
        tree = _parsed(module)
        if tree is None:
            return None
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return module, node
        source = _imports(tree).get(name)
        if source is None:
            return None
        module, name = source
    return None


def _imports(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Return name here -> (module, name there) of every ``from ... import ...`` at the top of a module."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module
        for alias in node.names
    }


@cache
def _parsed(module: str) -> ast.Module | None:
    """Return the syntax tree of a module, without importing it or a package it is in."""
    top, *below = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    if not below:
        path = Path(spec.origin)
    else:
        stem = Path(spec.origin).parent.joinpath(*below)
        path = next((one for one in (stem.with_suffix(".py"), stem / "__init__.py") if one.exists()), stem)
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def _info(owner: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """Yield the literal fields of ``info = MethodInfo(...)`` or ``info = replace(Base.info, ...)`` in a class body.

    A ``MethodInfo`` also decides the fields that it leaves at their defaults; with ``replace`` they are the base's.
    """
    for node in owner.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not (isinstance(target, ast.Name) and target.id == "info" and isinstance(node.value, ast.Call)):
            continue
        for keyword in node.value.keywords:
            if keyword.arg in INFO_DEFAULTS:
                try:
                    yield keyword.arg, ast.literal_eval(keyword.value)
                except ValueError:
                    continue
        if ast.unparse(node.value.func) == "MethodInfo":
            yield from INFO_DEFAULTS.items()


def _parameters(arguments: ast.arguments, module: str) -> Iterator[tuple[str, inspect.Parameter]]:
    """Yield the parameters of a method but the first, ``self``; of a default only that there is one counts."""
    positional = [*arguments.posonlyargs, *arguments.args]
    needed = len(positional) - len(arguments.defaults)
    pairs: list[tuple[ast.arg, bool, Any]] = [
        (one, i < needed, inspect.Parameter.POSITIONAL_OR_KEYWORD) for i, one in enumerate(positional)
    ][1:]
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    pairs += [(one, value is None, inspect.Parameter.KEYWORD_ONLY) for one, value in keywords]
    for one, is_needed, kind in pairs:
        default = inspect.Parameter.empty if is_needed else ...
        hint = Any if one.annotation is None else _type(one.annotation, module)
        yield one.arg, inspect.Parameter(one.arg, kind, default=default, annotation=hint)


# ---------------------------------------------------------------- types


class Opaque:
    """Stands for a class of which no plain YAML value is an instance."""


def _type(node: ast.expr, module: str) -> Any:
    """Return the type that an annotation names, or Any if the source text does not tell."""
    try:
        return _evaluated(node, module)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Any


def _evaluated(node: ast.expr, module: str) -> Any:
    if isinstance(node, ast.Name):
        return TYPES[node.id] if node.id in TYPES else _named(node.id, module)
    if isinstance(node, ast.Constant) and (node.value is None or node.value is ...):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[_evaluated(node.left, module), _evaluated(node.right, module)]  # noqa: UP007
    if isinstance(node, ast.Tuple):
        return tuple(_evaluated(one, module) for one in node.elts)
    if isinstance(node, ast.List):
        return [_evaluated(one, module) for one in node.elts]
    if isinstance(node, ast.Subscript):
        whole = _evaluated(node.value, module)
        return whole[ast.literal_eval(node.slice) if whole is typing.Literal else _evaluated(node.slice, module)]
    raise TypeError(ast.dump(node))


def _named(name: str, module: str) -> Any:
    """Return what a name of a module stands for: a class there, an alias, or something that it imports."""
    tree = _parsed(module)
    if tree is None:
        raise KeyError(name)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Opaque
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return _evaluated(node.value, module)
    source, there = _imports(tree)[name]
    return _named(there, source)
