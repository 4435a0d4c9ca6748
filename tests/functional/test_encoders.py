"""Losses on transformers against NumPy and SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr

from kdzoo.functional import attention_kl, cosine_distance, mean_by_text

some = settings(max_examples=50, deadline=None, derandomize=True)


def vectors(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@some
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 100.0))
def test_cosine_distance_is_that_of_numpy_and_ignores_lengths(seed, scale):
    s, t = vectors(seed, 7, 5), vectors(seed + 1, 7, 5)
    a, b = s.double().numpy(), t.double().numpy()
    expected = 1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine_distance(s, t), expected, atol=1e-12)
    np.testing.assert_allclose(cosine_distance(scale * s, t), expected, atol=1e-6)


def test_no_gradient_reaches_the_teacher():
    s, t = vectors(0, 3, 4).requires_grad_(), vectors(1, 3, 4).requires_grad_()
    cosine_distance(s, t).sum().backward()
    assert s.grad is not None
    assert t.grad is None


def test_a_zero_vector_is_at_distance_one():
    assert cosine_distance(torch.zeros(1, 3), torch.ones(1, 3)).tolist() == [1.0]


@some
@given(seed=st.integers(0, 2**31))
def test_attention_kl_is_that_of_scipy(seed):
    s, t = (vectors(seed + i, 2, 3, 4, 4).softmax(-1) for i in (0, 1))
    expected = rel_entr(t.double().numpy(), s.double().numpy()).sum(-1).mean(1)
    np.testing.assert_allclose(attention_kl(s, t), expected, atol=1e-7)


def test_unequal_heads_are_compared_by_their_means():
    s, t = vectors(0, 2, 2, 3, 3).softmax(-1), vectors(1, 2, 4, 3, 3).softmax(-1)
    expected = attention_kl(s.mean(1, keepdim=True), t.mean(1, keepdim=True))
    torch.testing.assert_close(attention_kl(s, t), expected)
    assert (attention_kl(s, s) == 0).all()


def test_attention_of_other_lengths_is_refused():
    with pytest.raises(ValueError, match=r"^batch and length must agree, got \(1, 1, 2, 2\) and \(1, 1, 3, 3\)$"):
        attention_kl(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3))


def test_means_by_text_are_those_of_each_row():
    valid = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < 0.6
    valid[2] = False
    values = torch.arange(int(valid.sum()), dtype=torch.float64)
    table = torch.zeros(6, 9, dtype=torch.float64)
    table[valid] = values
    expected = [row[mask].mean() if mask.any() else 0.0 for row, mask in zip(table, valid, strict=True)]
    means = mean_by_text(values, valid.nonzero()[:, 0], len(valid))
    torch.testing.assert_close(means, torch.tensor(expected, dtype=torch.float64))
