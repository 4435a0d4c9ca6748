"""DOT text: what it shows, what other parsers read, and what is refused."""

import pytest
import torch

from kdzoo.automata.exchange.dot import read_dot, to_dot, write_dot
from kdzoo.automata.pfa import PFA
from kdzoo.automata.targets import tomita
from kdzoo.errors import DataError
from tests.automata.exchange.conftest import AUTOMATA, assert_same_strings, written


def test_dot_stacks_tokens_and_leaves_out_what_is_unlikely():
    pfa = PFA.from_parameters([1.0], [[[0.5]], [[0.3]], [[0.004]]], [0.196])
    text = to_dot(pfa, ["a", 'say "b"', "c"], threshold=0.01)
    assert text.count("->") == 1
    assert r'label="a: .50\nsay \"b\": .30"' in text
    assert "penwidth=3.3," in text
    assert "2:0.004" not in text
    assert "2:0.004" in to_dot(pfa)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydot calls old names of pyparsing
def test_dot_is_read_by_graphviz_parsers(tmp_path):
    pydot = pytest.importorskip("pydot")
    pfa = AUTOMATA["pnfa"]
    (graph,) = pydot.graph_from_dot_data(to_dot(pfa))
    assert len([node for node in graph.get_nodes() if node.get_name().isdigit()]) == pfa.states
    assert len(graph.get_edges()) == int((pfa.transitions.sum(0) > 0).sum())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("digraph pfa_of_2_tokens {", "digraph {", "file, line 1 is 'digraph {'; allowed: 'digraph pfa_of_S_tokens {'"),
        ("rankdir=LR;", "0 -> 1;", "file, line 2 is '0 -> 1;'; allowed: a node with initial and stop, or an edge"),
        ("  0 [", "  7 [", "file, line 4 has state 7; allowed: 0, the next one"),
        ('tokens="1:0.88"', 'tokens="2:0.88"', "file, line 5 has token '2'; allowed: an integer in 0..1"),
        ('tokens="1:0.88"', 'tokens="1"', "file, line 5 has probability ''; allowed: a number in 0..1"),
        ('tokens="1:0.88"', 'tokens="1:0.8"', "file: transitions and stop of state 0 must sum to 1"),
        ("0 -> 0", "0 -> 1", "file, line 5 has state '1'; allowed: an integer in 0..0"),
    ],
)
def test_invalid_dot_is_refused(old, new, message, tmp_path):
    write_dot(tomita(1), tmp_path / "good")
    text = (tmp_path / "good").read_text()
    assert old in text
    with pytest.raises(DataError, match=message):
        read_dot(written(tmp_path, text.replace(old, new, 1)))


def test_dot_without_states_is_refused(tmp_path):
    with pytest.raises(DataError, match="file, line 1 is ''"):
        read_dot(written(tmp_path, ""))
    with pytest.raises(DataError, match="file has no states"):
        read_dot(written(tmp_path, "digraph pfa_of_2_tokens {\n}\n"))


@pytest.mark.parametrize("name", AUTOMATA)
def test_round_trip(name, tmp_path):
    pfa = AUTOMATA[name]
    write_dot(pfa, tmp_path / "automaton")
    again = read_dot(tmp_path / "automaton")
    assert again.n_tokens == pfa.n_tokens
    assert_same_strings(pfa, again)
    assert torch.equal(again.transitions, pfa.transitions)
    assert torch.equal(again.initial, pfa.initial)
    assert again.states == pfa.states
    torch.testing.assert_close(again.stop, pfa.stop, rtol=1e-12, atol=0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent does not exist; allowed: a"):
        read_dot(tmp_path / "absent")
