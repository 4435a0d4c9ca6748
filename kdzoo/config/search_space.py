"""The search space of a sweep: the values that overrides give to settings, as intervals or choices."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig

from kdzoo.config.override_values import as_override
from kdzoo.config.sweepers import BASIC, GRID, OPTUNA


@dataclass(frozen=True)
class Choices:
    """Some values of a setting, as they are written on the command line."""

    values: Sequence[str]


@dataclass(frozen=True)
class Interval:
    """The numbers between two ends, both of which belong to it.

    Attributes:
        low: The smallest number. If it is an integer, all numbers are.
        high: The largest number.
        step: The distance of neighbouring numbers; None: any number.
        log: Whether equal ratios are equally likely, rather than equal differences.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False


def dimension(override: Override) -> Choices | Interval:
    """Return the values that an override with several of them gives to its setting."""
    value = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        low, high = _ends(value)
        return Interval(low, high, log=log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        numbers = list(value.range())
        if len(numbers) > 1 and all(first < second for first, second in pairwise(numbers)):
            return Interval(numbers[0], numbers[-1], None if log else numbers[1] - numbers[0], log)
    return Choices(list(override.sweep_string_iterator()))


def params(job: DictConfig, keys: Collection[str]) -> list[str]:
    """Return the overrides in ``hydra.sweeper.params``, without those of settings that the command line gives values.

    Args:
        job: A composed configuration, with Hydra's own settings.
        keys: The settings that the command line gives values.
    """
    given = dict(job.hydra.sweeper.get("params") or {})
    texts = {key: value if isinstance(value, str) else as_override(value) for key, value in given.items()}
    return [f"{key}={text}" for key, text in texts.items() if str(key).lstrip("+~") not in keys]


def mistakes(job: DictConfig, overrides: Sequence[Override]) -> Iterator[str]:
    """Yield the mistakes in the search space of a sweep, a line for each.

    Args:
        job: A composed configuration, with Hydra's own settings.
        overrides: All overrides of the sweep.
    """
    sweeper = job.hydra.sweeper
    several = [override for override in overrides if override.is_sweep_override()]
    if sweeper.get("_target_") in (BASIC, GRID):
        for override in several:
            if isinstance(override.value(), IntervalSweep):
                yield f"{override.input_line!r} has no list of values; choose them from it with hydra/sweeper=optuna"
    elif sweeper.get("_target_") == OPTUNA:
        if find_spec("optuna") is None:
            yield "hydra/sweeper=optuna needs Optuna: pip install 'kdzoo[optuna]'"
        for name in ("n_trials", "n_jobs"):
            if sweeper[name] < 1:
                yield f"hydra.sweeper.{name} must be at least 1, got {sweeper[name]}"
        if not several:
            yield "hydra/sweeper=optuna has nothing to choose; give a setting several values: key=a,b or interval(0,1)"
        for override in several:
            yield from _dimension_mistakes(override)


def _dimension_mistakes(override: Override) -> Iterator[str]:
    text, value = override.input_line, override.value()
    for tag in sorted(getattr(value, "tags", set()) - {"log"}):
        yield f"{text!r}: the tag {tag!r} has no meaning here; log is the only one that has"
    if isinstance(value, IntervalSweep):
        low, high = _ends(value)
        if low >= high:
            yield f"{text!r}: the first end of an interval must be smaller than the second one"
            return
    found = dimension(override)
    if isinstance(found, Interval) and found.log and found.low <= 0:
        yield f"{text!r}: a logarithmic interval must begin above 0, not at {found.low:g}"
    if isinstance(found, Choices) and "log" in getattr(value, "tags", ()):
        yield f"{text!r}: the tag 'log' is for intervals and ranges, not for choices"


def _ends(value: IntervalSweep) -> tuple[Any, Any]:
    return value.start, value.end
