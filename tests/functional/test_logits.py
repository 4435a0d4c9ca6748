"""The logit losses against independent references, and the properties that their formulas imply."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import cross_entropy, kl_div

from kdzoo.core.batch import IGNORE
from kdzoo.functional import centred_mse, decoupled_kl, hard_target_ce, soft_target_kl
from tests.functional.accuracy import relative_error
from tests.reference import logits as reference

INF = math.inf
many = settings(max_examples=300, deadline=None, derandomize=True)
some = settings(max_examples=100, deadline=None, derandomize=True)


def normal(*shape: int, scale: float = 3.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def tkd(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    return soft_target_kl(student, teacher, temperature=temperature)


def both_parts(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    return torch.stack(decoupled_kl(student, teacher, target, temperature=4.0), -1)


@st.composite
def pairs(draw, elements=None, dtype=np.float32, least_classes: int = 1) -> tuple[Tensor, Tensor]:
    """Student and teacher logits (n, c), |logits| <= 1e4, now and then masked in both or in the teacher."""
    elements = st.floats(-1e4, 1e4, width=32) if elements is None else elements
    shape = draw(st.tuples(st.integers(1, 3), st.integers(least_classes, 6)))
    student, teacher = draw(hnp.arrays(dtype, (2, *shape), elements=elements))
    if draw(st.booleans()):
        student = np.where(draw(hnp.arrays(bool, shape)), teacher, student)
    masked = draw(hnp.arrays(np.int8, shape, elements=st.sampled_from([0, 0, 0, 0, 1, 2])))
    masked[:, 0] = 0
    student = np.where(masked == 1, dtype(-np.inf), student)
    teacher = np.where(masked > 0, dtype(-np.inf), teacher)
    return torch.from_numpy(student), torch.from_numpy(teacher)


temperatures = st.floats(-2, 4).map(lambda exponent: 10.0**exponent)
sixty_fourths = st.integers(-640, 640).map(lambda k: k / 64)  # sums and differences of these are exact


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


LOSSES = {
    "soft_target_kl": lambda s, t, y: tkd(s, t),
    "hard_target_ce": lambda s, t, y: hard_target_ce(s, y),
    "centred_mse": lambda s, t, y: centred_mse(s, t),
    "decoupled_kl": lambda s, t, y: both_parts(s, t, y).sum(-1),
}


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

    def test_the_teacher_is_a_constant(self, loss) -> None:
        student, teacher = normal(3, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
        loss(student, teacher, torch.tensor([0, 3, 1])).sum().backward()
        assert teacher.grad is None

    @pytest.mark.usefixtures("unchecked_shapes")  # jaxtyping's decorators cannot be compiled
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


class TestHardTargetCE:
    @given(pairs(least_classes=2), st.data())
    @some
    def test_any_logits_are_accurate(self, pair, data) -> None:
        logits = pair[1]
        labels = torch.tensor(
            [data.draw(st.sampled_from(row.isfinite().nonzero().flatten().tolist())) for row in logits]
        )
        student = logits.clone().requires_grad_()
        values = hard_target_ce(student, labels)
        values.sum().backward()
        assert student.grad.isfinite().all()
        for value, row, label in zip(values.tolist(), logits.numpy(), labels.tolist(), strict=True):
            assert relative_error(value, reference.hard_target_ce(row, label)) < 1e-10

    def test_agrees_with_torch(self) -> None:
        logits, target = normal(6, 5), torch.arange(6) % 5
        torch.testing.assert_close(hard_target_ce(logits, target), cross_entropy(logits, target, reduction="none"))

    def test_stays_above_zero_when_all_but_certain(self) -> None:
        value = hard_target_ce(torch.tensor([[600.0, 0.0, 0.0]]), torch.tensor([0])).item()
        assert value == pytest.approx(2 * math.exp(-600), rel=1e-12, abs=0)

    def test_masked_classes(self) -> None:
        logits = torch.tensor([[0.0, -INF], [0.0, -INF]], requires_grad=True)
        value = hard_target_ce(logits, torch.tensor([0, 1]))
        assert value.tolist() == [0, INF]
        value[0].backward()
        assert logits.grad.tolist() == [[0, 0], [0, 0]]

    def test_a_single_class_costs_nothing(self) -> None:
        logits = torch.ones(2, 1, requires_grad=True)
        value = hard_target_ce(logits, torch.zeros(2, dtype=torch.int64))
        value.sum().backward()
        assert value.tolist() == [0, 0]
        assert logits.grad.tolist() == [[0], [0]]

    def test_nan_passes_through(self) -> None:
        assert hard_target_ce(torch.tensor([[math.nan, 0.0]]), torch.tensor([1])).isnan().all()


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


class TestDecoupledKL:
    @given(pairs(st.floats(-30, 30, width=32), least_classes=2), st.floats(0.5, 100), st.data())
    @some
    def test_the_parts_make_up_the_whole(self, pair, temperature, data) -> None:
        student, teacher = pair
        student, teacher = student.clamp_min(-40), teacher.clamp_min(-40)
        target = torch.tensor([data.draw(st.integers(0, student.shape[1] - 1)) for _ in student])
        tckd, nckd = decoupled_kl(student, teacher, target, temperature=temperature)
        p = (teacher.double() / temperature).softmax(-1)
        rest = p.scatter(-1, target.unsqueeze(-1), 0).sum(-1)
        whole = tkd(student, teacher, temperature)
        torch.testing.assert_close(tckd + rest * nckd, whole, rtol=1e-10, atol=1e-18)

    @pytest.mark.parametrize("classes", [2, 3, 10, 100])
    @pytest.mark.parametrize("temperature", [0.1, 1.0, 20.0, 1e3])
    @pytest.mark.parametrize("noise", [3.0, 1e-5])
    def test_accuracy(self, classes: int, temperature: float, noise: float) -> None:
        teacher = normal(2, classes, dtype=torch.float32)
        student = teacher + normal(2, classes, scale=noise, seed=1, dtype=torch.float32)
        values = decoupled_kl(student, teacher, torch.tensor([0, 1]), temperature=temperature)
        for i in range(2):
            exact = reference.decoupled_kl(student[i].numpy(), teacher[i].numpy(), i, temperature)
            for value, wanted in zip(values, exact, strict=True):
                assert relative_error(value[i].item(), wanted) < 1e-6

    def test_masked_classes(self) -> None:
        teacher = torch.tensor([[1.0, 2.0, -INF, 0.5]])
        student = torch.tensor([[0.0, 1.0, -INF, 3.0]], requires_grad=True)
        kept, target = [0, 1, 3], torch.tensor([1])
        value = both_parts(student, teacher, target)
        torch.testing.assert_close(value, both_parts(student[:, kept], teacher[:, kept], target))
        value.sum().backward()
        assert student.grad.isfinite().all()
        assert both_parts(student, teacher.nan_to_num(neginf=0.0), target)[0, 1] == INF

    def test_a_teacher_that_masks_the_label(self) -> None:
        tckd, nckd = decoupled_kl(torch.zeros(1, 3), torch.tensor([[-INF, 0.0, 0.0]]), torch.tensor([0]), temperature=1)
        torch.testing.assert_close(tckd.item(), math.log(3 / 2))
        assert nckd.item() == 0

    def test_two_classes_leave_nothing_to_the_others(self) -> None:
        student, teacher = normal(4, 2), normal(4, 2, seed=1)
        tckd, nckd = decoupled_kl(student, teacher, torch.tensor([0, 1, 0, 1]), temperature=2.0)
        assert nckd.tolist() == [0, 0, 0, 0]
        torch.testing.assert_close(tckd, tkd(student, teacher, 2.0))

    def test_without_pressure_from_a_certain_target(self) -> None:
        # the case that makes a formula with log(1 - p_y) or a mask of -1000 overflow in half precision
        student, teacher = torch.tensor([[300.0, 0.0, 1.0]]).half(), torch.tensor([[250.0, 1.0, 0.0]]).half()
        tckd, nckd = decoupled_kl(student, teacher, torch.tensor([0]), temperature=1.0)
        assert 0 < tckd.item() < 1e-100
        assert nckd.item() == pytest.approx(0.4621171572600097)


@pytest.mark.usefixtures("unchecked_shapes")
class TestBadArguments:
    @pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.nan, INF, -INF, 1e101, 1e-101, "4", None, True])
    @pytest.mark.parametrize("decoupled", [False, True])
    def test_temperature(self, temperature, decoupled: bool) -> None:
        logits, target = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
        loss = partial(decoupled_kl, target=target) if decoupled else soft_target_kl
        with pytest.raises(ValueError, match=r"temperature must be a finite number > 0 .* got"):
            loss(logits, logits, temperature=temperature)

    @pytest.mark.parametrize("loss", [tkd, centred_mse, lambda s, t: both_parts(s, t, torch.zeros(2).long())])
    def test_shapes_never_broadcast(self, loss) -> None:
        with pytest.raises(ValueError, match=r"same shape, got student \(2, 3\) and teacher \(1, 3\)"):
            loss(torch.zeros(2, 3), torch.zeros(1, 3))

    @pytest.mark.parametrize("loss", [tkd, centred_mse])
    def test_no_class(self, loss) -> None:
        for shape in [(), (2, 0)]:
            with pytest.raises(ValueError, match=r"shape \(\*n, c\) with c >= 1, got \("):
                loss(torch.zeros(shape), torch.zeros(shape))

    def test_decoupling_needs_two_classes(self) -> None:
        with pytest.raises(ValueError, match=r"c >= 2, got \(2, 1\)"):
            both_parts(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2).long())

    @pytest.mark.parametrize("loss", [tkd, centred_mse])
    def test_integers(self, loss) -> None:
        with pytest.raises(ValueError, match=r"student must hold floating-point numbers, got torch\.int64"):
            loss(torch.zeros(2, 3).long(), torch.zeros(2, 3))
        with pytest.raises(ValueError, match=r"teacher must hold floating-point numbers, got torch\.int64"):
            loss(torch.zeros(2, 3), torch.zeros(2, 3).long())

    @pytest.mark.parametrize("loss", [hard_target_ce, lambda s, y: both_parts(s, s, y)])
    def test_labels(self, loss) -> None:
        logits = torch.zeros(2, 2, 3)
        with pytest.raises(ValueError, match=r"target must be in \[0, 2\], got label 3 at index \[1, 0\]"):
            loss(logits, torch.tensor([[0, 2], [3, 1]]))
        with pytest.raises(ValueError, match=r"got label -100 at index \[0, 1\]"):
            loss(logits, torch.tensor([[0, IGNORE], [2, 1]]))
        with pytest.raises(ValueError, match=r"int64 class labels, got torch\.float32"):
            loss(logits, torch.zeros(2, 2))
        with pytest.raises(ValueError, match=r"classes \(2, 2\), got target \(2,\) and student \(2, 2, 3\)"):
            loss(logits, torch.tensor([0, 1]))

    def test_hard_targets_want_floating_logits_with_classes(self) -> None:
        with pytest.raises(ValueError, match="student must hold floating-point"):
            hard_target_ce(torch.zeros(2, 3).long(), torch.zeros(2).long())
        with pytest.raises(ValueError, match=r"got \(2, 0\)"):
            hard_target_ce(torch.zeros(2, 0), torch.zeros(2).long())
