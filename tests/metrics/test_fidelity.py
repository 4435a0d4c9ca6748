"""Agreement and divergence of student and teacher against NumPy and SciPy, in batches of any size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from kdzoo.metrics import Agreement, TeacherKL

some = settings(max_examples=30, deadline=None, derandomize=True)


def logits(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(metric, student, teacher, batch):
    for s, t in zip(student.split(batch), teacher.split(batch), strict=True):
        metric.update(s, t)
    return metric


@given(st.integers(0, 2**31), st.integers(1, 12))
@some
def test_both_are_means_over_all_positions_whatever_the_batches(seed, batch):
    student, teacher = logits(11, 3, 4, seed=seed), logits(11, 3, 4, seed=seed + 1)
    p, q = (softmax(x.double().numpy(), axis=-1) for x in (teacher, student))
    kl = filled(TeacherKL(), student, teacher, batch).compute()
    assert float(kl) == pytest.approx(rel_entr(p, q).sum(-1).mean(), rel=1e-9)
    agreement = filled(Agreement(), student, teacher, batch).compute()
    assert float(agreement) == pytest.approx(np.mean(p.argmax(-1) == q.argmax(-1)))


def test_equal_logits_agree_everywhere():
    x = logits(20, 5)
    assert float(filled(Agreement(), x, x, 7).compute()) == 1
    assert float(filled(TeacherKL(), x, x.clone(), 7).compute()) == 0


def test_opposed_logits_never_agree():
    x = logits(20, 2)
    assert float(filled(Agreement(), x, -x, 7).compute()) == 0


def test_the_divergence_is_that_of_the_student_from_the_teacher():
    """KL(teacher || student) is infinite where only the student excludes a class, and finite the other way round."""
    certain, even = torch.tensor([[0.0, -torch.inf]]), torch.zeros(1, 2)
    assert float(filled(TeacherKL(), certain, even, 1).compute()) == torch.inf
    assert float(filled(TeacherKL(), even, certain, 1).compute()) == pytest.approx(np.log(2))


@pytest.mark.parametrize("kind", [Agreement, TeacherKL])
def test_states_of_several_ranks_add_up(kind):
    student, teacher = logits(30, 6), logits(30, 6, seed=1)
    whole = filled(kind(), student, teacher, 30)
    ranks = [filled(kind(), s, t, 4) for s, t in ((student[:9], teacher[:9]), (student[9:], teacher[9:]))]
    total, count = (sum(getattr(rank, name) for rank in ranks) for name in ("total", "count"))
    assert int(count) == 30
    assert float(total / count) == pytest.approx(float(whole.compute()), rel=1e-12)
    whole.reset()
    assert int(whole.count) == 0
