"""The texts on states and edges of a drawing."""

import pytest

from kdzoo.automata.labels import MAX_LINES, edge_labels, format_probability, state_label, token_names
from kdzoo.automata.pfa import PFA
from kdzoo.errors import ConfigError
from tests.reference.automata import random_parameters


def test_labels():
    edges = list(edge_labels(PFA(vocab_size=8, states=1), token_names(["\n", " ", *"abcde"], 7)))
    assert [edge.label for edge in edges] == ["\\n: .12\n␣: .12\na: .12\nb: .12\n+3 more"]
    assert [format_probability(p) for p in (1.0, 0.994, 0.1, 0.005, 0.0049)] == ["1", ".99", ".10", ".01", "<.01"]
    assert state_label(2, 0.0) == "2"


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2])
def test_edges_hold_all_transitions_from_the_threshold_on(threshold):
    pfa = PFA.from_parameters(*random_parameters(3, 6, 0, density=0.7))
    expected = {}
    for token, source, target in (pfa.transitions > 0).nonzero().tolist():
        if float(pfa.transitions[token, source, target]) >= threshold:
            expected.setdefault((source, target), {})[token] = float(pfa.transitions[token, source, target])
    edges = list(edge_labels(pfa, token_names(None, 6), threshold))
    assert {(edge.source, edge.target): dict(edge.tokens) for edge in edges} == expected
    for edge in edges:
        probabilities = [probability for _, probability in edge.tokens]
        assert probabilities == sorted(probabilities, reverse=True)
        assert edge.probability == pytest.approx(sum(probabilities))
        assert edge.label.count("\n") + 1 == min(len(probabilities), MAX_LINES + 1)


def test_names_and_thresholds_that_do_not_fit_are_refused():
    assert token_names(None, 3) == ("0", "1", "2")
    with pytest.raises(ConfigError, match="symbols must be 3 names, one for each token, got 2"):
        token_names(["a", "b"], 3)
    with pytest.raises(ConfigError, match=r"threshold must be in \[0, 1\), got 1"):
        list(edge_labels(PFA(2), ["a"], 1))
