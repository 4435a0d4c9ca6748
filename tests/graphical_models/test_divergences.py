"""Divergences, against torch, NumPy, optimal transport and their known properties."""

import hypothesis.strategies as st
import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from torch.autograd import gradcheck
from torch.distributions import kl_divergence

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Bernoulli, Categorical, Delta, DiscretizedLogistic, Normal, divergence, per_sample
from tests.reference import graphs as reference

some = settings(max_examples=80, deadline=None, derandomize=True)
FAMILIES = {
    "normal": Normal((3,)),
    "normal of fixed deviation": Normal((3,), scale=0.3),
    "bits": Bernoulli((3,)),
    "classes": Categorical((2, 4)),
    "grid": DiscretizedLogistic((3,), bins=16),
    "points": Delta((3,)),
}
RANDOM = sorted(set(FAMILIES) - {"points"})


def pair(name, seed, spread=1.5):
    """Return two random distributions of a family."""
    family, generator = FAMILIES[name], torch.Generator().manual_seed(seed)
    return [
        family.distribution(spread * torch.randn(5, *family.raw_shape, generator=generator, dtype=torch.double))
        for _ in range(2)
    ]


def tables(name, seed):
    """Return the probabilities [5, positions, values] of two discrete distributions, and the values."""
    result = []
    for one in pair(name, seed):
        if name == "bits":
            chances = one.logits.sigmoid()
            result.append(torch.stack([1 - chances, chances], -1))
        else:
            result.append(one.log_probs().exp() if name == "grid" else one.probs)
    return [one.numpy() for one in result]


# ---------------------------------------------------------------- kl


@given(st.integers(0, 2000), st.sampled_from(["normal", "normal of fixed deviation", "bits", "classes"]))
@some
def test_kl_equals_that_of_torch(seed, name):
    p, q = pair(name, seed)
    torch.testing.assert_close(divergence("kl", p, q), kl_divergence(p, q), atol=1e-10, rtol=1e-9)


