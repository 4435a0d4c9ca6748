"""The arguments of a class over all its constructors, and clear errors for wrong arguments of a distiller."""

import inspect
import re
from abc import ABCMeta
from typing import Any

from torch import nn

from kdzoo.errors import ConfigError, did_you_mean

# What Python says of a misspelt name; its exception holds the name in no other form.
_UNEXPECTED = re.compile(r"__init__\(\) got an unexpected keyword argument '(\w+)'")


class NamesUnknownArguments(ABCMeta):
    """Class of the distillers' classes, which knows the arguments of all their constructors.

    The constructors of methods pass ``**options`` on to their base class. The signature of a class lists what these may
    be, for editors and notebooks, and a keyword argument that none of the constructors takes is named, with a hint.
    """

    @property
    def __signature__(cls) -> inspect.Signature:
        return full_signature(cls)

    def __call__(cls, *args: Any, **options: Any) -> Any:
        """Return an instance.

        Raises:
            ConfigError: None of the constructors takes a keyword argument.
        """
        try:
            return super().__call__(*args, **options)
        except TypeError as error:
            unknown = _UNEXPECTED.search(str(error))
            # The same error may come from a class that a constructor builds: then the name was not given here.
            if unknown is None or unknown[1] not in options:
                raise
            hint = did_you_mean(unknown[1], _argument_names(cls))
            raise ConfigError(f"{cls.__name__} has no argument {unknown[1]!r}{hint}") from error


def full_signature(cls: type) -> inspect.Signature:
    """Return the arguments of a class's own constructor, then those of its bases that it takes as ``**options``.

    The latter are given by keyword. Editors and notebooks show the signature that a class has as ``__signature__``.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for constructor in _constructors(cls):
        own = [parameter for name, parameter in _parameters(constructor).items() if name not in parameters]
        if parameters:
            own = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own if not _is_variadic(parameter)]
        parameters |= {parameter.name: parameter for parameter in own if parameter.kind != parameter.VAR_KEYWORD}
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in _parameters(constructor).values()):
            break
    return inspect.Signature(sorted(parameters.values(), key=lambda parameter: parameter.kind))


def check_models(student: Any, teacher: Any, method: str, *, teacher_needed: bool) -> None:
    """Reject a student or teacher that is not a module, and a missing teacher.

    Args:
        student: What was given as the student.
        teacher: What was given as the teacher.
        method: Name of the method.
        teacher_needed: Whether the teacher may not be None.

    Raises:
        ConfigError: Names the argument.
    """
    if not isinstance(student, nn.Module):
        raise ConfigError(f"student must be a torch.nn.Module, got {student!r}")
    if teacher is not None and not isinstance(teacher, nn.Module):
        raise ConfigError(f"teacher must be a torch.nn.Module or None, got {teacher!r}")
    if teacher is None and teacher_needed:
        raise ConfigError(f"{method} needs a teacher, got teacher=None")


def _argument_names(cls: type) -> list[str]:
    """Return the names of the arguments of the constructors of a class and its bases."""
    return list(dict.fromkeys(name for constructor in _constructors(cls) for name in _parameters(constructor)))


def _constructors(cls: type) -> list[Any]:
    """Return the constructors of a class and its bases, from the class's own upwards."""
    return [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]


def _parameters(constructor: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor by name, without ``self``."""
    return dict(list(inspect.signature(constructor).parameters.items())[1:])


def _is_variadic(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
