"""JSON files: exact numbers, and what is refused."""

import json

import pytest
import torch

from kdzoo.automata.exchange.json import read_json, write_json
from kdzoo.automata.targets import tomita
from kdzoo.errors import DataError
from tests.automata.exchange.conftest import AUTOMATA, assert_same_strings, written


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
def test_invalid_json_is_refused(change, message, tmp_path):
    write_json(tomita(1), tmp_path / "good")
    value = json.loads((tmp_path / "good").read_text())
    with pytest.raises(DataError, match=message):
        read_json(written(tmp_path, json.dumps({**value, **change})))


def test_text_that_is_not_json_is_refused(tmp_path):
    with pytest.raises(DataError, match="file, line 2 is not valid JSON"):
        read_json(written(tmp_path, '{"format":\n'))
    with pytest.raises(DataError, match="file has no key 'stop'"):
        read_json(written(tmp_path, '{"format": "kdzoo-pfa-1"}'))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="bytes cannot be read as text"):
        read_json(tmp_path / "bytes")


@pytest.mark.parametrize("name", AUTOMATA)
def test_round_trip(name, tmp_path):
    pfa = AUTOMATA[name]
    write_json(pfa, tmp_path / "automaton")
    again = read_json(tmp_path / "automaton")
    assert again.n_tokens == pfa.n_tokens
    assert_same_strings(pfa, again)
    assert torch.equal(again.transitions, pfa.transitions)
    assert torch.equal(again.initial, pfa.initial)
    assert again.states == pfa.states
    torch.testing.assert_close(again.stop, pfa.stop, rtol=1e-12, atol=0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent does not exist; allowed: a"):
        read_json(tmp_path / "absent")
