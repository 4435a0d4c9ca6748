"""The functions on language models, with a Markov chain whose probabilities are known."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.language_model import (
    LanguageModel,
    Trace,
    inference,
    sample,
    select,
    sequence_log_probs,
    stepwise_trace,
    trace,
    trace_token_sequences,
)
from kdzoo.text.token_sequences import TokenSequences

END = 2
P = np.array([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4], [0.7, 0.3, 0.0]])  # rows: last token 0, 1, none; columns: 0, 1, end


class Chain:
    """A Markov chain over two tokens, which is not a torch module; its state is the last token, in an object."""

    vocab_size = 3

    def __init__(self, p=P):
        self.p = torch.as_tensor(p)

    def initial_state(self, n):
        return LastToken(torch.full((n,), END))

    def step(self, state, token):
        assert len(state.last) == len(token)
        assert token.max() < END
        return LastToken(token)

    def next_log_probs(self, state):
        return self.p[state.last].log()

    def hidden(self, state):
        return nn.functional.one_hot(state.last, 3).double()


class LastToken:
    def __init__(self, last):
        self.last = last

    def select(self, index):
        return LastToken(self.last[index])


def probability(sequence, p=P):
    last, total = END, 1.0
    for symbol in (*sequence, END):
        total *= p[last][symbol]
        last = symbol
    return total


def all_sequences(longest):
    return [s for length in range(longest + 1) for s in itertools.product((0, 1), repeat=length)]


sequence_lists = st.lists(st.lists(st.integers(0, 1), max_size=6), min_size=1, max_size=6)


def test_a_chain_is_a_language_model_and_a_module_is_not():
    assert isinstance(Chain(), LanguageModel)
    assert not isinstance(nn.Linear(2, 2), LanguageModel)


@settings(deadline=None, max_examples=50)
@given(sequence_lists, st.integers(1, 7))
def test_log_probabilities_are_those_of_the_chain(sequences, batch_size):
    result = sequence_log_probs(Chain(), TokenSequences.of(sequences), batch_size=batch_size).exp()
    np.testing.assert_allclose(result, [probability(s) for s in sequences], rtol=1e-12)


def test_impossible_sequences_have_probability_zero():
    result = sequence_log_probs(Chain(), TokenSequences.of([[1, 1], [0], []]))
    assert result.tolist() == pytest.approx([-math.inf, math.log(0.7 * 0.3), -math.inf])
    assert sequence_log_probs(Chain(), TokenSequences.of([])).shape == (0,)


@settings(deadline=None, max_examples=50)
@given(sequence_lists, st.integers(1, 7))
def test_the_order_of_prefixes_does_not_depend_on_the_batches(sequences, batch_size):
    result = trace_token_sequences(Chain(), TokenSequences.of(sequences), batch_size=batch_size)
    last = [token for sequence in sequences for token in (END, *sequence)]
    np.testing.assert_allclose(result.log_probs.exp(), P[last], rtol=1e-12)
    assert result.hidden.argmax(1).tolist() == last


def test_padding_never_reaches_the_step_of_a_model():
    inputs, targets = TokenSequences.of([[0, 1, 0], []]).inputs_and_targets(3)
    valid = targets != IGNORE
    traced = trace(Chain(), inputs)
    assert traced.hidden.shape == traced.log_probs.shape == (2, 4, 3)
    np.testing.assert_allclose(traced.log_probs.exp()[valid], P[[END, 0, 1, 0, END]], rtol=1e-12)


def test_a_model_with_a_trace_of_its_own_uses_it():
    class Faster(Chain):
        def trace(self, input):
            return Trace(torch.full((1, 1, 3), 7.0), torch.zeros(1, 1, 3).log_softmax(-1))

    assert trace(Faster(), torch.tensor([[END]])).hidden.unique().tolist() == [7.0]
    assert stepwise_trace(Faster(), torch.tensor([[END]])).hidden.shape == (1, 1, 3)


def test_samples_have_the_frequencies_of_the_chain():
    n = 40_000
    sequences = sample(Chain(), n, max_length=60, seed=0, batch_size=15_000)
    assert len(sequences) == n
    counts: dict[tuple[int, ...], int] = {}
    for one in sequences.to_lists():
        counts[tuple(one)] = counts.get(tuple(one), 0) + 1
    assert all(probability(one) > 0 for one in counts)
    for one in all_sequences(5):
        p = probability(one)
        assert abs(counts.get(one, 0) - n * p) <= 5 * math.sqrt(n * p * (1 - p)), one


def test_symbols_of_probability_zero_are_never_drawn_whatever_the_order():
    for p in ([0.0, 0.0, 1.0], [0.0, 0.5, 0.5], [1e-30, 0.0, 1.0]):
        sequences = sample(Chain(np.array([p] * 3)), 2000, max_length=3, seed=1)
        assert not (sequences.tokens == 0).any()
        assert p[1] > 0 or not len(sequences.tokens)


def test_draws_do_not_depend_on_the_scale_of_the_probabilities():
    # rounding errors of a model make totals such as 1.0000001
    first, second = (sample(Chain(P * scale), 500, max_length=20, seed=3) for scale in (1, 1.0001))
    assert torch.equal(first.tokens, second.tokens)


def test_the_seed_determines_the_samples_and_leaves_the_global_generator_alone():
    first, again, other = (sample(Chain(), 200, max_length=20, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.lengths, again.lengths)
    assert first.to_lists() != other.to_lists()
    state = torch.get_rng_state()
    sample(Chain(), 10, max_length=20, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_long_sequences_are_cut():
    endless = Chain(np.array([[1.0, 0.0, 0.0]] * 3))
    assert sample(endless, 3, max_length=5, seed=0).to_lists() == [[0] * 5] * 3
    assert sample(Chain(), 0, max_length=5, seed=0).to_lists() == []


@pytest.mark.parametrize(
    "row", [[0.0, 0.0, 0.0], [math.nan, 0.5, 0.5], [math.inf, 0.0, 0.0], [0.2, 0.1, 0.07], [2, 1, 1]]
)
def test_a_model_without_a_distribution_is_refused(row):
    with pytest.raises(ConfigError, match=r"^Chain does not give a distribution of the next symbol"):
        sample(Chain(np.array([row] * 3)), 2, max_length=5, seed=0)


def test_a_trace_whose_probabilities_do_not_add_up_is_refused():
    with pytest.raises(ConfigError, match=r"must add up to 1, got 0\.37"):
        trace(Chain(np.array([[0.2, 0.1, 0.07]] * 3)), torch.tensor([[2, 0, 1]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n must be an integer >= 0, got -1"),
        ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments_of_sample_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        sample(Chain(), **{"n": 1, "max_length": 5, "seed": 0, **options})


@pytest.mark.parametrize("input", [torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), torch.zeros(2, 0).long()])
def test_bad_inputs_are_refused(input):
    with pytest.raises(ConfigError, match=r"^input must be int64 \[b, T >= 1\], got torch\."):
        trace(Chain(), input)


@pytest.mark.parametrize("evaluate", [sequence_log_probs, trace_token_sequences])
def test_tokens_outside_of_the_alphabet_are_refused(evaluate):
    with pytest.raises(DataError, match=r"^sequence 1 has token 2 at position 0; allowed: 0\.\.1$"):
        evaluate(Chain(), TokenSequences.of([[0], [2]]))
    with pytest.raises(ConfigError, match=r"^batch_size must be an integer >= 1, got 0$"):
        evaluate(Chain(), TokenSequences.of([[0]]), batch_size=0)


def test_states_are_selected_inside_of_tuples_and_objects():
    index = torch.tensor([2, 0])
    tensor, (wrapped, nested) = select((torch.arange(3), (LastToken(torch.arange(3)), (torch.eye(3),))), index)
    assert tensor.tolist() == wrapped.last.tolist() == [2, 0]
    assert torch.equal(nested[0], torch.eye(3)[index])


def test_inference_restores_the_mode_of_every_module_also_after_an_error():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    model[1].eval()

    def fails():
        with inference(model):
            assert not any(module.training for module in model.modules())
            assert not model(torch.zeros(1, 2)).requires_grad
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [module.training for module in model.modules()] == [True, True, False, False, False]
    assert torch.is_grad_enabled()
