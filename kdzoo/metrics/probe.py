"""What vectors of texts are worth: a linear probe, and whether similarities agree."""

import warnings

import torch
from torch import Tensor

from kdzoo.errors import DataError


def probe_accuracy(train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor) -> float:
    """Return the test accuracy of logistic regression on frozen features.

    Features are scaled to unit variance by the training ones; the regression is scikit-learn's, C = 1.

    Args:
        train: features [n, d].
        train_target: classes [n], at least two different ones.
        test: features [m, d].
        test_target: classes [m].

    Raises:
        DataError: there are no test rows, or fewer than two classes to learn.

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
    mean, deviation = train.double().mean(0), train.double().std(0, correction=0).clamp_min(1e-9)
    known, asked = ((one.double() - mean) / deviation for one in (train, test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a probe that has not quite converged is as good a measure
        fitted = LogisticRegression(max_iter=200).fit(known.numpy(), train_target.numpy())
    return float((torch.as_tensor(fitted.predict(asked.numpy())) == test_target).double().mean())


def similarity_correlation(student: Tensor, teacher: Tensor) -> float:
    """Return Spearman's rank correlation of the cosine similarities of all pairs of rows.

    Args:
        student: vectors [n, d1], n >= 3.
        teacher: vectors [n, d2].

    Raises:
        DataError: fewer than three rows.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> similarity_correlation(3 * x, x)
        1.0
    """
    from scipy.stats import spearmanr

    if len(student) < 3:
        raise DataError(f"similarities of {len(student)} rows have no rank correlation; allowed: at least 3 rows")
    rows, columns = torch.triu_indices(len(student), len(student), 1)
    ours, theirs = (
        (one @ one.T)[rows, columns].numpy()
        for one in (torch.nn.functional.normalize(vectors.double(), dim=1) for vectors in (student, teacher))
    )
    return round(float(spearmanr(ours, theirs).statistic), 12)
