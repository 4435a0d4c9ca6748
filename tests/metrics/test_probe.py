"""The linear probe and the correlation of similarities: known cases, invariances and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from kdzoo.errors import DataError
from kdzoo.metrics import probe_accuracy, similarity_correlation

some = settings(max_examples=25, deadline=None, derandomize=True)


def test_a_probe_separates_linearly_separable_classes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=generator)
    y = (x[:, 0] + 0.5 * x[:, 3] > 0).long()
    assert probe_accuracy(x[:200], y[:200], x[200:], y[200:]) > 0.95
    noise = torch.randint(0, 2, (300,), generator=generator)
    assert probe_accuracy(x[:200], noise[:200], x[200:], noise[200:]) < 0.65


@some
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100.0), shift=st.floats(-10.0, 10.0))
def test_a_probe_does_not_depend_on_the_scale_of_the_features(seed, scale, shift):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(60, 3, generator=generator).double(), torch.arange(60) % 2
    accuracy = probe_accuracy(x[:40], y[:40], x[40:], y[40:])
    assert probe_accuracy(scale * x[:40] + shift, y[:40], scale * x[40:] + shift, y[40:]) == accuracy


def test_test_rows_are_standardized_as_the_training_rows_are():
    train, target = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    assert probe_accuracy(train, target, torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1])) == 1.0


def test_a_probe_needs_two_classes_and_test_rows():
    x, y = torch.randn(4, 2), torch.zeros(4, dtype=torch.long)
    with pytest.raises(DataError, match=r"^a probe needs test rows and two classes, got 4 rows, 1 classes$"):
        probe_accuracy(x, y, x, y)


@some
@given(seed=st.integers(0, 2**31))
def test_the_correlation_is_that_of_ranks_by_hand(seed):
    generator = torch.Generator().manual_seed(seed)
    s, t = torch.randn(8, 3, generator=generator), torch.randn(8, 5, generator=generator)
    ranks = []
    for vectors in (s.double().numpy(), t.double().numpy()):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        ranks.append(rankdata([unit[i] @ unit[j] for i in range(8) for j in range(i)]))
    assert similarity_correlation(s, t) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)


def test_similarities_do_not_depend_on_rotation_or_length():
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double()
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double())[0]
    assert similarity_correlation(3 * x @ rotation, x) > 0.999
    with pytest.raises(DataError, match=r"^similarities of 2 rows have no rank correlation"):
        similarity_correlation(x[:2], x[:2])
