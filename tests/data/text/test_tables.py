"""Labelled texts from .tsv, .csv and JSON lines."""

import pytest

from kdzoo.data.text.tables import classes_of, read_table
from kdzoo.errors import DataError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", 'label\ttext\n1\tan "odd, one\n-1\ttwo\n'),
        ("a.csv", '\ufefftext,id,label\r\n"an ""odd, one",7,1\r\ntwo,8,-1\r\n'),
        ("a.jsonl", '{"text": "an \\"odd, one", "label": 1}\n{"text": "two", "label": "-1"}\n'),
    ],
    ids=["tsv", "csv", "jsonl"],
)
def test_all_formats_give_the_same_table(tmp_path, name, content):
    (tmp_path / name).write_text(content, newline="")
    assert read_table(tmp_path / name, "text", "label") == (['an "odd, one', "two"], ["1", "-1"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", r"a.txt is not a table; allowed: a file that ends in .tsv, .csv, .jsonl or .json"),
        ("a.tsv", None, "a.tsv does not exist; allowed: a text file"),
        ("a.tsv", "", "a.tsv has no rows; allowed: at least 1"),
        ("a.tsv", "text\tlabel\n", "a.tsv has no rows; allowed: at least 1"),
        ("a.tsv", "sentence\tlabel\nx\t1\n", "a.tsv, line 2 has no 'text'; allowed: one of sentence, label"),
        ("a.tsv", "text\tlabel\nx\t1\ny\n", "a.tsv, line 3 has no 'label'; allowed: one of text, label"),
        ("a.csv", "text,label\nx,y,1\n", "a.csv, line 2 has more than the 2 columns; allowed: text, label"),
        ("a.csv", "text,label\n" + "x" * 200_000 + ",1\n", r"a.csv, line 1 cannot be read \(field larger"),
        ("a.json", '{"text": "x", "label": true}', "a.json, line 1 has no 'label'"),
        ("a.json", '{"text": 3, "label": "y"}', "a.json, line 1 has no 'text'"),
    ],
    ids=["ending", "absent", "empty", "no row", "no column", "short", "long", "huge", "bool", "number"],
)
def test_invalid_tables_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / name, "text", "label")
    assert "\n" not in str(caught.value)


def test_classes_are_sorted_by_value_or_alphabetically():
    assert classes_of(["10", "-1", "9", "10"]) == ("-1", "9", "10")
    assert classes_of(["pos", "neg", "10"]) == ("10", "neg", "pos")
