"""Principal angles against SciPy, and their properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from kdzoo.functional import principal_angles


def columns(seed, d, k):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(d, k)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 8), st.data())
def test_angles_are_those_of_scipy_and_symmetric(seed, d, data):
    k, m = (data.draw(st.integers(1, d)) for _ in range(2))
    first, second = columns(seed, d, k), columns(seed + 1, d, m)
    angles = principal_angles(first, second)
    np.testing.assert_allclose(angles, subspace_angles(first.numpy(), second.numpy())[::-1], atol=1e-7)
    torch.testing.assert_close(angles, principal_angles(second, first), atol=1e-7, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_angles_do_not_depend_on_the_columns_that_span_a_space(seed):
    first, second = columns(seed, 7, 3), columns(seed + 1, 7, 3)
    mixed = second @ (columns(seed + 2, 3, 3) + 3 * torch.eye(3))
    torch.testing.assert_close(principal_angles(first, mixed), principal_angles(first, second), atol=1e-6, rtol=0)


def test_a_small_angle_is_not_rounded_to_zero():
    angle = 1e-9  # its cosine is 1 in float64
    tilted = torch.tensor([[np.cos(angle)], [np.sin(angle)]])
    assert float(principal_angles(torch.eye(2, dtype=torch.float64)[:, :1], tilted)) == pytest.approx(angle, rel=1e-6)


def test_equal_and_orthogonal_spaces():
    identity = torch.eye(5)
    assert principal_angles(identity[:, :3], identity[:, :2]).tolist() == [0, 0]
    assert principal_angles(identity[:, :2], identity[:, 3:]).tolist() == pytest.approx([np.pi / 2] * 2)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.zeros(3, 1), torch.zeros(4, 1), "columns must have one length, got"),
        (torch.zeros(3, 4), torch.zeros(3, 1), "at most 3 columns can be independent"),
        (torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 1), "first must hold floating-point numbers"),
    ],
)
def test_unequal_lengths_or_too_many_columns_raises(first, second, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        principal_angles(first, second)
