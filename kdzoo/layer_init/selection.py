"""Rules for the layers of a teacher that a shallow student starts from."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from kdzoo.core import validation
from kdzoo.errors import ConfigError

RULES = ("every_other", "first", "last")


def select_layers(which: str | Sequence[int], n_teacher: int, n_student: int | None = None) -> tuple[int, ...]:
    """Return the indices of the selected layers, counted from 0 and strictly increasing.

    ``every_other`` takes evenly spaced layers, always with the first and the last one. For half and a quarter of twelve
    layers and half of six these are the published lists.

    Args:
        which: ``every_other``, ``first``, ``last``, or the indices themselves.
        n_teacher: Number of the teacher's layers, >= 1.
        n_student: Number of layers to select, in 1..n_teacher; None for as many as are listed or, with a rule, for half
            of the teacher's, rounded down but at least one.

    Raises:
        ConfigError: The list is not strictly increasing in 0..n_teacher-1 or has another length than ``n_student``, the
            rule is unknown, or a number is outside its range.

    Example:
        >>> select_layers("every_other", 12), select_layers("every_other", 6), select_layers("last", 6, 2)
        ((0, 2, 4, 7, 9, 11), (0, 2, 5), (4, 5))

    References:
        Sanh et al.: DistilBERT, a distilled version of BERT. arXiv:1910.01108, section 3, and the lists in its code.
    """
    teacher_depth = validation.integer("n_teacher", n_teacher)
    depth = None if n_student is None else validation.integer("n_student", n_student, 1, teacher_depth)
    if not isinstance(which, str):
        return _checked(which, teacher_depth, depth)
    count = max(teacher_depth // 2, 1) if depth is None else depth
    if which == "every_other":
        # Fractions are exact, and Python rounds a half to the even number: this gives the published lists. With a
        # single layer the maximum avoids a division by zero, and the layer is the first.
        return tuple(round(Fraction(i * (teacher_depth - 1), max(count - 1, 1))) for i in range(count))
    if which == "first":
        return tuple(range(count))
    if which == "last":
        return tuple(range(teacher_depth - count, teacher_depth))
    raise ConfigError(f"layers must be one of {', '.join(RULES)} or a list of numbers, got {which!r}")


def _checked(indices: Sequence[int], teacher_depth: int, depth: int | None) -> tuple[int, ...]:
    """Return a list of indices if it is valid."""
    if not isinstance(indices, Sequence) or not indices:
        raise ConfigError(f"layers must be one of {', '.join(RULES)} or a list of numbers, got {indices!r}")
    result = tuple(validation.integer(f"layers[{i}]", index, 0, teacher_depth - 1) for i, index in enumerate(indices))
    if any(before >= after for before, after in pairwise(result)):
        raise ConfigError(f"layers must be strictly increasing, got {list(result)}")
    if depth is not None and len(result) != depth:
        raise ConfigError(f"layers must be {depth} numbers, one for each layer of the student, got {list(result)}")
    return result
