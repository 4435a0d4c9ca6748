"""Clear errors for wrong arguments of a distiller, as the command line has them for wrong settings."""

import inspect
import re
from abc import ABCMeta
from typing import Any

from torch import nn

from kdzoo.errors import ConfigError, did_you_mean

# What Python says of a misspelt name; its exception holds the name in no other form.
_UNEXPECTED = re.compile(r"__init__\(\) got an unexpected keyword argument '(\w+)'")


class NamesUnknownArguments(ABCMeta):
    """Class of the distillers' classes: a keyword argument that none of the constructors takes is named, with a hint.

    The constructors of methods pass ``**options`` on to their base class, and Python blames that one for a name that
    was meant for the method.
    """

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
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    names = [name for constructor in constructors for name in inspect.signature(constructor).parameters]
    return list(dict.fromkeys(name for name in names if name != "self"))