@given(st.integers(0, 2000))
@some
def test_kl_of_a_grid_is_the_sum_over_its_values(seed):
    p, q = tables("grid", seed)
    expected = (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(divergence("kl", *pair("grid", seed)), expected, atol=1e-10, rtol=1e-8)


@given(st.integers(0, 2000), st.sampled_from(RANDOM), st.sampled_from([1e-3, 1.0, 5.0]))
@some
def test_kl_is_positive_and_zero_only_for_equals(seed, name, spread):
    p, q = pair(name, seed, spread)
    assert (divergence("kl", p, q) > 0).all()
    assert divergence("kl", p, p).abs().max() == 0.0


@given(st.integers(0, 2000), st.sampled_from(sorted(FAMILIES)), st.sampled_from(["w2", "mmd"]))
@some
def test_distances_are_symmetric_and_zero_for_equals(seed, name, kind):
    p, q = pair(name, seed)
    result = divergence(kind, p, q)
    assert (result > 0).all()
    torch.testing.assert_close(result, divergence(kind, q, p), atol=1e-12, rtol=1e-9)
    assert divergence(kind, p, p).abs().max() == 0.0


@pytest.mark.parametrize("kind", ["kl", "w2", "mmd"])
@pytest.mark.parametrize("name", ["bits", "classes", "grid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_extreme_raw_values_have_finite_divergences_and_gradients(name, kind, dtype):
    family = FAMILIES[name]
    raw = torch.tensor([-80.0, 0.0, 80.0], dtype=dtype)
    teacher = raw.repeat(6, 1)[:, : family.raw_shape[-1], None].expand(6, 3, 1).reshape(6, 3)
    teacher = torch.cartesian_prod(raw, raw)[:, :1].expand(9, int(np.prod(family.raw_shape)))
    student = torch.cartesian_prod(raw, raw)[:, 1:].expand_as(teacher).clone().requires_grad_()
    shape = (9, *family.raw_shape)
    result = divergence(kind, family.distribution(teacher.reshape(shape)), family.distribution(student.reshape(shape)))
    assert result.isfinite().all()
    assert (result >= -1e-6).all()
    assert torch.autograd.grad(result.sum(), student)[0].isfinite().all()


def test_classes_with_probability_zero_do_not_count():
    infinite = -torch.inf
    p = Categorical((3,)).distribution(torch.tensor([[0.0, 1.0, infinite]]))
    q = Categorical((3,)).distribution(torch.tensor([[1.0, 0.0, 2.0]], requires_grad=True))
    result = divergence("kl", p, q)
    assert result.item() == pytest.approx(kl_divergence(p, q).item(), rel=1e-6)
    assert divergence("kl", q, p).item() == torch.inf


# ---------------------------------------------------------------- w2 and mmd


@given(st.integers(0, 2000))
@some
def test_w2_of_a_grid_is_the_cost_of_moving_its_mass(seed):
    p, q = tables("grid", seed)
    grid = np.linspace(0, 1, 16)
    result = divergence("w2", *pair("grid", seed)).numpy()
    for where in np.ndindex(result.shape):
        assert result[where] == pytest.approx(reference.quantile_distance(p[where], q[where], grid), abs=1e-10)


def test_w2_of_a_grid_is_that_of_optimal_transport():
    p, q = tables("grid", 1)
    grid = np.linspace(0, 1, 16)
    costs = (grid[:, None] - grid) ** 2
    one, other = (table[0, 0] / table[0, 0].sum() for table in (p, q))
    assert divergence("w2", *pair("grid", 1))[0, 0].item() == pytest.approx(ot.emd2(one, other, costs), abs=1e-10)


@pytest.mark.parametrize("name", ["bits", "classes"])
def test_w2_of_bits_and_classes_is_optimal_transport_at_cost_one(name):
    p, q = tables(name, 2)
    result = divergence("w2", *pair(name, 2)).numpy()
    costs = 1.0 - np.eye(p.shape[-1])
    for where in np.ndindex(result.shape):
        one, other = (table[where] / table[where].sum() for table in (p, q))
        assert result[where] == pytest.approx(ot.emd2(one, other, costs), abs=1e-10)


def test_w2_of_normal_distributions_is_that_of_many_sorted_samples():
    p, q = pair("normal", 3)
    quantiles = (torch.arange(200_000, dtype=torch.double) + 0.5) / 200_000
    for where in ((0, 0), (2, 1)):
        normal = [torch.distributions.Normal(d.loc[where], d.scale[where]).icdf(quantiles) for d in (p, q)]
        expected = (normal[0] - normal[1]).square().mean().item()
        assert divergence("w2", p, q)[where].item() == pytest.approx(expected, rel=1e-3)


@given(st.integers(0, 2000), st.sampled_from(sorted(FAMILIES)))
@some
def test_mmd_is_the_squared_distance_of_means(seed, name):
    p, q = pair(name, seed)
    expected = (p.mean - q.mean).square()
    expected = expected.sum(-1) if name == "classes" else expected
    torch.testing.assert_close(divergence("mmd", p, q), expected, atol=1e-12, rtol=1e-9)


@given(st.integers(0, 2000), st.sampled_from(["bits", "classes"]))
@some
def test_logits_are_compared_up_to_a_constant_that_changes_no_probability(seed, name):
    p, q = (np.log(table) for table in tables(name, seed))
    difference = p - q
    # Of a bit, its logit is the difference of the two; of classes, what remains without their mean.
    bits, classes = np.diff(difference)[..., 0] ** 2, difference.var(-1) * difference.shape[-1]
    expected = bits if name == "bits" else classes
    np.testing.assert_allclose(divergence("logits", *pair(name, seed)), expected, atol=1e-9, rtol=1e-8)


@given(st.integers(0, 2000), st.sampled_from(["kl", "w2", "mmd"]))
@some
def test_divergences_of_classes_are_jointly_convex(seed, kind):
    p, q = (one.probs for one in pair("classes", seed))
    of_mixtures, of_parts = (
        divergence(kind, *(torch.distributions.OneHotCategorical(probs=one) for one in tables))
        for tables in ((p.mean(0), q.mean(0)), (p, q))
    )
    assert (of_mixtures <= of_parts.mean(0) + 1e-12).all()


@pytest.mark.parametrize("kind", ["kl", "w2", "mmd"])
@pytest.mark.parametrize("name", RANDOM)
def test_gradients_are_those_of_finite_differences(name, kind):
    family, generator = FAMILIES[name], torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(2, *family.raw_shape, generator=generator, dtype=torch.double) for _ in range(2))
    p = family.distribution(teacher)
    assert gradcheck(lambda raw: divergence(kind, p, family.distribution(raw)), student.requires_grad_())


# ---------------------------------------------------------------- sums over elements


def test_values_are_summed_or_averaged_for_each_sample():
    values = torch.arange(12.0).reshape(2, 3, 2)
    assert per_sample(values, "sum").tolist() == [15.0, 51.0]
    assert per_sample(values, "mean").tolist() == [2.5, 8.5]
    assert per_sample(values[:, 0, 0], "sum").tolist() == [0.0, 6.0]


def test_only_valid_steps_are_summed():
    values, lengths = torch.arange(12.0).reshape(2, 3, 2), torch.tensor([2, 0])
    assert per_sample(values, "sum", lengths=lengths).tolist() == [6.0, 0.0]
    assert per_sample(values, "mean", lengths=lengths).tolist() == [1.5, 0.0]
    assert per_sample(values[..., 0], "mean", lengths=torch.tensor([3, 1])).tolist() == [2.0, 6.0]


# ---------------------------------------------------------------- refusals


def test_unknown_divergences_are_refused():
    p, q = pair("normal", 0)
    with pytest.raises(ConfigError, match=r"^divergence must be one of kl, w2, mmd, logits, got 'js'$"):
        divergence("js", p, q)
    with pytest.raises(ConfigError, match=r"^there is no kl between Normal and Bernoulli$"):
        divergence("kl", p, pair("bits", 0)[0])
    with pytest.raises(ConfigError, match=r"^kl between deltas is infinite where they differ; allowed: w2 or mmd$"):
        divergence("kl", *pair("points", 0))
