"""Sets of strings against lists of lists."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.core.batch import IGNORE
from kdzoo.core.batch import IGNORE as IGNORE_OF_DATA
from kdzoo.errors import DataError
from kdzoo.text.token_sequences import TokenSequences

lists = st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=6)
some = settings(max_examples=100, deadline=None, derandomize=True)


@given(lists)
@some
def test_strings_come_back_as_they_were(listed):
    strings = TokenSequences.of(listed)
    assert strings.to_lists() == listed
    assert [strings[i].tolist() for i in range(len(strings))] == listed
    assert strings.n_prefixes == sum(len(one) + 1 for one in listed)
    assert strings.sequence_ids.tolist() == [number for number, one in enumerate(listed) for _ in one]


@given(lists, st.data())
@some
def test_selected_strings_come_in_the_order_of_the_selection(listed, data):
    index = data.draw(st.lists(st.integers(0, len(listed) - 1))) if listed else []
    chosen = TokenSequences.of(listed).select(torch.tensor(index, dtype=torch.int64))
    assert chosen.to_lists() == [listed[i] for i in index]


@given(lists, lists)
@some
def test_sets_are_joined_in_order(first, second):
    assert TokenSequences.cat([TokenSequences.of(first), TokenSequences.of(second)]).to_lists() == first + second


@given(lists)
@some
def test_points_and_edges_follow_each_string(listed):
    strings = TokenSequences.of(listed)
    edges, roots, lasts, point = [], [], [], 0
    for one in listed:
        roots.append(point)
        for token in one:
            edges.append((point, point + 1, token))
            point += 1
        lasts.append(point)
        point += 1
    assert list(zip(*(part.tolist() for part in strings.edges()), strict=True)) == edges
    assert strings.first_prefixes().tolist() == roots
    assert strings.last_prefixes().tolist() == lasts


@given(lists.filter(bool))
@some
def test_inputs_begin_and_targets_end_with_the_end_token(listed):
    inputs, targets = TokenSequences.of(listed).inputs_and_targets(5)
    longest = max(map(len, listed))
    for string, row, target in zip(listed, inputs.tolist(), targets.tolist(), strict=True):
        padding = longest - len(string)
        assert row == [4, *string, *[4] * padding]
        assert target == [*string, 4, *[IGNORE] * padding]


def test_no_strings_are_a_set_as_well():
    empty = TokenSequences.of([])
    assert (len(empty), empty.n_prefixes, empty.to_lists()) == (0, 0, [])
    assert empty.padded(0).shape == (0, 0)
    assert [len(part) for part in empty.edges()] == [0, 0, 0]


def test_the_label_to_ignore_is_that_of_the_data():
    assert IGNORE == IGNORE_OF_DATA


def test_arrays_and_tensors_are_sequences_too():
    strings = TokenSequences.of([np.array([1, 2], dtype=np.int16), torch.tensor([3]), (), np.array([])])
    assert strings.to_lists() == [[1, 2], [3], [], []]


@pytest.mark.parametrize("wrong", [[0.5], [[1, 2]], "ab", 3, [True], [None]])
def test_what_holds_no_integers_is_refused_with_its_number(wrong):
    with pytest.raises(DataError, match="string 1 must be a sequence of integers"):
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
def test_tensors_that_make_no_strings_are_refused(tokens, lengths, message):
    with pytest.raises(DataError, match=message):
        TokenSequences(torch.tensor(tokens), torch.tensor(lengths))


@pytest.mark.parametrize(("token", "place"), [(2, 0), (-1, 1)])
def test_tokens_outside_the_alphabet_are_named(token, place):
    listed = [[0, 1], [], [1, 1]]
    listed[2][place] = token
    with pytest.raises(DataError, match=rf"string 2 has token {token} at position {place}; allowed: 0\.\.1"):
        TokenSequences.of(listed).check(3)
    TokenSequences.of(listed).check(4) if token > 0 else None
