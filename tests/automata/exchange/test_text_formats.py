"""What the files of the formats look like, and what is refused when they are read."""

import json
import math

import pytest

from kdzoo.automata.exchange import read_dot, read_json, read_openfst, to_dot, write_dot, write_json, write_openfst
from kdzoo.automata.pfa import PFA
from kdzoo.automata.targets import tomita
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences
from tests.automata.exchange.common import AUTOMATA


def written(folder, text):
    path = folder / "file"
    path.write_text(text)
    return path


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
def test_bad_openfst(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_openfst(written(tmp_path, text))


def test_openfst_labels_beyond_the_tokens(tmp_path):
    with pytest.raises(DataError, match=r"file, line 1 has label '3'; allowed: an integer in 0..2"):
        read_openfst(written(tmp_path, "0 0 3 1\n"), n_tokens=2)


def test_dot_stacks_tokens_and_leaves_out_what_is_unlikely():
    pfa = PFA.from_parameters([1.0], [[[0.5]], [[0.3]], [[0.004]]], [0.196])
    text = to_dot(pfa, ["a", 'say "b"', "c"], threshold=0.01)
    assert text.count("->") == 1
    assert r'label="a .50\nsay \"b\" .30"' in text
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
def test_bad_dot(old, new, message, tmp_path):
    write_dot(tomita(1), tmp_path / "good")
    text = (tmp_path / "good").read_text()
    assert old in text
    with pytest.raises(DataError, match=message):
        read_dot(written(tmp_path, text.replace(old, new, 1)))


def test_empty_dot(tmp_path):
    with pytest.raises(DataError, match="file, line 1 is ''"):
        read_dot(written(tmp_path, ""))
    with pytest.raises(DataError, match="file has no states"):
        read_dot(written(tmp_path, "digraph pfa_of_2_tokens {\n}\n"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, 'file has another format; allowed: an object with "format": "kdzoo-pfa-1"'),
        ({"stop": None}, "file does not describe a valid automaton"),
        ({"stop": [0.5]}, "file does not describe a valid automaton: transitions and stop of state 0 must sum to 1"),
        ({"arcs": [[0, 0, 5, 1.0]]}, "file does not describe a valid automaton: index 5 is out of bounds"),
        ({"arcs": [[-1, 0, 0, 0.88]]}, "file does not describe a valid automaton: the arc .* has a negative index"),
        ({"arcs": [[0, 0]]}, "file does not describe a valid automaton"),
    ],
)
def test_bad_json(change, message, tmp_path):
    write_json(tomita(1), tmp_path / "good")
    value = json.loads((tmp_path / "good").read_text())
    with pytest.raises(DataError, match=message):
        read_json(written(tmp_path, json.dumps({**value, **change})))


def test_json_that_is_none(tmp_path):
    with pytest.raises(DataError, match="file, line 2 is not valid JSON"):
        read_json(written(tmp_path, '{"format":\n'))
    with pytest.raises(DataError, match="file has no key 'stop'"):
        read_json(written(tmp_path, '{"format": "kdzoo-pfa-1"}'))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="bytes cannot be read as text"):
        read_json(tmp_path / "bytes")
