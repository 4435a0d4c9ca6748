"""Which rows go to train, val and test: a function of their number, never of the run's seed."""

from torch import Tensor

from kdzoo.core.randomness import permutation
from kdzoo.core.validation import integer
from kdzoo.errors import ConfigError

_SHARE_KEY = 1_202_613


def share(name: str, size: float | int) -> float | int:
    """Return the size of a part: a fraction in [0, 1), or a count >= 0.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(size, float):
        return integer(name, size, 0)
    if not 0 <= size < 1:
        raise ConfigError(f"{name}={size} is not allowed; allowed: a fraction in [0, 1) or a count")
    return size


def share_rows(n: int, val_size: float | int, test_size: float | int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows of train, val and test (ascending, together 0..n-1), in a fixed random division.

    The test rows do not depend on ``val_size``. A fraction above 0 takes at least one row.

    Raises:
        ConfigError: no row would be left to train on.

    Example:
        >>> [len(rows) for rows in share_rows(10, 0.25, 3)]
        [5, 2, 3]
    """
    n_val, n_test = _count(val_size, n), _count(test_size, n)
    if n_val + n_test >= n:
        taken = f"val_size={val_size} and test_size={test_size} take {n_val} + {n_test} of {n}"
        raise ConfigError(f"{taken}; allowed: at most {n - 1} together")
    order = permutation(n, _SHARE_KEY)
    test, val, train = order.tensor_split([n_test, n_test + n_val])
    return train.sort().values, val.sort().values, test.sort().values


def _count(size: float | int, n: int) -> int:
    return max(1, round(size * n)) if isinstance(size, float) and size else int(size)
