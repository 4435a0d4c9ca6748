import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.core.randomness import mix_seed, permutation, uniform_ints
from kdzoo.errors import ConfigError

MASK = (1 << 64) - 1


def splitmix64_stream(state, count):
    """The generator as published: a counter that grows by the golden ratio, then the finaliser."""
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def test_reference_stream_matches_the_published_first_outputs():
    assert list(splitmix64_stream(1234567, 3)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_mix_seed_is_the_published_finaliser():
    (state,) = splitmix64_stream(1, 1)
    assert mix_seed(5) == next(splitmix64_stream(state ^ 5, 1)) >> 1


@given(st.lists(st.integers(-(2**70), 2**70), max_size=5))
def test_mix_seed_is_a_63_bit_integer(values):
    assert 0 <= mix_seed(*values) < 2**63


def test_mix_seed_has_no_collisions_on_a_grid():
    seeds = {mix_seed(a, b) for a in range(200) for b in range(200)}
    assert len(seeds) == 200 * 200


@given(
    st.integers(0, 2**40),
    st.integers(0, 1000),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=8),
    st.integers(1, 2**31),
)
def test_scalar_reference_of_uniform_ints(seed, epoch, index, high):
    key = mix_seed(seed, epoch, 3)
    expected = [((next(splitmix64_stream(i ^ key, 1)) >> 32) * high) >> 32 for i in index]
    drawn = uniform_ints(seed, epoch, index, 3, high)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == expected
    assert all(0 <= value < high for value in expected)


@pytest.mark.parametrize("vary", ["seed", "epoch", "index", "stream"])
def test_uniform_ints_is_uniform_along_every_coordinate(vary):
    n, high = 5000, 5
    if vary == "index":
        drawn = uniform_ints(1, 2, np.arange(n), 3, high)
    else:
        fixed = {"seed": 1, "epoch": 2, "index": [4], "stream": 3, "high": high}
        drawn = np.concatenate([uniform_ints(**{**fixed, vary: value}) for value in range(n)])
    counts = np.bincount(drawn, minlength=high)
    chi2 = ((counts - n / high) ** 2 / (n / high)).sum()
    assert chi2 < 18.5  # 0.999 quantile of chi-squared with 4 degrees of freedom
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.06


@pytest.mark.parametrize("high", [0, -1, 2**31 + 1])
def test_high_out_of_range(high):
    with pytest.raises(ConfigError, match=f"high must be in 1..2\\*\\*31, got {high}"):
        uniform_ints(0, 0, [0], 0, high)


def test_permutation_is_a_function_of_its_key():
    assert permutation(50, 1, 2).tolist() == permutation(50, 1, 2).tolist()
    assert permutation(50, 1, 2).tolist() != permutation(50, 2, 1).tolist()
    assert sorted(permutation(50, 1, 2).tolist()) == list(range(50))
