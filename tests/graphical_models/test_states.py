"""Lists of states, and the interval of noise that leads to a value."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Bernoulli, Categorical, Normal
from kdzoo.graphical_models.states import (
    MAX_STATES,
    check_count,
    count_rows,
    count_states,
    cross_rows,
    enumerate_states,
    noise_interval,
)
from tests.graphical_models.cases import bits, classes, straight

some = settings(max_examples=60, deadline=None, derandomize=True)


def test_every_state_is_listed_once():
    graph = classes().double()
    states = enumerate_states(graph, ["z", "a", "b"])
    joined = torch.cat([states[name].flatten(1) for name in ("z", "a", "b")], 1)
    assert joined.shape == (4 * 3 * 9, 2 + 3 + 6)
    assert len(joined.unique(dim=0)) == len(joined)
    assert states["a"].dtype == torch.double
    assert (states["b"].sum(-1) == 1).all()
    assert enumerate_states(graph, []) == {}


def test_rows_are_crossed_in_order():
    first, second = {"a": torch.tensor([1, 2])}, {"b": torch.tensor([[3], [4], [5]])}
    result = cross_rows(first, second)
    assert result["a"].tolist() == [1, 1, 1, 2, 2, 2]
    assert result["b"].flatten().tolist() == [3, 4, 5, 3, 4, 5]
    assert cross_rows({}, second)["b"].shape == (3, 1)


@given(st.integers(0, 10_000), st.sampled_from(["bits", "classes"]))
@some
def test_noise_lies_in_the_interval_of_its_value(seed, kind):
    generator = torch.Generator().manual_seed(seed)
    family = Bernoulli((4,)) if kind == "bits" else Categorical((2, 5))
    raw = 3 * torch.randn(50, *family.shape, generator=generator, dtype=torch.double)
    noise = family.noise((50,), generator).double()
    lower, upper = noise_interval("z", family, raw, family.sample(raw, noise))
    used = noise if kind == "bits" else noise[..., 0]
    assert ((lower <= used) & (used <= upper)).all()
    full_values = family.distribution(raw).log_prob(family.sample(raw, noise)).exp()
    torch.testing.assert_close(upper - lower, full_values, atol=1e-12, rtol=0)


def test_states_are_counted_without_listing_them():
    graph = classes()
    assert count_states(graph, ["z", "a", "b"]) == 4 * 3 * 9
    assert count_states(graph, []) == 1
    assert count_states(bits(40), ["z"]) == 2**40


def test_no_tensors_count_as_one_row():
    assert count_rows({"a": torch.zeros(5, 2), "b": torch.zeros(5)}) == 5
    assert count_rows({}) == 1


def test_too_many_states_and_values_without_states_are_refused():
    check_count(bits(16), ["z"])
    with pytest.raises(ConfigError, match=rf"^nodes z have more than {MAX_STATES} states together$"):
        check_count(bits(17), ["z"])
    with pytest.raises(ConfigError, match=rf"^nodes z have more than {MAX_STATES} states together$"):
        check_count(bits(9), ["z", "z"])  # the values of both models
    with pytest.raises(ConfigError, match=r"^node 'y': its states cannot be listed; allowed: Bernoulli, Categorical"):
        enumerate_states(straight(), ["y"])


@pytest.mark.parametrize("family", [Categorical((3,), gumbel=True), Normal((3,))], ids=["gumbel", "normal"])
def test_only_quantiles_have_an_interval_of_noise(family):
    with pytest.raises(ConfigError, match=r"^node 'z': its values must be Bernoulli or Categorical without gumbel"):
        noise_interval("z", family, torch.zeros(1, *family.raw_shape), torch.zeros(1, 3))
