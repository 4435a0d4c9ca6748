"""The errors that kdzoo raises on purpose: each is one line that names what is wrong and what is allowed."""

import difflib
from collections.abc import Iterable


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has none, as for a bare ``assert``."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def in_one_line(error: BaseException) -> str:
    """Return the beginning of an error's message with all its lines joined, or the name of its type if it has none.

    For errors of libraries, which explain themselves at length: the cause is in the first 200 characters.
    """
    return " ".join(str(error).split())[:200] or type(error).__name__


def shortened(text: object, limit: int = 80) -> str:
    """Return text with at most ``limit`` characters, for messages that repeat a part of a file.

    Example:
        >>> shortened("a" * 100, 5)
        'aaaaa...'
    """
    content = str(text)
    return content if len(content) <= limit else f"{content[:limit]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the most similar of the known names, or an empty string if none is similar.

    Example:
        >>> did_you_mean("temprature", ["temperature", "micro_batch_size"])
        "; did you mean 'temperature'?"
    """
    matches = difflib.get_close_matches(name, list(map(str, known)), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


class KdzooWarning(UserWarning):
    """What is allowed, but may not be meant; the command line prints it as one line."""


class KdzooError(Exception):
    """Base of every error that the command line prints as one line, without a traceback."""


class ConfigError(KdzooError, ValueError):
    """A setting or argument is wrong; found before anything is trained."""


class DataError(KdzooError, ValueError):
    """The data do not fit the task: missing files, labels out of range, an empty split."""


class CheckpointError(KdzooError):
    """A checkpoint or exported student is missing, truncated, corrupt or of another model."""


class CacheError(KdzooError):
    """A teacher-output cache is corrupt or was made from something else."""


class RunFolderError(KdzooError):
    """A run folder is in use, holds another configuration or cannot be written."""


class NonFiniteLossError(KdzooError, ArithmeticError):
    """A loss term became NaN or infinite; training stopped before the weights were touched."""


class PrunedError(KdzooError):
    """A search has stopped a run that promises less than earlier ones."""
