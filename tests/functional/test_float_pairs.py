"""Pairs of float32 numbers against float64."""

import pytest
import torch

from kdzoo.functional import float_pairs


def uniform(low, high, *shape):
    return low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def pair(exact):
    high = exact.float()
    return high, (exact - high.double()).float()


def value(high, low):
    return high.double() + low.double()


def relative_error(found, exact):
    return float(((value(*found) - exact) / exact).abs().max())


@pytest.mark.parametrize("constant", [0.01, 1 / 3, 1 / 7.7, 1e4, 123.456])
def test_products_with_constants(constant):
    numbers = pair(uniform(-10, 10, 5000))
    assert relative_error(float_pairs.times_constant(*numbers, constant), value(*numbers) * constant) < 1e-13


def test_exponentials():
    numbers = pair(uniform(-60, 0, 20000))
    assert relative_error(float_pairs.exp_pair(*numbers), value(*numbers).exp()) < 1e-11


def test_logarithms():
    numbers = pair(uniform(1.5, 1e4, 5000))
    assert relative_error(float_pairs.log_pair(*numbers), value(*numbers).log()) < 1e-11


def test_log_sum_exp_with_masked_classes():
    logits = uniform(-30, 0, 50, 300).float()
    logits[:, 0], logits[:, 1:4] = 0.0, -torch.inf
    found = float_pairs.log_sum_exp_pair(logits, torch.zeros_like(logits))
    assert relative_error(found, logits.double().logsumexp(-1)) < 1e-11


def test_weighted_means():
    exponents = uniform(-20, 0, 50, 100).float()
    exponents[:, 0] = 0
    weights = float_pairs.weights_pair(exponents, torch.zeros_like(exponents))
    numbers = uniform(1e-9, 3e-9, 50, 100).float()
    exact = (exponents.double().softmax(-1) * numbers).sum(-1)
    assert relative_error(float_pairs.weighted_mean_pair(weights, (numbers, torch.zeros_like(numbers))), exact) < 1e-11


def test_row_sums_lose_no_small_terms():
    terms = torch.full((1, 1000), 2.0**-25)
    terms[0, 0] = 1.0
    assert float(float_pairs.row_sums(terms)[0]) == pytest.approx(1 + 999 * 2.0**-25, rel=1e-7, abs=0)
