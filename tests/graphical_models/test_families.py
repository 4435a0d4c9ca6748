"""Families: values have the family's distribution, and observations are checked."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from scipy.stats import kstest, norm
from torch import nn

from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models import Bernoulli, Categorical, Delta, DiscretizedLogistic, Normal
from kdzoo.graphical_models.families import MergedNormal, check_same_family, gumbel_noise, positive_scale

some = settings(max_examples=60, deadline=None, derandomize=True)
N = 20_000
FAMILIES = {
    "normal": Normal((2, 3)),
    "normal of fixed deviation": Normal((2, 3), scale=0.3),
    "bits": Bernoulli((2, 3)),
    "classes": Categorical((2, 3)),
    "classes by gumbel": Categorical((2, 3), gumbel=True),
    "grid": DiscretizedLogistic((2, 3), bins=16),
    "points": Delta((2, 3)),
}


def drawn(family, seed, n=N):
    """Return the net's output for one distribution, and n values of it."""
    generator = torch.Generator().manual_seed(seed)
    raw = 1.5 * torch.randn(family.raw_shape, generator=generator, dtype=torch.double)
    rows = raw.expand(n, *family.raw_shape)
    return raw, family.sample(rows, family.noise((n,), generator).double())


# ---------------------------------------------------------------- the distribution of values


@given(st.integers(0, 500), st.sampled_from(sorted(FAMILIES)))
@some
def test_values_have_the_mean_and_variance_of_the_distribution(seed, name):
    family = FAMILIES[name]
    raw, values = drawn(family, seed)
    distribution = family.distribution(raw)
    mean, variance = distribution.mean, distribution.variance
    assert values.shape == (N, *family.shape)
    assert ((values.mean(0) - mean).abs() <= 5.5 * (variance / N).sqrt() + 1e-12).all()
    centred = (values - mean).square()
    error = centred.std(0) / N**0.5
    assert ((centred.mean(0) - variance).abs() <= 5.5 * (error + (variance / N).sqrt()) + 1e-12).all()


@pytest.mark.parametrize("name", ["bits", "classes", "classes by gumbel", "grid"])
def test_values_have_the_frequencies_of_the_distribution(name):
    family = FAMILIES[name]
    raw, values = drawn(family, 3, 200_000)
    logs = family.distribution(raw.expand(len(values), *family.raw_shape)).log_prob(values)
    flat = values.flatten(1) if name in ("bits", "grid") else values.argmax(-1)
    for values_of_one, logs_of_one in zip(flat.T, logs.flatten(1).T, strict=True):
        kinds, where, counts = values_of_one.unique(return_inverse=True, return_counts=True)
        probabilities = torch.zeros(len(kinds), dtype=torch.double).index_put((where,), logs_of_one.exp())
        assert float(probabilities.sum()) == pytest.approx(1, abs=1e-3)
        error = (probabilities * (1 - probabilities) / len(values)).sqrt()
        assert ((counts / len(values) - probabilities).abs() <= 4.5 * error).all()


def test_normal_values_are_normal():
    raw, values = drawn(Normal((1,)), 5)
    mean, scale = float(raw[0]), float(positive_scale(raw[1]))
    assert kstest(values[:, 0].numpy(), norm(mean, scale).cdf).pvalue > 1e-3


@given(st.integers(0, 500), st.integers(0, 500))
@some
def test_on_shared_noise_a_higher_probability_never_gives_a_smaller_bit(seed, other):
    family, generator = Bernoulli((50,)), torch.Generator().manual_seed(seed)
    noise = family.noise((20,), generator)
    raw = torch.randn(20, 50, generator=generator)
    more = raw + torch.rand(20, 50, generator=torch.Generator().manual_seed(other))
    assert (family.sample(raw, noise) <= family.sample(more, noise)).all()


def test_classes_are_the_quantiles_of_the_first_uniform_number():
    family = Categorical((3,))
    raw = torch.tensor([0.2, 0.5, 0.3]).log().expand(5, 3)
    noise = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.999])[:, None].expand(5, 3)
    assert family.sample(raw, noise).argmax(1).tolist() == [0, 0, 1, 1, 2]


@given(st.integers(0, 500))
@some
def test_the_merged_density_is_the_product_of_both(seed):
    raw = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.double).reshape(12)
    merged = MergedNormal((3,)).distribution(raw)
    parts = [Normal((3,)).distribution(one) for one in raw.chunk(2)]
    points = torch.linspace(-3, 3, 7, dtype=torch.double)[:, None]
    ratio = merged.log_prob(points) - sum(part.log_prob(points) for part in parts)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-9, rtol=1e-9)
    noise = MergedNormal((3,)).noise((5,)).double()
    torch.testing.assert_close(MergedNormal((3,)).sample(raw.expand(5, 12), noise), merged.mean + merged.stddev * noise)


# ---------------------------------------------------------------- values on a grid


