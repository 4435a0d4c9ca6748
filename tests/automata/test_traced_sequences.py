"""TracedSequences: shapes, features and selection."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.errors import DataError

SEQUENCES = [[0, 1], [], [1]]


def probs_of(n, vocab=3):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(n, vocab, generator=generator, dtype=torch.float64)
    return drawn / drawn.sum(1, keepdim=True)


def test_flat_and_listed_arrays_are_the_same():
    hidden, probs = torch.arange(12.0).reshape(6, 2), probs_of(6)
    flat = TracedSequences.of(SEQUENCES, hidden, probs)
    listed = TracedSequences.of(
        SEQUENCES, list(hidden.split([3, 1, 2])), [one.numpy() for one in probs.split([3, 1, 2])]
    )
    assert flat.vocab_size == listed.vocab_size == 3
    assert torch.equal(flat.hidden, listed.hidden)
    assert torch.equal(flat.next_probs, listed.next_probs)


def test_symbols_follow_their_prefixes():
    assert TracedSequences.of(SEQUENCES, torch.zeros(6, 1)).symbols().tolist() == [0, 1, 2, 2, 1, 2]


def test_each_part_of_the_features_has_total_variance_one():
    seen = TracedSequences.of(SEQUENCES, 7 + 100 * torch.randn(6, 5), probs_of(6))
    for kind, width, variance in (("hidden", 5, 1), ("sqrt_probs", 3, 1), ("both", 8, 2)):
        features = seen.features(kind)
        assert features.shape == (6, width)
        assert float(features.var(0, correction=0).sum()) == pytest.approx(variance, rel=1e-5)
        assert torch.allclose(features.mean(0), torch.zeros(width), atol=1e-5)
    assert TracedSequences.of(SEQUENCES, torch.randn(6, 5)).features("both").shape == (6, 5)


@settings(max_examples=50, deadline=None)
@given(st.floats(-30, 30), st.floats(-8, 8), st.sampled_from([torch.float64, torch.float32]))
def test_features_are_the_same_for_hidden_states_of_any_scale_and_offset(power, offset, dtype):
    """The offset is 10^8 times the spread at most, of which float64 leaves 8 digits; float32 is only scaled."""
    hidden = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = 10.0**offset if dtype == torch.float64 else 0.0
    moved = ((hidden + shift) * 10.0**power).to(dtype)
    features, expected = (TracedSequences.of(SEQUENCES, values).features("hidden") for values in (moved, hidden))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 1e-40])
def test_equal_hidden_states_have_the_features_0(value):
    features = TracedSequences.of(SEQUENCES, torch.full((6, 5), value)).features("hidden")
    assert not features.any()


def test_distances_of_distributions_are_hellingers():
    """The Hellinger distance is that of the square roots; one factor scales all distances to unit variance."""
    probs = probs_of(6)
    distances = torch.pdist(TracedSequences.of(SEQUENCES, None, probs).features("sqrt_probs").double())
    hellinger = torch.pdist(probs.sqrt()) / 2**0.5
    ratio = distances / hellinger
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-5)


def test_select_takes_strings_with_their_prefixes():
    hidden = torch.arange(6.0)[:, None]
    part = TracedSequences.of(SEQUENCES, hidden, probs_of(6)).select(torch.tensor([2, 0]))
    assert part.strings.to_lists() == [[1], [0, 1]]
    assert part.hidden[:, 0].tolist() == [4, 5, 0, 1, 2]
    assert torch.equal(part.next_probs, probs_of(6)[[4, 5, 0, 1, 2]])


@pytest.mark.parametrize(
    ("hidden", "probs", "message"),
    [
        (torch.zeros(5, 2), None, r"hidden must have shape \[6, .\]"),
        ([torch.zeros(3, 2), torch.zeros(1, 2)], None, "one array for each of the 3 strings, got 2"),
        ([torch.zeros(3, 2), torch.zeros(2, 2), torch.zeros(1, 2)], None, r"hidden\[1\] must have shape \[1, .\]"),
        (torch.full((6, 1), torch.nan), None, "hidden must be finite"),
        (None, None, "need hidden or next_probs"),
        (None, probs_of(6) * 2, "next_probs must be >= 0 and sum to 1, got the sum 2 at prefix 0"),
    ],
)
def test_arrays_that_do_not_fit_are_named(hidden, probs, message):
    with pytest.raises(DataError, match=message):
        TracedSequences.of(SEQUENCES, hidden, probs, vocab_size=3)
