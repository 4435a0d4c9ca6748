"""Matrices of hidden Markov models against enumeration of state paths."""

import numpy as np
import pytest

from kdzoo.automata.exchange.hmmlearn import from_hmm, to_hmm
from kdzoo.automata.targets import random_hmm, random_pnfa
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences
from tests.automata.exchange.conftest import AUTOMATA, assert_same_strings


def hmm_probability(hmm, string, end):
    """Probability that a hidden Markov model emits the tokens and then the end, by enumeration of state paths."""
    belief = hmm.startprob_
    for token in string:
        belief = (belief * hmm.emissionprob_[:, token]) @ hmm.transmat_
    return float(belief @ hmm.emissionprob_[:, end])


@pytest.mark.parametrize("name", AUTOMATA)
def test_an_hmm_emits_the_strings_with_their_ends(name):
    pfa = AUTOMATA[name]
    hmm = to_hmm(pfa)
    for part in (hmm.startprob_, hmm.transmat_, hmm.emissionprob_):
        np.testing.assert_allclose(part.sum(-1), 1, atol=1e-12)
        assert part.min() >= 0
    for string in pfa.sample(20, seed=1, max_length=50).to_lists():
        expected = float(pfa.log_prob(TokenSequences.of([string])).exp())
        assert hmm_probability(hmm, string, pfa.n_tokens) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_true_hmm_keeps_its_number_of_states():
    assert len(to_hmm(random_hmm(9, 5, seed=2)).startprob_) == 9 + 1
    pnfa = random_pnfa(9, 5, seed=1)
    assert 9 + 1 < len(to_hmm(pnfa).startprob_) <= int((pnfa.emissions[:, :-1] > 0).sum()) + 1


def test_matrices_of_hmms_are_checked():
    with pytest.raises(ConfigError, match=r"transmat must be \[2, 2\] and emissionprob \[2, S \+ 1\]"):
        from_hmm([0.5, 0.5], np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(ConfigError, match=r"row 1 of transmat must sum to 1, got 0\.5"):
        from_hmm([0.5, 0.5], [[1, 0], [0.5, 0]], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ConfigError, match="stop of state 0 must sum to 1"):
        from_hmm([1.0], [[1.0]], [[0.5, 0.4]])


def test_the_same_strings_by_either_way():
    pfa = AUTOMATA["pdfa"]
    assert_same_strings(pfa, from_hmm(*to_hmm(from_hmm(*to_hmm(pfa)))))


@pytest.mark.parametrize("name", AUTOMATA)
def test_round_trip(name):
    pfa = AUTOMATA[name]
    hmm = to_hmm(pfa)
    again = from_hmm(*hmm)
    assert again.n_tokens == pfa.n_tokens
    assert_same_strings(pfa, again)
