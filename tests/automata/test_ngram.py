"""N-grams against Witten and Bell's interpolation from dictionaries."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.ngram import ngram
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.language_model import LanguageModel, sequence_log_probs
from kdzoo.text.token_sequences import TokenSequences

STRINGS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=8)


def reference_ngram(sequences, order, vocab):
    """Witten and Bell's interpolation from dictionaries; a function of history and symbol."""
    counts = {}
    for sequence in sequences:
        history = ["^"]
        for symbol in [*sequence, vocab - 1]:
            for length in range(order):
                if length <= len(history):
                    counts.setdefault(tuple(history[len(history) - length :]), Counter())[symbol] += 1
            history.append(symbol)

    def probability(history, symbol):
        known = [n for n in range(order) if n <= len(history) and tuple(history[len(history) - n :]) in counts]
        value = 1 / vocab
        for length in known:
            seen = counts[tuple(history[len(history) - length :])]
            value = (seen[symbol] + len(seen) * value) / (sum(seen.values()) + len(seen))
        return value

    return probability


@settings(max_examples=25, deadline=None)
@given(sequences=STRINGS, tests=STRINGS, order=st.integers(1, 4))
def test_ngrams_equal_their_definition(sequences, tests, order):
    model = ngram(TokenSequences.of(sequences), order, 4)
    probability = reference_ngram(sequences, order, 4)
    for sequence in tests:
        history, wanted = ["^"], 0.0
        for symbol in [*sequence, 3]:
            wanted += math.log(probability(history, symbol))
            history.append(symbol)
        strings = TokenSequences.of([sequence])
        assert float(model.log_prob(strings)) == pytest.approx(wanted, rel=1e-9)
        assert float(model.to_pfa().log_prob(strings)) == pytest.approx(wanted, rel=1e-9)


def test_ngram_steps_give_the_same_predictions_as_its_automaton():
    model = ngram(TokenSequences.of([[0, 1, 1], [1], []]), 3, 3)
    pfa, tokens = model.to_pfa(), torch.tensor([0, 1])
    state, belief = model.step(model.initial_state(2), tokens), pfa.step(pfa.initial_state(2), tokens)
    torch.testing.assert_close(model.next_log_probs(state), pfa.next_log_probs(belief))
    with pytest.raises(ConfigError, match="order must be smaller for 3 symbols, got 60"):
        ngram(TokenSequences.of([[0]]), 60, 3)


def test_it_is_a_language_model_with_the_same_log_probabilities():
    strings = TokenSequences.of([[0, 1, 1], [1], [], [0, 0]])
    model = ngram(strings, 2, 3)
    assert isinstance(model, LanguageModel)
    torch.testing.assert_close(sequence_log_probs(model, strings), model.log_prob(strings))
    assert model.n_parameters == 2 * model.probs.shape[0]


def test_tokens_and_orders_out_of_range_are_refused():
    with pytest.raises(DataError, match="sequence 0 has token 2 at position 0"):
        ngram(TokenSequences.of([[2]]), 2, 3)
    with pytest.raises(ConfigError, match="order must be an integer >= 1, got 0"):
        ngram(TokenSequences.of([[0]]), 0, 3)
