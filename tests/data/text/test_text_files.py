"""Texts read piece by piece: from text files, folders, JSON lines and saved data sets."""

import json
import sys
import types
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.data.text.text_files import reader, split_line
from kdzoo.errors import ConfigError, DataError


def pieces(path, field="text"):
    read = reader(path, field)
    first = list(read())
    assert list(read()) == first
    return first


def documents(found):
    """Pieces as lists of lines, one for each document."""
    answer = [[]]
    for piece in found:
        if piece:
            answer[-1].append(piece)
        elif answer[-1]:
            answer.append([])
    return [one for one in answer if one]


def test_blank_lines_separate_the_documents_of_a_text(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes("\ufeffTo be,\r\n  or not\n\n \nto be".encode())
    assert documents(pieces(path)) == [["To be,", "  or not"], ["to be"]]
    assert pieces(path)[-1] == ""


def test_every_json_record_is_a_document(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"body": "one\\n\\nline"}\n\n{"body": "two", "id": 3}\n')
    assert documents(pieces(path, "body")) == [["one\n\nline"], ["two"]]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "z").mkdir()
    for name in ("b.txt", "a.txt", "z/c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "m.jsonl").write_text('{"text": "m"}')
    (tmp_path / "notes.md").write_text("not read")
    assert documents(pieces(tmp_path)) == [["a.txt"], ["b.txt"], ["m"], ["z/c.txt"]]


@given(st.text(st.sampled_from("ab c"), max_size=40), st.integers(1, 8))
def test_the_pieces_of_a_line_make_the_line(line, longest):
    found = split_line(line, longest)
    assert "".join(found) == line
    assert all(0 < len(piece) <= longest for piece in found)
    assert all(" " not in one[1:] or after[0] == " " for one, after in pairwise(found))


class Rows(list):
    """What the package datasets returns."""

    column_names = ("text", "id")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A folder of the package datasets, which is replaced by one that answers with ``rows``."""
    (tmp_path / "dataset_info.json").write_text(json.dumps({}))
    package = types.ModuleType("datasets")
    package.load_from_disk = lambda path: package.rows
    package.rows = Rows([{"text": "one", "id": 0}, {"text": "two", "id": 1}])
    monkeypatch.setitem(sys.modules, "datasets", package)
    return tmp_path, package


def test_a_dataset_on_disk(saved):
    path, package = saved
    assert pieces(path) == ["one", "", "two", ""]
    package.rows = {"train": package.rows, "test": Rows()}
    assert pieces(path) == ["one", "", "two", ""]
    with pytest.raises(DataError, match="has no column 'body'; allowed: one of text, id"):
        reader(path, "body")
    package.rows = {"test": Rows()}
    with pytest.raises(DataError, match="has the splits test; allowed: a train split"):
        reader(path, "text")


def test_a_dataset_that_cannot_be_read(saved, monkeypatch):
    path, package = saved
    del package.load_from_disk
    with pytest.raises(DataError, match="cannot be read by datasets"):
        reader(path, "text")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="is a data set of the package datasets: pip install datasets"):
        reader(path, "text")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, r"absent.txt does not exist; allowed: a text file, a .jsonl"),
        ("a.txt", b"\xff\xfe\xff", r"a.txt cannot be read as text \("),
        ("a.jsonl", b'{"text": "x"}\n{"text"}', r"a.jsonl, line 2 is not JSON \("),
        ("a.jsonl", b"\n[1]", r"a.jsonl, line 2 is not a JSON object; allowed: one on each line"),
        ("a.jsonl", b'{"body": "x"}', r"a.jsonl, line 1 has no text 'text'; allowed: one of body"),
        ("a.jsonl", b'{"text": 3}', r"a.jsonl, line 1 has no text 'text'"),
    ],
    ids=["absent", "bytes", "half a record", "no object", "another field", "no text"],
)
def test_bad_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        pieces(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"has no .txt or .jsonl file"):
        reader(tmp_path, "text")
