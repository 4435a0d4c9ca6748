"""The relational losses against NumPy references, and the properties that their formulas imply."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from kdzoo.functional import angle_relation, distance_relation
from tests.reference import relations as reference

some = settings(max_examples=50, deadline=None, derandomize=True)
BOTH = {
    "distance": (distance_relation, reference.distance_relation),
    "angle": (angle_relation, reference.angle_relation),
}
both = pytest.mark.parametrize("name", BOTH)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(result: Tensor, expected, atol: float = 1e-12) -> None:
    torch.testing.assert_close(result, torch.as_tensor(expected), rtol=1e-10, atol=atol)


@both
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 6), widths=st.tuples(st.integers(1, 5), st.integers(1, 5)))
@some
def test_agrees_with_the_reference(name, seed, n, widths):
    loss, expected = BOTH[name]
    student, teacher = normal(n, widths[0], seed=seed), normal(n, widths[1], 2, seed=seed ^ 1)
    close(loss(student, teacher), expected(student.numpy(), teacher.numpy()))


@both
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-10, 3.0, 1e10]))
@some
def test_scaled_rotated_and_shifted_points_have_the_same_relations(name, seed, scale):
    loss, points = BOTH[name][0], normal(5, 3, seed=seed)
    rotation = torch.linalg.qr(normal(3, 3, seed=seed ^ 2)).Q
    close(loss(scale * (points @ rotation + 7), points), torch.zeros(5, dtype=torch.float64), atol=1e-9)


@both
def test_derivatives(name):
    teacher = normal(5, 4, seed=1)
    assert gradcheck(lambda s: BOTH[name][0](s, teacher), normal(5, 3).requires_grad_())


@both
@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_coinciding_samples_and_small_batches_have_finite_gradients(name, n):
    student, teacher = torch.zeros(n, 3, requires_grad=True), normal(n, 2).requires_grad_()
    value = BOTH[name][0](student, teacher)
    value.sum().backward()
    assert value.shape == (n,)
    assert value.dtype == torch.float64
    assert value.isfinite().all()
    assert student.grad.isfinite().all()
    assert teacher.grad is None
    if n < (2 if name == "distance" else 3):
        assert value.tolist() == [0.0] * n


@both
def test_two_samples_that_coincide_among_others(name):
    loss, expected = BOTH[name]
    student, teacher = normal(5, 3), normal(5, 2, seed=1)
    student[1] = student[0]
    close(loss(student, teacher), expected(student.numpy(), teacher.numpy()), atol=1e-7)


@both
def test_half_precision(name):
    student = (60 * normal(4, 3)).bfloat16().requires_grad_()
    value = BOTH[name][0](student, (60 * normal(4, 3, seed=1)).bfloat16())
    value.sum().backward()
    assert value.dtype == torch.float64
    assert student.grad.dtype == torch.bfloat16
    assert student.grad.isfinite().all()


@both
def test_wrong_arguments_are_refused(name):
    loss = BOTH[name][0]
    with pytest.raises(ValueError, match=r"same batch size, got student \(2, 3\) and teacher \(1, 3\)"):
        loss(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"teacher must have shape \(b, \*d\) with d >= 1, got \(2,\)"):
        loss(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"student must hold floating-point numbers, got torch\.int64"):
        loss(torch.zeros(2, 3).long(), torch.zeros(2, 3))
