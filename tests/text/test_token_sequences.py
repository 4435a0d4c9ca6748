"""sets of sequences against lists of lists."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.core.batch import IGNORE
from kdzoo.errors import DataError
from kdzoo.text.token_sequences import TokenSequences, token_sequences_of

lists = st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=6)
some = settings(max_examples=100, deadline=None, derandomize=True)


@given(lists)
@some
def test_sequences_round_trip_through_lists(listed):
    sequences = TokenSequences.of(listed)
    assert sequences.to_lists() == listed
    assert [sequences[i].tolist() for i in range(len(sequences))] == listed
    assert sequences.n_prefixes == sum(len(row) + 1 for row in listed)
    assert sequences.sequence_ids.tolist() == [index for index, row in enumerate(listed) for _ in row]


@given(lists, st.data())
@some
def test_selected_sequences_come_in_the_order_of_the_selection(listed, data):
    index = data.draw(st.lists(st.integers(0, len(listed) - 1))) if listed else []
    chosen = TokenSequences.of(listed).select(torch.tensor(index, dtype=torch.int64))
    assert chosen.to_lists() == [listed[i] for i in index]


@given(lists, lists)
@some
def test_cat_keeps_the_order(first, second):
    assert TokenSequences.cat([TokenSequences.of(first), TokenSequences.of(second)]).to_lists() == first + second


@given(lists)
@some
def test_prefixes_and_edges_follow_each_sequence(listed):
    sequences = TokenSequences.of(listed)
    edges, first, last, prefix = [], [], [], 0
    for row in listed:
        first.append(prefix)
        for token in row:
            edges.append((prefix, prefix + 1, token))
            prefix += 1
        last.append(prefix)
        prefix += 1
    assert list(zip(*(part.tolist() for part in sequences.edges()), strict=True)) == edges
    assert sequences.first_prefixes().tolist() == first
    assert sequences.last_prefixes().tolist() == last


@given(lists.filter(bool))
@some
def test_inputs_begin_and_targets_end_with_the_end_token(listed):
    inputs, targets = TokenSequences.of(listed).inputs_and_targets(5)
    longest = max(map(len, listed))
    for sequence, row, target in zip(listed, inputs.tolist(), targets.tolist(), strict=True):
        padding = longest - len(sequence)
        assert row == [4, *sequence, *[4] * padding]
        assert target == [*sequence, 4, *[IGNORE] * padding]


def test_a_set_may_be_empty():
    empty = TokenSequences.of([])
    assert (len(empty), empty.n_prefixes, empty.to_lists()) == (0, 0, [])
    assert empty.padded(0).shape == (0, 0)
    assert [len(part) for part in empty.edges()] == [0, 0, 0]


def test_a_batch_gives_back_the_sequences_it_was_made_of():
    sequences = TokenSequences.of([[0, 1, 1], [], [2]])
    inputs, targets = sequences.inputs_and_targets(4)
    batch = {"input": inputs, "target": targets}
    assert token_sequences_of(batch | {"mask": targets != IGNORE}).to_lists() == sequences.to_lists()
    # Without a mask every position is a token, as in batches of chunks of equal length.
    assert token_sequences_of(batch).to_lists() == inputs[:, 1:].tolist()


def test_arrays_and_tensors_are_sequences_too():
    sequences = TokenSequences.of([np.array([1, 2], dtype=np.int16), torch.tensor([3]), (), np.array([])])
    assert sequences.to_lists() == [[1, 2], [3], [], []]


@pytest.mark.parametrize("wrong", [[0.5], [[1, 2]], "ab", 3, [True], [None]])
def test_anything_but_integers_is_refused_with_its_index(wrong):
    with pytest.raises(DataError, match="sequence 1 must hold integers"):
        TokenSequences.of([[0], wrong])


@pytest.mark.parametrize(
    ("tokens", "lengths", "message"),
    [
        ([0.0], [1], "tokens must be int64"),
        ([0], [[1]], "lengths must be int64"),
        ([0, 1], [1], "add up to the number of tokens, 2"),
        ([0], [2, -1], "lengths must be >= 0"),
    ],
)
def test_inconsistent_tensors_are_refused(tokens, lengths, message):
    with pytest.raises(DataError, match=message):
        TokenSequences(torch.tensor(tokens), torch.tensor(lengths))


@pytest.mark.parametrize(("token", "place"), [(2, 0), (-1, 1)])
def test_tokens_outside_the_alphabet_are_named(token, place):
    listed = [[0, 1], [], [1, 1]]
    listed[2][place] = token
    with pytest.raises(DataError, match=rf"sequence 2 has token {token} at position {place}; allowed: 0\.\.1"):
        TokenSequences.of(listed).check(3)
    TokenSequences.of(listed).check(4) if token > 0 else None
