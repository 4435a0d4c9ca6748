"""Distil knowledge from any kind of teacher into any kind of student, in one way."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kdzoo import automata, data, distillers, functional, metrics, models
    from kdzoo.automata.distill import distill_states
    from kdzoo.config import compose
    from kdzoo.core.base import Distiller
    from kdzoo.core.batch import IGNORE
    from kdzoo.core.method_info import MethodInfo
    from kdzoo.runs.pipeline import run
    from kdzoo.storage.checkpoint import load_student
    from kdzoo.text.token_sequences import TokenSequences

# Importing torch and Lightning takes seconds, so names are imported when they are first used.
_MODULE_OF = {
    "Distiller": "kdzoo.core.base",
    "IGNORE": "kdzoo.core.batch",
    "MethodInfo": "kdzoo.core.method_info",
    "TokenSequences": "kdzoo.text.token_sequences",
    "compose": "kdzoo.config",
    "distill_states": "kdzoo.automata.distill",
    "load_student": "kdzoo.storage.checkpoint",
    "run": "kdzoo.runs.pipeline",
}
_PACKAGES = ("automata", "data", "distillers", "functional", "metrics", "models")

__all__ = [
    "IGNORE",
    "Distiller",
    "MethodInfo",
    "TokenSequences",
    "automata",
    "compose",
    "data",
    "distill_states",
    "distillers",
    "functional",
    "load_student",
    "metrics",
    "models",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    if name in _PACKAGES:
        return import_module(f"kdzoo.{name}")
    raise AttributeError(f"module 'kdzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
