"""Quality of the vectors of an encoder: accuracy of a linear probe, and agreement of similarities with a teacher."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.errors import DataError


def probe_accuracy(train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor) -> float:
    """Return the test accuracy of logistic regression on frozen features (a linear probe).

    The features are standardized by mean and standard deviation of the training features. The regression is that of
    scikit-learn with its default regularization C = 1.

    Args:
        train: Training features, ``[n, d]``.
        train_target: Training classes, ``[n]``, at least two different ones.
        test: Test features, ``[m, d]``, m >= 1.
        test_target: Test classes, ``[m]``.

    Returns:
        Accuracy in [0, 1].

    Raises:
        DataError: If there are no test rows, or fewer than two classes to learn.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> probe_accuracy(x, torch.tensor([0, 0, 1, 1]), x, torch.tensor([0, 0, 1, 0]))
        0.75
    """
    from sklearn.linear_model import LogisticRegression

    if not len(test) or len(train_target.unique()) < 2:
        raise DataError(
            f"a probe needs test rows and two classes, got {len(test)} rows, {len(train_target.unique())} classes"
        )
    # The clamp keeps a feature that is constant on the training rows at 0 instead of NaN.
    mean, deviation = train.double().mean(0), train.double().std(0, correction=0).clamp_min(1e-9)
    train_rows, test_rows = ((rows.double() - mean) / deviation for rows in (train, test))
    with warnings.catch_warnings():
        # scikit-learn warns if 200 iterations, twice its default, did not converge: on standardized features the
        # remaining change does not matter for a measure of accuracy.
        warnings.simplefilter("ignore")
        probe = LogisticRegression(max_iter=200).fit(train_rows.numpy(), train_target.numpy())
    return float((torch.as_tensor(probe.predict(test_rows.numpy())) == test_target).double().mean())


def similarity_correlation(student: Tensor, teacher: Tensor) -> float:
    """Return Spearman's rank correlation between the cosine similarities of all pairs of rows of two encoders.

    Args:
        student: Student vectors of n texts, ``[n, student width]``, n >= 3.
        teacher: Teacher vectors of the same texts, ``[n, teacher width]``.

    Returns:
        The correlation in [-1, 1], rounded to 12 digits.

    Raises:
        DataError: If there are fewer than three rows.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> similarity_correlation(3 * x, x)
        1.0
    """
    from scipy.stats import spearmanr

    if len(student) < 3:
        raise DataError(f"similarities of {len(student)} rows have no rank correlation; allowed: at least 3 rows")
    # 12 digits are the same on every machine; the last bits depend on the order of sums.
    return round(float(spearmanr(_pair_similarities(student), _pair_similarities(teacher)).statistic), 12)


def _pair_similarities(vectors: Tensor) -> NDArray[np.float64]:
    """Return the cosine similarities of all pairs of different rows, each pair once."""
    rows, columns = torch.triu_indices(len(vectors), len(vectors), 1)
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    return (unit @ unit.T)[rows, columns].numpy()