def test_extreme_noise_becomes_a_value_of_the_grid():
    family = DiscretizedLogistic((4,), bins=5)
    raw = torch.tensor([0.5, 0.5, -9.0, 9.0, 3.0, -90.0, 0.0, 0.0])
    for noise in (0.0, 0.5, 1.0):
        values = family.sample(raw, torch.full((4,), noise))
        assert values.isfinite().all()
        assert ((values * 4).round() / 4 == values).all()
        assert ((values >= 0) & (values <= 1)).all()


# ---------------------------------------------------------------- gradients and shapes


@pytest.mark.parametrize("name", FAMILIES)
def test_values_have_a_gradient_where_the_family_is_continuous(name):
    family = FAMILIES[name]
    raw = torch.zeros(4, *family.raw_shape, requires_grad=True)
    value = family.sample(raw, family.noise((4,)))
    assert value.requires_grad == (name in ("normal", "normal of fixed deviation", "points"))
    assert value.dtype == raw.dtype


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_are_those_that_the_family_declares(name):
    family = FAMILIES[name]
    noise = family.noise((5, 7))
    raw = torch.randn(5, 7, *family.raw_shape)
    assert noise.shape == (5, 7, *family.noise_shape)
    assert family.sample(raw, noise).shape == (5, 7, *family.shape)
    without = family.shape[:-1] if isinstance(family, Categorical) else family.shape
    assert family.distribution(raw).batch_shape == (5, 7, *without)
    assert family.raw_shape == ((4, 3) if name in ("normal", "grid") else (2, 3))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_generator_draws_the_same_noise(name):
    one, other = (FAMILIES[name].noise((3,), torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, other)


def test_a_raw_deviation_of_zero_is_about_one_and_none_is_zero():
    raw = torch.tensor([0.0, -1e4, 1e4], requires_grad=True)
    result = positive_scale(raw)
    assert result.tolist() == pytest.approx([1 + 1e-6, 1e-6, 1e4 / math.log(2)])
    result.sum().backward()
    assert raw.grad.isfinite().all()


def test_gumbel_noise_is_finite_for_extreme_noise():
    for dtype in (torch.float32, torch.float64):
        assert gumbel_noise(torch.tensor([0.0, 0.5, 1.0], dtype=dtype)).isfinite().all()


def test_point_masses_are_at_the_networks_output():
    value = torch.randn(3, 2)
    distribution = Delta((2,)).distribution(value)
    assert torch.equal(distribution.mean, value)
    assert distribution.variance.tolist() == [[0.0, 0.0]] * 3
    assert distribution.rsample((4,)).shape == (4, 3, 2)
    assert distribution.log_prob(value).tolist() == [[0.0, 0.0]] * 3
    assert distribution.log_prob(value + 1).max() == -math.inf


# ---------------------------------------------------------------- observations


def test_observations_become_values():
    assert Normal((4,)).encode(torch.zeros(3, 2, 2)).shape == (3, 4)
    assert Normal((1,)).encode(torch.zeros(3)).shape == (3, 1)
    assert Categorical((3,)).encode(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert Categorical((2, 3)).encode(torch.tensor([[2, 0]])).shape == (1, 2, 3)
    vectors = nn.functional.one_hot(torch.tensor([1, 2]), 3).float()
    assert torch.equal(Categorical((3,)).encode(vectors), vectors)


def test_observations_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"^observations of shape \(3, 5\) do not fit Normal \(4,\)$"):
        Normal((4,)).encode(torch.zeros(3, 5))
    with pytest.raises(DataError, match=r"^classes must be in 0\.\.2, got \[0, 3\]$"):
        Categorical((3,)).encode(torch.tensor([0, 3]))
    with pytest.raises(DataError, match=r"^observations of shape \(2, 4\) do not fit Categorical \(3,\)$"):
        Categorical((3,)).encode(torch.zeros(2, 4))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(()), r"^shape must be a list of integers >= 1, got \[\]$"),
        (lambda: Normal((0,)), r"^shape\[0\] must be an integer >= 1, got 0$"),
        (lambda: Normal((2,), scale=0.0), r"^scale must be finite and > 0, got 0\.0$"),
        (lambda: DiscretizedLogistic((2,), bins=1), r"^bins must be an integer >= 2, got 1$"),
    ],
    ids=["no shape", "empty shape", "no deviation", "one bin"],
)
def test_invalid_families_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_families_of_two_models_must_agree():
    check_same_family("z", Normal((2,)), Normal((2,), scale=1.0))
    with pytest.raises(ConfigError, match=r"^node 'z': the teacher has Normal \(2,\), the student Bernoulli \(2,\);"):
        check_same_family("z", Normal((2,)), Bernoulli((2,)))
    with pytest.raises(ConfigError, match=r"^node 'z': the teacher has Normal \(2,\), the student Normal \(3,\);"):
        check_same_family("z", Normal((2,)), Normal((3,)))
    with pytest.raises(
        ConfigError, match=r"\(2,\) of 16 bins, the student .* of 256 bins; allowed: the same family and shape$"
    ):
        check_same_family("z", DiscretizedLogistic((2,), bins=16), DiscretizedLogistic((2,), bins=256))
