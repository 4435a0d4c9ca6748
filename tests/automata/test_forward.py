"""Layers of points and the scaled forward recursion against one string at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata import forward
from kdzoo.automata.forward import advance, layers, log_prob, normalise, scaled_forward
from kdzoo.text.token_sequences import TokenSequences
from tests.reference.automata import random_parameters, string_prob

lists = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=7)
property_settings = settings(max_examples=80, deadline=None, derandomize=True)


def tensors(parameters):
    return tuple(torch.from_numpy(np.asarray(one)) for one in parameters)


@given(lists)
@property_settings
def test_each_point_is_in_one_layer_after_its_source(listed):
    trellis = layers(TokenSequences.of(listed))
    assert len(trellis) == 1 + max(map(len, listed))
    for depth, layer in enumerate(trellis):
        numbers = layer.string.tolist()
        assert sorted(numbers) == [i for i, one in enumerate(listed) if len(one) >= depth]
        assert sorted(layer.string[layer.lasts].tolist()) == [i for i, one in enumerate(listed) if len(one) == depth]
        if depth:
            assert trellis[depth - 1].string[layer.source].tolist() == numbers
            runs = [(token, numbers[first:end]) for token, first, end in layer.groups]
            assert [i for _, members in runs for i in members] == numbers
            assert all(listed[i][depth - 1] == token for token, members in runs for i in members)
            assert len({token for token, _ in runs}) == len(runs)


@given(lists, st.integers(1, 4), st.integers(0, 99))
@property_settings
def test_log_probabilities_are_those_of_the_plain_recursion(listed, states, seed):
    parameters = random_parameters(states, 3, seed, density=0.7)
    with np.errstate(divide="ignore"):
        expected = np.log([string_prob(*parameters, one) for one in listed])
    np.testing.assert_allclose(
        log_prob(*tensors(parameters), TokenSequences.of(listed)), expected, rtol=1e-12, atol=1e-12
    )


def test_chunks_do_not_change_the_result(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 9, (50,), generator=generator)
    strings = TokenSequences(torch.randint(0, 3, (int(lengths.sum()),), generator=generator), lengths)
    parameters = tensors(random_parameters(4, 3, 1))
    whole = log_prob(*parameters, strings)
    monkeypatch.setattr(forward, "CELLS", 12)
    assert len(forward.chunks(strings, 4)) == 17
    torch.testing.assert_close(log_prob(*parameters, strings), whole, rtol=1e-14, atol=0)


@given(lists, st.integers(1, 4), st.integers(0, 99))
@property_settings
def test_beliefs_are_distributions_and_scales_their_probabilities(listed, states, seed):
    initial, transitions, _ = parameters = random_parameters(states, 3, seed, density=0.8)
    trellis = layers(TokenSequences.of(listed))
    ones = np.ones(states)
    for depth, (layer, (belief, scale)) in enumerate(
        zip(trellis, scaled_forward(*tensors(parameters[:2]), trellis), strict=True)
    ):
        prefixes = [listed[i][:depth] for i in layer.string.tolist()]
        mass = np.array([string_prob(initial, transitions, ones, one) for one in prefixes])
        np.testing.assert_allclose(belief.sum(1), mass > 0, atol=1e-12)
        if depth:
            before = np.array([string_prob(initial, transitions, ones, one[:-1]) for one in prefixes])
            np.testing.assert_allclose(scale, np.divide(mass, before, out=np.zeros_like(mass), where=before > 0))


@given(st.lists(st.integers(0, 3), max_size=9), st.integers(0, 99))
@property_settings
def test_each_row_is_multiplied_by_the_matrix_of_its_token(tokens, seed):
    rng = np.random.default_rng(seed)
    rows, matrices = rng.random((len(tokens), 3)), rng.random((4, 3, 2))
    products = advance(torch.from_numpy(rows), torch.from_numpy(matrices), torch.tensor(tokens, dtype=torch.int64))
    expected = [row @ matrices[token] for row, token in zip(rows, tokens, strict=True)]
    np.testing.assert_allclose(products, np.reshape(expected, (len(tokens), 2)), rtol=1e-13)


def test_rows_of_zeros_stay_zeros():
    rows, total = normalise(torch.tensor([[0.0, 0.0], [1.0, 3.0], [5e-324, 0.0]], dtype=torch.float64))
    assert rows.tolist() == [[0.0, 0.0], [0.25, 0.75], [1.0, 0.0]]
    assert total.tolist() == [0.0, 4.0, 5e-324]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_is_that_of_the_parameters(dtype):
    parameters = (one.to(dtype) for one in tensors(random_parameters(3, 2, 0)))
    assert log_prob(*parameters, TokenSequences.of([[0, 1], []])).dtype == dtype
