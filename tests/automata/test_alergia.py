"""ALERGIA on strings of a known automaton."""

import pytest

from kdzoo.automata.alergia import alergia
from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences

PDFA = ([1.0, 0.0], [[[0.0, 0.7], [0.1, 0.0]], [[0.2, 0.0], [0.0, 0.5]]], [0.1, 0.4])


def test_alergia_finds_a_deterministic_automaton():
    pytest.importorskip("aalpy")
    truth = PFA.from_parameters(*PDFA)
    model = alergia(truth.sample(3000, seed=0, max_length=100), 3, eps=0.05)
    fresh = truth.sample(500, seed=1, max_length=100)
    assert float((truth.log_prob(fresh) - model.log_prob(fresh)).sum() / fresh.n_prefixes) < 5e-3
    assert model.states <= 10
    with pytest.raises(DataError, match="token 2"):
        alergia(TokenSequences.of([[2]]), 3)


def test_it_is_deterministic_and_knows_no_other_strings():
    pytest.importorskip("aalpy")
    model = alergia(TokenSequences.of([[0, 0]] * 20), 3)
    assert model.deterministic
    assert model.log_prob(TokenSequences.of([[0, 0], [1]])).exp().tolist() == [1.0, 0.0]


def test_eps_and_the_missing_package_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="eps must be finite and > 0, got 0"):
        alergia(TokenSequences.of([[0]]), 3, eps=0)
    monkeypatch.setitem(__import__("sys").modules, "aalpy", None)
    with pytest.raises(ConfigError, match="alergia needs aalpy: pip install"):
        alergia(TokenSequences.of([[0]]), 3)
