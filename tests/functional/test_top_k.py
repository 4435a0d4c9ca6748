"""The soft-target loss between few named classes and the rest: against the definition, and beside the whole loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf
from torch.autograd import gradcheck, gradgradcheck

from kdzoo.functional import most_likely, soft_target_kl, top_k_kl
from tests.reference import logits as reference


def random(*shape, scale=3.0, seed=0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loss(student, teacher, k, temperature=2.0):
    return top_k_kl(student, *most_likely(teacher, k, temperature=temperature), temperature=temperature)


def merged(logits, named, temperature):
    """Return the logits of the named classes and of the others together, with fifty digits."""
    rest = [mpf(float(z)) / temperature for i, z in enumerate(logits) if i not in named]
    return [*(mpf(float(logits[i])) for i in named), temperature * mp.log(mp.fsum(map(mp.exp, rest)))]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 20.0, 1e3])
@pytest.mark.parametrize("noise", [3.0, 1e-4])
@pytest.mark.parametrize(("classes", "k"), [(2, 1), (5, 3), (300, 8)])
def test_it_is_the_loss_of_merged_classes(classes, k, noise, temperature):
    teacher = random(2, classes)
    student = teacher + random(2, classes, scale=noise, seed=1)
    values, (_, named) = loss(student, teacher, k, temperature), most_likely(teacher, k, temperature=temperature)
    with mp.workdps(60):
        for i, chosen in enumerate(named.tolist()):
            s, t = (merged(one[i].numpy(), chosen, mpf(temperature)) for one in (student, teacher))
            p, q = ([mp.exp(z / temperature) for z in one] for one in (t, s))
            p, q = ([z / mp.fsum(one) for z in one] for one in (p, q))
            exact = temperature**2 * mp.fsum(a * mp.log(a / b) for a, b in zip(p, q, strict=True))
            assert float(values[i]) == pytest.approx(float(exact), rel=1e-6, abs=1e-13 * temperature**2)


@given(st.integers(0, 1000), st.integers(1, 9), st.floats(0.2, 50))
def test_it_is_never_more_than_the_whole_and_less_by_what_the_rest_holds(seed, k, temperature):
    student, teacher = random(4, 10, seed=seed), random(4, 10, seed=seed + 1)
    part, whole = loss(student, teacher, k, temperature), soft_target_kl(student, teacher, temperature=temperature)
    _, named = most_likely(teacher, k, temperature=temperature)
    mass = (teacher / temperature).softmax(-1).scatter(-1, named, 0.0).sum(-1)
    others = [one.scatter(-1, named, -math.inf) for one in (student, teacher)]
    rest = soft_target_kl(*others, temperature=temperature)
    assert bool((part >= 0).all())
    torch.testing.assert_close(part + mass * rest, whole, rtol=1e-9, atol=1e-12)


def test_equal_logits_cost_nothing_and_all_but_one_class_is_the_whole_loss():
    student, teacher = random(3, 6), random(3, 6, seed=1)
    assert float(loss(teacher, teacher, 2).max()) < 1e-24
    torch.testing.assert_close(loss(student, teacher, 5), soft_target_kl(student, teacher, temperature=2.0))


def test_the_likeliest_are_named_and_the_rest_keeps_its_mass():
    teacher = random(2, 3, 7)
    values, named = most_likely(teacher, 3, temperature=4.0)
    assert torch.equal(values[..., :3], teacher.sort(-1, descending=True).values[..., :3])
    assert torch.equal(teacher.gather(-1, named), values[..., :3])
    torch.testing.assert_close((values / 4).logsumexp(-1), (teacher / 4).logsumexp(-1))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_are_exact_and_finite(scale):
    teacher = random(3, 8, scale=scale)
    student = random(3, 8, scale=scale, seed=1).requires_grad_()
    targets = most_likely(teacher, 3, temperature=2.0)
    if scale == 1.0:
        assert gradcheck(lambda s: top_k_kl(s, *targets, temperature=2.0), student)
        assert gradgradcheck(lambda s: top_k_kl(s, *targets, temperature=2.0), student)
    top_k_kl(student, *targets, temperature=2.0).sum().backward()
    assert bool(student.grad.isfinite().all())


def test_many_rows_are_those_of_few():
    student, teacher = random(90, 2000, dtype=torch.float32), random(90, 2000, seed=1, dtype=torch.float32)
    student.requires_grad_()
    whole = loss(student, teacher, 16)
    each = torch.cat([loss(student[i : i + 1], teacher[i : i + 1], 16) for i in range(0, 90, 30)])
    torch.testing.assert_close(whole[::30], each, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(whole[30], student)
    assert gradient.dtype == torch.float32
    assert int(gradient.abs().sum(1).count_nonzero()) == 1


def test_float32_is_accurate_where_the_pair_is_nearly_equal():
    teacher = random(1, 50, dtype=torch.float32)
    student = teacher + random(1, 50, scale=1e-3, seed=1, dtype=torch.float32)
    exact = reference.soft_target_kl(student[0].numpy(), teacher[0].numpy(), 2.0)
    assert float(loss(student, teacher, 49)) == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("k", [0, 4, -1])
def test_a_number_of_classes_that_cannot_be(k):
    with pytest.raises(ValueError, match=rf"k must be in 1\.\.3, for 4 classes, got {k}"):
        most_likely(torch.zeros(2, 4), k, temperature=1.0)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    "classes", [torch.zeros(2, 1).long(), torch.zeros(2, 2), torch.zeros(1, 2).long(), torch.zeros(2, 3).long()]
)
def test_classes_that_do_not_fit(classes):
    with pytest.raises(ValueError, match=r"classes must be int64 of shape \(2, 2\)"):
        top_k_kl(torch.zeros(2, 4), torch.zeros(2, 3), classes, temperature=1.0)
