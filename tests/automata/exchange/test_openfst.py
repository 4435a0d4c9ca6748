"""OpenFst acceptors against summing the weights of paths, and what is refused."""

import math

import pytest
import torch

from kdzoo.automata.exchange.openfst import read_openfst, write_openfst
from kdzoo.automata.targets import tomita
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences
from tests.automata.exchange.conftest import AUTOMATA, assert_same_strings, written


def cost(transducer, labels):
    """Total weight of a string in an acceptor's text, summed over paths: an oracle of a few lines."""
    rows = [line.split() for line in transducer.splitlines()]
    weights = {rows[0][0]: 1.0}

    def spread(weights, label):
        reached = {}
        for source, target, *rest in (row for row in rows if len(row) == 4):
            if rest[0] == str(label) and source in weights:
                reached[target] = reached.get(target, 0.0) + weights[source] * math.exp(-float(rest[1]))
        return reached

    for label in labels:
        weights = spread({**weights, **spread(weights, 0)}, label)
    weights = {**weights, **spread(weights, 0)}
    return sum(weights.get(row[0], 0.0) * math.exp(-float(row[1])) for row in rows if len(row) == 2)


@pytest.mark.parametrize("name", ["tomita", "pnfa"])
def test_an_openfst_acceptor_gives_every_string_its_weight(name, tmp_path):
    pfa = AUTOMATA[name]
    write_openfst(pfa, tmp_path / "a.txt")
    text = (tmp_path / "a.txt").read_text()
    for string in [[], [0], [1, 1, 0], [0, 1, 1, 0, 0]]:
        expected = float(pfa.log_prob(TokenSequences.of([string])).exp())
        assert cost(text, [token + 1 for token in string]) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_openfst_symbol_table(tmp_path):
    write_openfst(tomita(1), tmp_path / "a.txt", symbols_path=tmp_path / "symbols", symbols=["zero", "one"])
    assert (tmp_path / "symbols").read_text() == "<eps>\t0\nzero\t1\none\t2\n"
    with pytest.raises(ConfigError, match="symbols must not contain white space, got 'o n e'"):
        write_openfst(tomita(1), tmp_path / "a.txt", symbols_path=tmp_path / "symbols", symbols=["0", "o n e"])
    with pytest.raises(ConfigError, match="symbols must be 2 names, one for each token, got 1"):
        write_openfst(tomita(1), tmp_path / "a.txt", symbols_path=tmp_path / "symbols", symbols=["0"])


def test_openfst_defaults_and_any_order_of_states(tmp_path):
    pfa = read_openfst(written(tmp_path, "2 0 1\n0\n1 0 2 0.6931471805599453\n1 0.6931471805599453\n"))
    assert (pfa.states, pfa.n_tokens, pfa.initial.tolist()) == (3, 2, [0, 0, 1])
    assert pfa.log_prob(TokenSequences.of([[0], []])).exp().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", "file has no arcs and no final states"),
        ("0 0 1 0.5 0.5\n", "file, line 1 has 5 fields; allowed: 'source target label weight' or 'state weight'"),
        ("0 0 a 0.5\n", "file, line 1 has label 'a'; allowed: an integer >= 0"),
        ("0 x 1 0.5\n", "file, line 1 has state 'x'"),
        ("0 0 1 heavy\n", "file, line 1 has weight 'heavy'"),
        ("0 0 1 -3\n", "file, line 1 has weight '-3'"),
        ("0 1 1 0\n1 0 0 0\n", "file, line 2 has the label 0 from 1 to 0; allowed: from the initial state 0 to others"),
        ("0 1 0 0\n0 0\n1 0\n", "file has both label 0 and other labels at its initial state 0"),
        ("0 0 1 0.5\n0 0.5\n", "file: transitions and stop of state 0 must sum to 1"),
    ],
)
def test_invalid_acceptors_are_refused(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_openfst(written(tmp_path, text))


def test_openfst_labels_beyond_the_tokens(tmp_path):
    with pytest.raises(DataError, match=r"file, line 1 has label '3'; allowed: an integer in 0..2"):
        read_openfst(written(tmp_path, "0 0 3 1\n"), n_tokens=2)


@pytest.mark.parametrize("name", AUTOMATA)
def test_round_trip(name, tmp_path):
    pfa = AUTOMATA[name]
    write_openfst(pfa, tmp_path / "automaton")
    again = read_openfst(tmp_path / "automaton", n_tokens=pfa.n_tokens)
    assert again.n_tokens == pfa.n_tokens
    assert_same_strings(pfa, again)
    assert again.states == pfa.states
    torch.testing.assert_close(again.stop, pfa.stop, rtol=1e-12, atol=0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent does not exist; allowed: a"):
        read_openfst(tmp_path / "absent")
