"""Which of a teacher's layers a shallow student starts from."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from kdzoo.core import validation
from kdzoo.errors import ConfigError

NAMES = ("every_other", "first", "last")


def select_layers(which: str | Sequence[int], n_teacher: int, n_student: int | None = None) -> tuple[int, ...]:
    """Return the numbers of the chosen layers, counted from 0 and strictly increasing.

    `every_other` is evenly spaced, with the first and the last layer; halves go to the even number. One layer is the
    first. For half and a quarter of twelve layers and half of six these are the published lists.

    Args:
        which: `every_other`, `first`, `last`, or the numbers themselves.
        n_teacher: Number of the teacher's layers, >= 1.
        n_student: Number of layers to choose, in 1..n_teacher; None for as many as are listed, or for half of the
            teacher's, rounded down, at least one.

    Raises:
        ConfigError: If the list is not strictly increasing in 0..n_teacher-1 or has another length than
            `n_student`, the name is unknown, or a number is outside its range.

    Example:
        >>> select_layers("every_other", 12), select_layers("every_other", 6), select_layers("last", 6, 2)
        ((0, 2, 4, 7, 9, 11), (0, 2, 5), (4, 5))

    Source:
        Sanh et al. 2019, "DistilBERT", section 3, and the lists of its code.
    """
    deep = validation.integer("n_teacher", n_teacher)
    shallow = None if n_student is None else validation.integer("n_student", n_student, 1, deep)
    if not isinstance(which, str):
        return _listed(which, deep, shallow)
    count = max(deep // 2, 1) if shallow is None else shallow
    if which == "every_other":
        return tuple(round(Fraction(i * (deep - 1), max(count - 1, 1))) for i in range(count))
    if which == "first":
        return tuple(range(count))
    if which == "last":
        return tuple(range(deep - count, deep))
    raise ConfigError(f"layers must be one of {', '.join(NAMES)} or a list of numbers, got {which!r}")


def _listed(which: Sequence[int], deep: int, shallow: int | None) -> tuple[int, ...]:
    if not isinstance(which, Sequence) or not which:
        raise ConfigError(f"layers must be one of {', '.join(NAMES)} or a list of numbers, got {which!r}")
    numbers = tuple(validation.integer(f"layers[{i}]", number, 0, deep - 1) for i, number in enumerate(which))
    if any(one >= after for one, after in pairwise(numbers)):
        raise ConfigError(f"layers must be strictly increasing, got {list(numbers)}")
    if shallow is not None and len(numbers) != shallow:
        raise ConfigError(f"layers must be {shallow} numbers, one for each layer of the student, got {list(numbers)}")
    return numbers
