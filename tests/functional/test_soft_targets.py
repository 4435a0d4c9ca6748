"""The losses on soft targets against independent references; what all losses on logits have in common."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import kl_div

from kdzoo.functional import centred_mse
from tests.functional.accuracy import relative_error
from tests.functional.logit_cases import INF, LOSSES, many, normal, pairs, sixty_fourths, some, temperatures, tkd
from tests.reference import logits as reference


class TestSoftTargetKL:
    @given(pairs(), temperatures)
    @many
    def test_any_pair_is_accurate_finite_and_never_negative(self, pair, temperature) -> None:
        student, teacher = pair
        values = tkd(student, teacher, temperature)
        assert values.isfinite().all()
        assert (values >= 0).all()
        for value, s, t in zip(values.tolist(), student.numpy(), teacher.numpy(), strict=True):
            assert relative_error(value, reference.soft_target_kl(s, t, temperature)) < 1e-10

    @given(pairs(), temperatures)
    @many
    def test_gradients_are_finite(self, pair, temperature) -> None:
        student = pair[0].clone().requires_grad_()
        tkd(student, pair[1], temperature).sum().backward()
        assert student.grad.isfinite().all()
        assert student.grad.dtype == student.dtype

    @given(pairs(), temperatures)
    @many
    def test_equal_logits_give_exactly_zero(self, pair, temperature) -> None:
        assert (tkd(pair[1], pair[1].clone(), temperature) == 0).all()

    @given(pairs(sixty_fourths, np.float64), st.floats(0.5, 1e4))
    @many
    def test_zero_only_for_logits_equal_up_to_a_shift(self, pair, temperature) -> None:
        student, teacher = pair
        gap = torch.where(teacher.isneginf(), 0, student - teacher)
        kept = ~teacher.isneginf()
        spread = torch.where(kept, gap, -INF).amax(-1) - torch.where(kept, gap, INF).amin(-1)
        differs = (spread > 0) | (kept != ~student.isneginf()).any(-1)
        assert torch.equal(tkd(student, teacher, temperature) > 0, differs)

    @given(pairs(), temperatures, st.randoms(use_true_random=False))
    @many
    def test_order_of_classes_and_rows_does_not_matter(self, pair, temperature, random) -> None:
        student, teacher = pair
        rows, classes = list(range(len(student))), list(range(student.shape[1]))
        random.shuffle(rows)
        random.shuffle(classes)
        mixed = tkd(student[rows][:, classes], teacher[rows][:, classes], temperature)
        torch.testing.assert_close(mixed, tkd(student, teacher, temperature)[rows], rtol=1e-10, atol=1e-290)

    @given(pairs(sixty_fourths, np.float64), temperatures, sixty_fourths, sixty_fourths)
    @many
    def test_a_shift_of_all_logits_does_not_matter(self, pair, temperature, a, b) -> None:
        student, teacher = pair
        shifted = tkd(student + a, teacher + b, temperature)
        torch.testing.assert_close(shifted, tkd(student, teacher, temperature), rtol=1e-10, atol=1e-290)

    @given(pairs(dtype=np.float64), st.integers(-6, 13))
    @many
    def test_temperature_is_the_unit_of_the_logits(self, pair, exponent) -> None:
        student, teacher = pair
        T = 2.0**exponent  # a power of two, so that dividing by it is exact
        scaled = T**2 * tkd(student / T, teacher / T, 1.0)
        torch.testing.assert_close(scaled, tkd(student, teacher, T), rtol=1e-12, atol=1e-290)

    @given(pairs(least_classes=2), temperatures)
    @some
    def test_a_class_masked_in_both_is_as_good_as_absent(self, pair, temperature) -> None:
        nowhere = torch.full((len(pair[0]), 1), -INF)
        student, teacher = (torch.cat([x[:, :1], nowhere, x[:, 1:]], 1) for x in pair)
        expected = tkd(*pair, temperature)
        torch.testing.assert_close(tkd(student, teacher, temperature), expected, rtol=1e-12, atol=1e-290)

    def test_agrees_with_torch_where_torch_is_accurate(self) -> None:
        s, t = normal(5, 7), normal(5, 7, seed=1)
        torch_says = 4 * kl_div((s / 2).log_softmax(-1), (t / 2).log_softmax(-1), reduction="none", log_target=True)
        torch.testing.assert_close(tkd(s, t, 2.0), torch_says.sum(-1))

    def test_tends_to_the_centred_squares(self) -> None:
        s, t = normal(20, 10), normal(20, 10, seed=1)
        limit = centred_mse(s, t)
        far, further = (((tkd(s, t, T) - limit).abs() / limit).max() for T in (1e3, 1e5))
        assert further < 1e-4
        assert far / further == pytest.approx(100, rel=0.05)  # the error falls as 1 / T

    def test_a_mask_of_the_student_alone_is_infinitely_far(self) -> None:
        student = torch.tensor([[-INF, 0.0], [0.0, -INF], [1.0, 2.0]])
        assert tkd(student, torch.tensor([[9.0, 0.0], [9e3, 0.0], [1.0, 2.0]]), 1.0).tolist() == [INF, INF, 0]

    @pytest.mark.parametrize("bad", [math.nan, INF])
    def test_what_is_no_distribution_is_nan_in_its_own_row_only(self, bad: float) -> None:
        good = torch.zeros(3, 2)
        spoilt = torch.tensor([[0.0, 0.0], [bad, -INF], [-INF, -INF]])
        for value in (tkd(good, spoilt), tkd(spoilt, spoilt)):
            assert value.isnan().tolist() == [False, True, True]
        assert tkd(spoilt[:2], good[:2]).isnan().tolist() == [False, True]

    def test_derivatives(self) -> None:
        teacher = normal(3, 4, seed=1)
        teacher[0, 1] = -INF
        student = normal(3, 4).requires_grad_()
        for T in (0.7, 4.0):
            assert gradcheck(lambda s, T=T: tkd(s, teacher, T), student)
            assert gradgradcheck(lambda s, T=T: tkd(s, teacher, T), student)

    def test_derivatives_of_a_class_masked_in_both(self) -> None:
        logits, teacher = normal(2, 3).requires_grad_(), normal(2, 4, seed=1)
        teacher[:, 3] = -INF
        masked = lambda s: tkd(torch.cat([s, torch.full((2, 1), -INF, dtype=s.dtype)], 1), teacher)  # noqa: E731
        assert gradcheck(masked, logits)
        assert gradgradcheck(masked, logits)

    def test_the_teacher_gets_no_gradient(self) -> None:
        student, teacher = normal(2, 3).requires_grad_(), normal(2, 3, seed=1).requires_grad_()
        tkd(student, teacher).sum().backward()
        assert teacher.grad is None
        assert not tkd(student.detach(), teacher).requires_grad

    def test_functional_transforms(self) -> None:
        s, t = normal(5, 3, 4), normal(5, 3, 4, seed=1)
        torch.testing.assert_close(torch.vmap(tkd)(s, t), tkd(s, t))
        torch.testing.assert_close(torch.vmap(tkd, in_dims=(0, None))(s, t[0]), tkd(s, t[0].expand_as(s)))
        per_sample = torch.vmap(torch.func.grad(lambda a, b: tkd(a, b).sum()))(s, t)
        leaf = s.clone().requires_grad_()
        torch.testing.assert_close(per_sample, torch.autograd.grad(tkd(leaf, t).sum(), leaf)[0])
        q = (s[0, 0] / 4).softmax(-1)
        hessian = torch.func.jacrev(torch.func.jacrev(tkd))(s[0, 0], t[0, 0])
        torch.testing.assert_close(hessian, torch.diag(q) - torch.outer(q, q))

    def test_blocks_of_rows_change_nothing(self) -> None:
        s, t = normal(60, 5, 500).requires_grad_(), normal(60, 5, 500, seed=1)  # more than one block
        whole = tkd(s, t)
        by_hand = torch.stack([tkd(a, b) for a, b in zip(s, t, strict=True)])
        torch.testing.assert_close(whole, by_hand, rtol=1e-13, atol=0)
        (grad,) = torch.autograd.grad(whole.sum(), s)
        torch.testing.assert_close(grad, 4 * ((s / 4).softmax(-1) - (t / 4).softmax(-1)), rtol=1e-10, atol=1e-15)
        assert torch.vmap(tkd)(s, t).shape == (60, 5)


class TestCentredMSE:
    @given(pairs())
    @some
    def test_any_logits_are_accurate(self, pair) -> None:
        student, teacher = pair
        student = torch.where(teacher.isneginf(), -INF, student)
        for value, s, t in zip(centred_mse(student, teacher).tolist(), student.numpy(), teacher.numpy(), strict=True):
            # two 1e4 logits that differ by less than float64 resolves are outside of what centring can see
            assert abs(value - reference.centred_mse(s, t)) <= 1e-10 * value + 1e-20

    def test_masks(self) -> None:
        student = torch.tensor([[3.0, 1.0, -INF], [3.0, 1.0, -INF], [-INF, -INF, -INF]], requires_grad=True)
        teacher = torch.tensor([[0.0, 0.0, -INF], [0.0, 0.0, 0.0], [-INF, -INF, -INF]])
        value = centred_mse(student, teacher)
        assert value[:2].tolist() == [0.5, INF]
        assert value[2].isnan()
        value[0].backward()
        assert student.grad[0].tolist() == [0.5, -0.5, 0]
        assert centred_mse(teacher[1:2], student.detach()[1:2]).item() == INF

    @pytest.mark.parametrize("bad", [math.nan, INF])
    def test_nan_and_infinity_are_not_hidden(self, bad: float) -> None:
        assert centred_mse(torch.tensor([[bad, 0.0, 1.0]]), torch.tensor([[0.0, -INF, 1.0]])).isnan().all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
class TestEveryLoss:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_at_scale_60(self, loss, dtype) -> None:
        student = normal(64, 10, scale=60, dtype=dtype).requires_grad_()
        value = loss(student, normal(64, 10, scale=60, seed=1, dtype=dtype), torch.arange(64) % 10)
        value.sum().backward()
        assert value.dtype == torch.float64
        assert value.isfinite().all()
        assert student.grad.dtype == dtype
        assert student.grad.isfinite().all()

    @pytest.mark.parametrize("shape", [(1, 5), (5,), (2, 3, 5), (0, 5), (2, 0, 5)])
    def test_one_value_per_position(self, loss, shape) -> None:
        student, teacher = normal(*shape).requires_grad_(), normal(*shape, seed=1)
        target = torch.ones(shape[:-1], dtype=torch.int64)
        value = loss(student, teacher, target)
        assert value.shape == shape[:-1]
        value.sum().backward()
        assert student.grad.shape == shape
        flat = loss(student.reshape(-1, 5), teacher.reshape(-1, 5), target.reshape(-1))
        torch.testing.assert_close(value.reshape(-1), flat)

    def test_extreme_logits(self, loss) -> None:
        student = torch.tensor([[3e38, -3e38, 0.0], [0.0, 1e-38, -1e-38]], requires_grad=True)
        value = loss(student, torch.tensor([[-3e38, 3e38, 0.0], [1e-38, 0.0, 1e-38]]), torch.tensor([1, 2]))
        value.sum().backward()
        assert value.isfinite().all()
        assert (value >= 0).all()

    def test_derivatives(self, loss) -> None:
        student, teacher, target = (
            normal(3, 4).requires_grad_(),
            normal(3, 4, seed=1),
            torch.tensor([0, 3, 1]),
        )
        assert gradcheck(lambda s: loss(s, teacher, target), student)
        assert gradgradcheck(lambda s: loss(s, teacher, target), student)

    def test_a_gradient_with_a_graph_is_the_one_without(self, loss) -> None:
        """Second derivatives come from another formula, whose own derivative may be right when its sign is not."""
        student, teacher, target = normal(3, 4).requires_grad_(), normal(3, 4, seed=1), torch.tensor([0, 3, 1])
        value = loss(student, teacher, target).sum()
        (plain,) = torch.autograd.grad(value, student, retain_graph=True)
        (with_graph,) = torch.autograd.grad(value, student, create_graph=True)
        torch.testing.assert_close(with_graph, plain)

    def test_the_teacher_is_a_constant(self, loss) -> None:
        student, teacher = normal(3, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
        loss(student, teacher, torch.tensor([0, 3, 1])).sum().backward()
        assert teacher.grad is None

    @pytest.mark.usefixtures("unchecked_types")  # the decorators of run-time type checks cannot be compiled
    def test_compiled_is_the_same(self, loss) -> None:
        torch._dynamo.reset()
        teacher, target = normal(3, 4, seed=1), torch.tensor([0, 3, 1])
        to_container, compiled = normal(3, 4).requires_grad_(), normal(3, 4).requires_grad_()
        expected, value = (
            loss(to_container, teacher, target),
            torch.compile(loss, backend="eager")(compiled, teacher, target),
        )
        expected.sum().backward()
        value.sum().backward()
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(compiled.grad, to_container.grad)
