import json

import pytest
import torch

from kdzoo.automata import exchange
from kdzoo.automata.exchange import pautomac
from kdzoo.automata.exchange.table_size import MAX_ENTRIES, empty_table
from kdzoo.errors import DataError


def test_a_table_of_zeros_has_the_sizes():
    table = empty_table("file", 2, 3, 3)
    assert table.dtype == torch.float64
    assert table.shape == (2, 3, 3)
    assert not table.any()


def test_more_entries_than_fit_are_refused():
    with pytest.raises(DataError, match=f"^file needs a table of {MAX_ENTRIES} x 2 probabilities; allowed: at most"):
        empty_table("file", MAX_ENTRIES, 2)


HUGE = 10**11
JSON = {"format": "kdzoo-pfa-1", "n_tokens": HUGE, "initial": [1.0], "stop": [1.0], "arcs": []}
FILES = {
    "json": (json.dumps(JSON), exchange.read_json),
    "dot": (f'digraph pfa_of_{HUGE}_tokens {{\n0 [label="0", initial="1.0", stop="1.0"];\n}}', exchange.read_dot),
    "openfst": (f"0 0 {HUGE} 0.5\n0 0.5\n", exchange.read_openfst),
    "openfst states": (f"0 {HUGE} 1 0.5\n0 0.5\n", exchange.read_openfst),
    "pautomac": (f"I: (state)\n(0) 1\nF: (state)\n(0) 1\nS: (state,symbol)\n(0,{HUGE}) 1\nT: (state,symbol,state)\n",
                 pautomac.read_model),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_few_lines_cannot_ask_for_terabytes(name, tmp_path):
    text, read = FILES[name]
    (tmp_path / "file").write_text(text)
    with pytest.raises(DataError, match=r"file needs a table of .* probabilities; allowed: at most"):
        read(tmp_path / "file")


def test_brackets_in_brackets_are_refused(tmp_path):
    (tmp_path / "file").write_text('{"format": "kdzoo-pfa-1", "stop": ' + "[" * 100_000)
    with pytest.raises(DataError, match="file cannot be read as JSON"):
        exchange.read_json(tmp_path / "file")


CODE = ("__import__('os').mkdir('executed')", "<script>alert(1)</script>", "${oc.env:HOME}", '"]; system("x"); [')


def test_labels_are_text(tmp_path, monkeypatch):
    """Names of tokens are written, quoted, and read back by nothing that would run them."""
    monkeypatch.chdir(tmp_path)
    pfa = exchange.read_json(_written(tmp_path / "a.json", n_tokens=len(CODE)))
    exchange.write_dot(pfa, tmp_path / "a.dot", symbols=CODE)
    again = exchange.read_dot(tmp_path / "a.dot")
    assert torch.equal(again.transitions, pfa.transitions)
    assert not (tmp_path / "executed").exists()


def _written(path, n_tokens):
    arcs = [[token, 0, 0, 0.125] for token in range(n_tokens)]
    path.write_text(json.dumps({**JSON, "n_tokens": n_tokens, "stop": [1 - 0.125 * n_tokens], "arcs": arcs}))
    return path
