"""What both ensembles share: checked members, weights that sum to one, and a logsumexp with a finite gradient."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp as scipy_logsumexp
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.models.ensemble_members import logsumexp, module_list, normalised_weights


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=6).filter(any))
def test_weights_sum_to_one_and_keep_their_ratios(weights):
    result = normalised_weights(weights, len(weights))
    assert math.fsum(result) == pytest.approx(1, rel=1e-12)
    largest = max(weights)
    np.testing.assert_allclose(np.array(result) / max(result), np.array(weights) / largest, rtol=1e-12, atol=1e-300)


def test_weights_are_equal_by_default():
    assert normalised_weights(None, 4) == (0.25,) * 4


@pytest.mark.parametrize("weights", [[1.0], [1, -1], [0, 0], [1, math.nan], [1, math.inf], "ab", 1.0, [1, "2"]])
def test_invalid_weights_are_refused(weights):
    message = f"weights must be 2 finite numbers >= 0, not all zero, got {weights!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        normalised_weights(weights, 2)


def test_members_are_registered_modules():
    members = [nn.Linear(2, 2), nn.ReLU()]
    assert list(module_list(members)) == members
    assert list(module_list(nn.ModuleList(members))) == members


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "members must be a list of at least one module, got an empty list"),
        (3, "members must be a list of at least one module, got int"),
        ([nn.ReLU(), "mlp"], "members[1] must be a torch module, got 'mlp'"),
    ],
)
def test_invalid_members_are_refused(members, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        module_list(members)


def test_the_logsumexp_equals_scipy_and_has_a_finite_gradient():
    log_terms = torch.tensor([[0.5, -math.inf, -math.inf], [-700.0, 3.0, -math.inf]], dtype=torch.float64)
    np.testing.assert_allclose(logsumexp(log_terms), scipy_logsumexp(log_terms.numpy(), axis=0), rtol=1e-12)
    log_terms.requires_grad_()
    result = logsumexp(log_terms)
    result[result.isfinite()].sum().backward()
    assert log_terms.grad is not None
    np.testing.assert_allclose(log_terms.grad, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], atol=1e-12)
