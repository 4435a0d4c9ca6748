"""Losses of generator and discriminator, and penalties, against formulas and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kdzoo.errors import ConfigError
from kdzoo.functional import adversarial
from kdzoo.functional.adversarial import discriminator_loss, generator_loss, gradient_penalty, squared_gradient

logits = st.lists(st.floats(-50, 50), min_size=1, max_size=5)


def reference(form: str, real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the losses on real and generated samples, and the generator's, from probabilities and definitions."""
    if form == "non_saturating":
        probability = lambda logit: 1 / (1 + np.exp(-logit))  # noqa: E731
        return -np.log(probability(real)), -np.log(probability(-generated)), -np.log(probability(generated))
    if form == "hinge":
        return np.where(real < 1, 1 - real, 0), np.where(generated > -1, 1 + generated, 0), -generated
    if form == "least_squares":
        return 0.5 * (real - 1) ** 2, 0.5 * generated**2, 0.5 * (generated - 1) ** 2
    return -real, generated, -generated


@pytest.mark.parametrize("form", adversarial.FORMS)
@given(real=logits, generated=logits)
def test_losses_follow_their_definitions(form, real, generated):
    expected = reference(form, np.array(real), np.array(generated))
    real, generated = (torch.tensor(values, dtype=torch.float64) for values in (real, generated))
    found = (*discriminator_loss(real, generated, form=form), generator_loss(generated, form=form))
    for values, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(values.numpy(), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", adversarial.FORMS)
def test_a_generator_gains_by_what_the_discriminator_takes_for_real(form):
    generated = torch.tensor([-2.0, 0.5], requires_grad=True)
    generator_loss(generated, form=form).sum().backward()
    assert (generated.grad < 0).all()


def test_losses_are_finite_for_extreme_logits():
    extreme = torch.tensor([-1e30, 1e30])
    for values in (*discriminator_loss(extreme, extreme), generator_loss(extreme)):
        assert values.isfinite().all()


def test_an_unknown_form_is_named():
    with pytest.raises(ConfigError, match=r"form must be one of non_saturating, hinge, .* got 'saturating'"):
        generator_loss(torch.zeros(1), form="saturating")


def cubic(weights):
    """Return a discriminator with D(x) = sum of w x^3, whose gradient is 3 w x^2."""
    return lambda samples: (weights * samples.flatten(1) ** 3).sum(1)


def test_penalties_follow_from_the_gradient_of_a_known_discriminator():
    torch.manual_seed(0)
    weights = torch.randn(4, dtype=torch.float64)
    real, generated = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    shares = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    gradient = 3 * weights * real.flatten(1) ** 2
    torch.testing.assert_close(squared_gradient(cubic(weights), real), (gradient**2).sum(1))
    between = torch.stack([share * r + (1 - share) * g for share, r, g in zip(shares, real, generated, strict=True)])
    norms = (3 * weights * between.flatten(1) ** 2).square().sum(1).sqrt()
    torch.testing.assert_close(gradient_penalty(cubic(weights), real, generated, shares), (norms - 1) ** 2)


def test_penalties_can_be_differentiated_by_the_weights():
    torch.manual_seed(0)
    weights = torch.randn(4, dtype=torch.float64, requires_grad=True)
    real, generated = torch.randn(2, 3, 4, dtype=torch.float64)
    shares = torch.rand(3, dtype=torch.float64)
    assert gradcheck(lambda w: squared_gradient(cubic(w), real), weights)
    assert gradcheck(lambda w: gradient_penalty(cubic(w), real, generated, shares), weights)


def test_the_penalty_is_measured_without_gradients_too_and_does_not_reach_the_generator():
    weights, generated = torch.ones(2), torch.randn(3, 2, requires_grad=True)
    with torch.no_grad():
        assert math.isfinite(gradient_penalty(cubic(weights), torch.ones(3, 2), generated, torch.rand(3)).sum())
    weights.requires_grad_()
    gradient_penalty(cubic(weights), torch.ones(3, 2), generated, torch.rand(3)).sum().backward()
    assert generated.grad is None


def test_a_discriminator_without_slope_has_a_penalty_of_one_and_a_finite_gradient():
    weights = torch.zeros(2, requires_grad=True)
    penalty = gradient_penalty(cubic(weights), torch.ones(1, 2), torch.ones(1, 2), torch.ones(1))
    penalty.sum().backward()
    assert penalty.item() == 1
    assert weights.grad.isfinite().all()
