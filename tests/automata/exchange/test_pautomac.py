"""The text formats of the PAutomaC competition: their meaning, round trips, and what is refused."""

import pytest
import torch

from kdzoo.automata.exchange.pautomac import (
    read_model,
    read_solution,
    read_strings,
    write_model,
    write_solution,
    write_strings,
)
from kdzoo.errors import DataError
from kdzoo.text.token_sequences import TokenSequences
from tests.automata.exchange.conftest import AUTOMATA, assert_same_strings, written

MODEL = """I: (state)
\t(0) 0.25
\t(1) 0.75
F: (state)
\t(1) 0.5
S: (state,symbol) \n\t(0,0) 0.4
\t(0,1) 0.6
\t(1,1) 1.0
T: (state,symbol,state) \n\t(0,0,1) 1.0
\t(0,1,0) 0.1
\t(0,1,1) 0.9
\t(1,1,0) 1.0
"""


def test_a_model_means_what_the_competition_says(tmp_path):
    pfa = read_model(written(tmp_path, MODEL))
    assert (pfa.states, pfa.n_tokens) == (2, 2)
    # P(1 1) by hand: over the paths 0-0-1, 1-0-1, 0-1-x with x = 0 never final; F stops before S and T go on.
    expected = 0.25 * 0.6 * 0.1 * 0.6 * 0.9 * 0.5 + 0.75 * 0.5 * 1 * 1 * 0.6 * 0.9 * 0.5
    assert float(pfa.log_prob(TokenSequences.of([[1, 1]])).exp()) == pytest.approx(expected, rel=1e-12)
    assert float(pfa.log_prob(TokenSequences.of([[]])).exp()) == pytest.approx(0.375, rel=1e-12)
    assert read_model(written(tmp_path, MODEL), n_tokens=5).n_tokens == 5


def test_a_written_model_has_the_sections_of_the_format(tmp_path):
    write_model(read_model(written(tmp_path, MODEL)), tmp_path / "again")
    lines = (tmp_path / "again").read_text().splitlines()
    assert lines[:6] == ["I: (state)", "\t(0) 0.25", "\t(1) 0.75", "F: (state)", "\t(1) 0.5", "S: (state,symbol)"]
    assert "T: (state,symbol,state)" in lines


def test_strings_round_trip(tmp_path):
    strings = TokenSequences.of([[0, 2, 1], [], [2]])
    write_strings(strings, 4, tmp_path / "a.train")
    assert (tmp_path / "a.train").read_text() == "3 4\n3 0 2 1\n0\n1 2\n"
    again, n_tokens = read_strings(tmp_path / "a.train")
    assert (again.to_lists(), n_tokens) == (strings.to_lists(), 4)


def test_files_of_the_competition_may_end_lines_with_blanks(tmp_path):
    strings, n_tokens = read_strings(written(tmp_path, "2 3 \r\n2 0 2 \r\n0 \r\n\r\n"))
    assert (strings.to_lists(), n_tokens) == ([[0, 2], []], 3)


def test_solutions_round_trip(tmp_path):
    probabilities = torch.tensor([1 / 3, 1e-300, 0.0], dtype=torch.float64)
    write_solution(probabilities, tmp_path / "solution")
    assert torch.equal(read_solution(tmp_path / "solution"), probabilities)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file is empty; allowed: a header"),
        ("3\n", "file, line 1 is '3'; allowed: the header"),
        ("x 3\n", "file, line 1 has the header 'x'; allowed: an integer >= 0"),
        ("1 3\n2 0 1 2\n", "file, line 2 announces 2 tokens but has 3; allowed: as many"),
        ("1 3\n2 0 3\n", "file, line 2 has token '3'; allowed: an integer in 0..2"),
        ("1 3\n2 0 -1\n", "file, line 2 has token '-1'; allowed: an integer in 0..2"),
        ("1 3\n\nfoo 0\n", "file, line 3 has length 'foo'"),
        ("2 3\n1 0\n", "file, line 1 announces 2 strings but 1 follow; allowed: as many"),
        ("0 3\n1 0\n", "file, line 1 announces 0 strings but 1 follow; allowed: as many"),
    ],
)
def test_invalid_strings_are_refused(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_strings(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file is empty"),
        ("two\n0.5\n", "file, line 1 has the header 'two'"),
        ("2\n0.5\n", "file, line 1 announces 2 probabilities but 1 follow"),
        ("1\n1.5\n", "file, line 2 has probability '1.5'; allowed: a number in 0..1"),
        ("1\nnan\n", "file, line 2 has probability 'nan'"),
    ],
)
def test_invalid_solutions_are_refused(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_solution(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("I: (state)\n", "", r"file, line 1 is '\(0\) 0.25'; allowed: a header"),
        ("F: (state)", "G: (state)", "file, line 4 is 'G: "),
        ("F: (state)", "I: (state)", "file, line 4 begins the section I again; allowed: once"),
        ("\t(0,0) 0.4", "\t(0,0)", r"file, line 7 is '\(0,0\)'; allowed: a header"),
        ("\t(0,0) 0.4", "\t(0) 0.4", r"file, line 7 has the indices \(0\); allowed in the section S: \(state,symbol\)"),
        ("\t(0,0) 0.4", "\t(0,a) 0.4", "file, line 7 has index 'a'; allowed: an integer >= 0"),
        ("\t(0,0) 0.4", "\t(0,0) much", "file, line 7 has probability 'much'; allowed: a number in 0..1"),
        ("\t(0,0) 0.4", "\t(0,1) 0.4", r"file, line 8 repeats the entry \(0,1\) of the section S; allowed: once"),
        ("\t(0,0) 0.4", "\t(0,0) 0.3", "file: transitions and stop of state 0 must sum to 1, got 0.9"),
        ("\t(0) 0.25", "\t(0) 0.2", "file: initial must sum to 1"),
        ("\t(0,0) 0.4", "\t(99999999,0) 0.4", "mentions state 99999999, but state [0-9]+ has no entry in F or S"),
        (MODEL[MODEL.index("T:") :], "", "file has no section T; allowed: the sections I, F, S, T"),
        (MODEL, "", "file has no section I"),
        (MODEL[: MODEL.index("F:")], "I: (state)\n", "file has no initial state"),
    ],
)
def test_invalid_models_are_refused(old, new, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_model(written(tmp_path, MODEL.replace(old, new, 1)))


def test_symbols_beyond_the_header_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"file, line 8 has index '1'; allowed: an integer in 0\.\.0"):
        read_model(written(tmp_path, MODEL), n_tokens=1)


@pytest.mark.parametrize("name", AUTOMATA)
def test_round_trip(name, tmp_path):
    pfa = AUTOMATA[name]
    write_model(pfa, tmp_path / "automaton")
    again = read_model(tmp_path / "automaton", n_tokens=pfa.n_tokens)
    assert again.n_tokens == pfa.n_tokens
    assert_same_strings(pfa, again)
    assert again.states == pfa.states
    torch.testing.assert_close(again.stop, pfa.stop, rtol=1e-12, atol=0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent does not exist; allowed: a"):
        read_model(tmp_path / "absent")
