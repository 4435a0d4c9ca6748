"""The feature losses against NumPy references, and the properties that their formulas imply."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from kdzoo.functional import attention_map, attention_transfer, hint_mse
from tests.reference import hidden_features as reference

some = settings(max_examples=100, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 3, 4, 5), (1, 1)])
def test_hint_agrees_with_the_reference(shape) -> None:
    student, teacher = normal(*shape, dtype=torch.float32), normal(*shape, seed=1, dtype=torch.float32)
    expected = torch.from_numpy(reference.hint_mse(student.numpy(), teacher.numpy()))
    torch.testing.assert_close(hint_mse(student, teacher), expected, rtol=1e-12, atol=0)


@given(seeds, st.sampled_from([1e-30, 1.0, 1e30]))
@some
def test_maps_agree_with_the_reference_at_any_scale(seed: int, scale: float) -> None:
    features = normal(3, 4, 5, 2, seed=seed)
    expected = torch.from_numpy(reference.attention_map(features.numpy()))
    result = attention_map(scale * features)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_maps_do_not_depend_on_sign_and_order_of_channels() -> None:
    features = normal(3, 4, 5, 2)
    torch.testing.assert_close(attention_map(-features.flip(1)), attention_map(features))


@given(seeds, st.integers(1, 4), st.integers(1, 4))
@some
def test_transfer_agrees_with_the_reference(seed: int, channels_s: int, channels_t: int) -> None:
    student, teacher = normal(2, channels_s, 3, 4, seed=seed), normal(2, channels_t, 3, 4, seed=seed ^ 1)
    result = attention_transfer(student, teacher)
    expected = torch.from_numpy(reference.attention_transfer(student.numpy(), teacher.numpy()))
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-30)
    assert (result >= 0).all()
    assert (result <= 2 / 12).all()


def test_transfer_is_zero_for_equal_maps_only() -> None:
    student = normal(2, 3, 4, 4)
    assert attention_transfer(student, student.clone()).tolist() == [0, 0]
    assert (attention_transfer(student, normal(2, 3, 4, 4, seed=1)) > 0).all()


@pytest.mark.parametrize(
    ("size_s", "size_t"),
    [((8, 8), (4, 4)), ((3, 4), (7, 5)), ((6, 2), (3, 5)), ((4, 4), (4, 2)), ((1, 1), (4, 4))],
)
def test_transfer_pools_to_the_smaller_size(size_s, size_t) -> None:
    student, teacher = normal(2, 3, *size_s), normal(2, 5, *size_t, seed=1)
    size = (min(size_s[0], size_t[0]), min(size_s[1], size_t[1]))
    pooled = [reference.pooled(x.numpy(), *size) for x in (student, teacher)]
    expected = torch.from_numpy(reference.attention_transfer(*pooled))
    torch.testing.assert_close(attention_transfer(student, teacher), expected, rtol=1e-10, atol=1e-30)


def test_features_of_zeros_stay_finite() -> None:
    student = torch.zeros(2, 3, 2, 2, requires_grad=True)
    teacher = normal(2, 3, 2, 2, dtype=torch.float32)
    assert attention_map(student).tolist() == [[0] * 4] * 2
    value = attention_transfer(student, teacher)
    value.sum().backward()
    torch.testing.assert_close(value, torch.full((2,), 0.25, dtype=torch.float64))
    assert student.grad.isfinite().all()
    assert attention_transfer(student, torch.zeros(2, 3, 2, 2)).tolist() == [0, 0]


def test_nan_passes_through() -> None:
    features = torch.full((1, 1, 1, 2), math.nan)
    assert attention_transfer(features, torch.ones(1, 1, 1, 2)).isnan().all()
    assert hint_mse(features, torch.ones(1, 1, 1, 2)).isnan().all()


@pytest.mark.parametrize("loss", [hint_mse, attention_transfer])
class TestBoth:
    def test_derivatives(self, loss) -> None:
        student, teacher = normal(2, 3, 2, 2).requires_grad_(), normal(2, 3, 2, 2, seed=1)
        assert gradcheck(lambda s: loss(s, teacher), student)
        assert gradgradcheck(lambda s: loss(s, teacher), student)

    def test_the_teacher_gets_no_gradient(self, loss) -> None:
        student, teacher = normal(2, 3, 2, 2).requires_grad_(), normal(2, 3, 2, 2, seed=1).requires_grad_()
        loss(student, teacher).sum().backward()
        assert teacher.grad is None
        assert student.grad.any()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_at_scale_60(self, loss, dtype) -> None:
        student = (60 * normal(4, 3, 2, 2)).to(dtype).requires_grad_()
        value = loss(student, (60 * normal(4, 3, 2, 2, seed=1)).to(dtype))
        value.sum().backward()
        assert value.dtype == torch.float64
        assert value.isfinite().all()
        assert student.grad.dtype == dtype
        assert student.grad.isfinite().all()

    @pytest.mark.parametrize("batch", [0, 1, 3])
    def test_one_value_per_sample_whatever_the_batch(self, loss, batch: int) -> None:
        student, teacher = normal(3, 3, 2, 2), normal(3, 3, 2, 2, seed=1)
        value = loss(student[:batch], teacher[:batch])
        assert torch.equal(value, loss(student, teacher)[:batch])

    @pytest.mark.usefixtures("unchecked_types")  # the decorators of run-time type checks cannot be compiled
    def test_vmap_and_compile(self, loss) -> None:
        torch._dynamo.reset()
        student, teacher = normal(5, 2, 3, 2, 2), normal(5, 2, 3, 2, 2, seed=1)
        each = torch.stack([loss(s, t) for s, t in zip(student, teacher, strict=True)])
        torch.testing.assert_close(torch.vmap(loss)(student, teacher), each)
        torch.testing.assert_close(torch.compile(loss, backend="eager")(student[0], teacher[0]), each[0])


@pytest.mark.usefixtures("unchecked_types")
class TestBadArguments:
    def test_hint(self) -> None:
        with pytest.raises(ValueError, match=r"same shape, got student \(2, 3\) and teacher \(1, 3\)"):
            hint_mse(torch.zeros(2, 3), torch.zeros(1, 3))
        for shape in [(), (2,), (2, 0), (2, 3, 0)]:
            with pytest.raises(ValueError, match=r"shape \(b, \*d\) with d >= 1, got \("):
                hint_mse(torch.zeros(shape), torch.zeros(shape))
        with pytest.raises(ValueError, match=r"teacher must hold floating-point numbers, got torch\.int64"):
            hint_mse(torch.zeros(2, 3), torch.zeros(2, 3).long())

    def test_attention(self) -> None:
        maps = torch.zeros(2, 3, 4, 4)
        with pytest.raises(ValueError, match=r"student must be .* shape \(b, c, h, w\), got \(2, 3\)"):
            attention_transfer(torch.zeros(2, 3), maps)
        with pytest.raises(ValueError, match=r"teacher must be .* shape \(b, c, h, w\), got \(2, 3, 4\)"):
            attention_transfer(maps, torch.zeros(2, 3, 4))
        with pytest.raises(ValueError, match=r"same batch size, got student \(2, 3, 4, 4\) and teacher \(1, 3, 4, 4\)"):
            attention_transfer(maps, maps[:1])
        with pytest.raises(ValueError, match=r"features must be non-empty .* got \(2, 0, 4, 4\)"):
            attention_map(maps[:, :0])
        with pytest.raises(ValueError, match=r"features must hold floating-point numbers, got torch\.int64"):
            attention_map(maps.long())
