"""Which rows go to train, val and test: a function of their number, never of the run's seed."""

from torch import Tensor

from kdzoo.core.randomness import permutation
from kdzoo.core.validation import integer
from kdzoo.errors import ConfigError

# Any fixed number would do. It differs from the keys of ``splits.py`` so that this division is not correlated with
# those; changing it would change the splits of every experiment.
_DIVISION_KEY = 1_202_613


def share(name: str, size: float | int) -> float | int:
    """Check the size of a split and return it.

    Args:
        name: Name of the option, for the message.
        size: A fraction in [0, 1), or a count >= 0.

    Raises:
        ConfigError: If it is neither.
    """
    # 1.0 is rejected and 1 is not: a float is a fraction, and "all samples" would leave nothing to train on.
    if not isinstance(size, float):
        return integer(name, size, 0)
    if not 0 <= size < 1:
        raise ConfigError(f"{name}={size} is not allowed; allowed: a fraction in [0, 1) or a count")
    return size


def count_of(size: float | int, n: int) -> int:
    """Convert a size, a number or a fraction, to a number out of n rows; a fraction above 0 takes at least one row."""
    return max(1, round(size * n)) if isinstance(size, float) and size else int(size)


def share_rows(n: int, val_size: float | int, test_size: float | int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows of train, val and test (ascending, together 0..n-1), in a fixed random division.

    The test rows do not depend on ``val_size``, so that test scores of different ``val_size`` can be compared.

    Args:
        n: Number of rows.
        val_size: Fraction in [0, 1) or count; a fraction above 0 takes at least one row.
        test_size: The same for test.

    Raises:
        ConfigError: If no row would be left to train on.

    Example:
        >>> [len(rows) for rows in share_rows(10, 0.25, 3)]
        [5, 2, 3]
    """
    n_val, n_test = count_of(val_size, n), count_of(test_size, n)
    if n_val + n_test >= n:
        taken = f"val_size={val_size} and test_size={test_size} take {n_val} + {n_test} of {n}"
        raise ConfigError(f"{taken}; allowed: at most {n - 1} together")
    order = permutation(n, _DIVISION_KEY)
    # Test rows come first in the random order, which makes them independent of n_val.
    test, val, train = order.tensor_split([n_test, n_test + n_val])
    return train.sort().values, val.sort().values, test.sort().values
