"""The parameters of a class or function, read from its source text where possible, without importing it.

A typing mistake on the command line is then reported without waiting seconds for the import of torch. Where the source
text is not enough, as for a dataclass, the class is imported.
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

from kdzoo.config.instantiate import locate
from kdzoo.config.instantiate import parameters as parameters_of

# Fields of a distiller's ``info`` (kdzoo.core.method_info.MethodInfo) that the command line reads, with the defaults
# that they have in that class.
INFO_DEFAULTS: dict[str, Any] = {
    "terms": {},
    "teacher": "required",
    "paper": "",
    "bibtex": "",
    "teacher_kinds": (),
    "student_kinds": (),
}
_BUILT_IN = {kind.__name__: kind for kind in (int, float, str, bool, bytes, list, dict, tuple, set)}
# Types that an annotation can name without their source text being looked up, by name.
TYPES: dict[str, Any] = {**vars(typing), **vars(collections.abc), **_BUILT_IN, "Path": Path}


@runtime_checkable
class DeclaresInfo(Protocol):
    """A distiller class."""

    info: Any


@dataclass(frozen=True)
class TargetSignature:
    """What the validation of a configuration needs to know of a class or function.

    Attributes:
        name: Its name without the module.
        doc: Its docstring without indentation; empty if it has none.
        parameters: The parameters by name, with their types as annotations; Any where the type is not known.
        info: The fields of a distiller's ``info`` that ``INFO_DEFAULTS`` names; empty for other classes and functions.
    """

    name: str
    doc: str
    parameters: dict[str, inspect.Parameter]
    info: dict[str, Any]


@cache
def describe(target: str) -> TargetSignature:
    """Return the signature of the class or function with the dotted name ``target``.

    Raises:
        ConfigError: The name cannot be imported.
    """
    return from_source(target) or _imported(target)


def _imported(target: str) -> TargetSignature:
    """Return the signature of a class or function after importing it."""
    target_object = locate(target)
    function = target_object.__init__ if inspect.isclass(target_object) else target_object
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # annotations that name something which is not imported
        hints = {}
    parameters = {
        name: parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in parameters_of(target_object).items()
    }
    declared = vars(target_object.info) if isinstance(target_object, DeclaresInfo) else {}
    info = {name: declared[name] for name in INFO_DEFAULTS if name in declared}
    # Not inspect.getdoc, which would give a class without a docstring that of its base.
    doc = inspect.cleandoc(target_object.__doc__ or "")
    return TargetSignature(target.rpartition(".")[2], doc, parameters, info)


# ---------------------------------------------------------------- source text


@cache
def from_source(target: str) -> TargetSignature | None:
    """Return the signature of a class without importing it, or None where the source text alone is not enough."""
    module, _, name = target.rpartition(".")
    definition = _class(module, name)
    doc = "" if definition is None else ast.get_docstring(definition[1]) or ""
    try:
        info = _info(module, name)
    except (ValueError, LookupError):
        return None
    parameters: dict[str, inspect.Parameter] = {}
    passes_options = True  # whether all constructors so far pass **options on to the next base class
    has_init = False
    for class_module, node in _first_bases(module, name):
        if node.decorator_list:  # a decorator, such as dataclass, may replace the constructor
            return None
        init = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
        has_init = has_init or init is not None
        if init is not None and passes_options:
            parameters = {**dict(_parameters(init.args, class_module)), **parameters}
            passes_options = init.args.kwarg is not None
        if not passes_options:
            break
    has_no_parameters = not has_init and _ends_at_object(module, name)
    return None if passes_options and not has_no_parameters else TargetSignature(name, doc, parameters, info)


def _first_bases(module: str, name: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield a class, its first base, the first base of that one and so on, each with its module.

    The sequence ends at the first class whose source text cannot be found.
    """
    definition = _class(module, name)
    while definition is not None:
        module, node = definition
        yield definition
        base = node.bases[0] if node.bases else None
        base = base.value if isinstance(base, ast.Subscript) else base  # Base[T] is Base
        match base:
            case ast.Name(id=base_name):
                definition = _class(module, base_name)
            case ast.Attribute(value=ast.Name(id=alias), attr=base_name):
                definition = _class(_imported_modules(module).get(alias, ""), base_name)
            case _:
                return


def _ends_at_object(module: str, name: str) -> bool:
    """Return whether the source text of all first bases is known, up to ``object`` or ``ABC``."""
    classes = list(_first_bases(module, name))
    return bool(classes) and [ast.unparse(base) for base in classes[-1][1].bases] in ([], ["ABC"], ["object"])


@cache
def _class(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """Return a class and the module that defines it, following imports from one module to the next."""
    for _ in range(8):  # re-exports are two or three modules deep; the limit ends circular imports
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


def docs(target: str) -> list[str]:
    """Return the docstrings of a class, of its first base, of the first base of that one and so on."""
    module, _, name = target.rpartition(".")
    return [ast.get_docstring(node) or "" for _, node in _first_bases(module, name)]


def package_summary(target: str) -> str:
    """Return the first sentence of the docstring of the package that defines a class; empty if there is none.

    Example:
        >>> package_summary("kdzoo.distillers.DKD")
        'Methods that compare the logits of classifiers.'
    """
    module, _, name = target.rpartition(".")
    definition = _class(module, name)
    package = None if definition is None else _parsed(definition[0].rpartition(".")[0])
    doc_lines = (ast.get_docstring(package) or "").splitlines() if package else []
    return doc_lines[0] if doc_lines else ""


@cache
def _imports(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Return name in this module -> (module, name in that module) of every ``from ... import ...`` at the top level.

    Imports for type checkers count: a package that imports its names when they are first used lists them there.
    """
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in _top_level(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module
        for alias in node.names
    }


def _imported_modules(module: str) -> dict[str, str]:
    """Return name in a module -> module of every ``import ...`` at its top level."""
    tree = _parsed(module)
    aliases = [
        alias
        for node in (_top_level(tree) if tree else ())
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname or "." not in alias.name
    ]
    return {alias.asname or alias.name: alias.name for alias in aliases}


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements of a module, and those below ``if TYPE_CHECKING``."""
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body
        yield node


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
        path = next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.exists()), stem)
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def _info(module: str, name: str) -> dict[str, Any]:
    """Return the fields of ``info = MethodInfo(...)`` or ``info = replace(Other.info, ...)`` of a class or its bases.

    Raises:
        ValueError: A field is written in another way than :func:`_value` can read.
    """
    for class_module, class_node in _first_bases(module, name):
        for node in class_node.body:
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id="info")], value=ast.Call() as call)
                    | ast.AnnAssign(target=ast.Name(id="info"), value=ast.Call() as call)
                ):
                    replaced = [_value(argument, class_module) for argument in call.args]  # of ``replace``
                    fields = {item.arg: item.value for item in call.keywords if item.arg in INFO_DEFAULTS}
                    own = {str(key): _value(field, class_module) for key, field in fields.items()}
                    return {**(replaced[0] if replaced else INFO_DEFAULTS), **own}
    return {}


def _value(node: ast.expr, module: str) -> Any:
    """Return the value of a literal, of a field of another class's ``info``, or of an f-string or sum of these."""
    match node:
        case ast.Attribute(value=ast.Name(id=name), attr="info"):
            return _info(module, name)
        case ast.Attribute(value=ast.Attribute(attr="info") as info, attr=field):
            return _value(info, module)[field]
        case ast.JoinedStr(values=parts):
            return "".join(str(_value(part, module)) for part in parts)
        case ast.FormattedValue(value=value):
            return _value(value, module)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, module) + _value(right, module)
    return ast.literal_eval(node)


def _parameters(arguments: ast.arguments, module: str) -> Iterator[tuple[str, inspect.Parameter]]:
    """Yield the parameters of a method by name, without ``self``.

    A default that is not written as a literal is given as ``...``.
    """
    positional = [*arguments.posonlyargs, *arguments.args]
    no_defaults = [None] * (len(positional) - len(arguments.defaults))
    entries: list[tuple[ast.arg, ast.expr | None, Any]] = [
        (argument, default, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for argument, default in zip(positional, [*no_defaults, *arguments.defaults], strict=True)
    ][1:]
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    entries += [(argument, default, inspect.Parameter.KEYWORD_ONLY) for argument, default in keywords]
    for argument, default_node, kind in entries:
        default = inspect.Parameter.empty if default_node is None else _literal(default_node)
        hint = Any if argument.annotation is None else _type(argument.annotation, module)
        yield argument.arg, inspect.Parameter(argument.arg, kind, default=default, annotation=hint)


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal, or ``...`` for any other expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...


# ---------------------------------------------------------------- types


class Opaque:
    """Placeholder for the classes of annotations: no plain YAML value is an instance of one."""


def _type(node: ast.expr, module: str) -> Any:
    """Return the type that an annotation names, or Any if it cannot be read from the source text."""
    try:
        return _evaluated(node, module)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Any


def _evaluated(node: ast.expr, module: str) -> Any:
    """Return the type that an annotation names, or raise one of the errors that :func:`_type` catches."""
    if isinstance(node, ast.Name):
        return TYPES[node.id] if node.id in TYPES else _named(node.id, module)
    if isinstance(node, ast.Constant) and (node.value is None or node.value is ...):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[_evaluated(node.left, module), _evaluated(node.right, module)]  # noqa: UP007
    if isinstance(node, ast.Tuple):
        return tuple(_evaluated(element, module) for element in node.elts)
    if isinstance(node, ast.List):
        return [_evaluated(element, module) for element in node.elts]
    if isinstance(node, ast.Subscript):
        generic = _evaluated(node.value, module)
        return generic[ast.literal_eval(node.slice) if generic is typing.Literal else _evaluated(node.slice, module)]
    raise TypeError(ast.dump(node))


@cache
def _named(name: str, module: str) -> Any:
    """Return the type that a name in a module refers to: a class defined there, an alias, or an imported type."""
    tree = _parsed(module)
    if tree is None:
        raise KeyError(name)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Opaque
        if isinstance(node, ast.Assign) and name in [ast.unparse(left) for left in node.targets]:
            return _evaluated(node.value, module)
    source_module, source_name = _imports(tree)[name]
    return _named(source_name, source_module)
