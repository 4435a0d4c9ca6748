"""Labelled texts from .tsv, .csv and JSON lines."""

import pytest

from kdzoo.data.text.tables import MISSING, Table, classes_of, read_table, same_integers, with_missing
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
        ("a.json", '{"text": "x", "label": 1.5}', "a.json, line 1 has no 'label'"),
        ("a.json", '{"text": "x", "label": [1]}', "a.json, line 1 has no 'label'"),
        ("a.json", '{"text": "x"}', "a.json, line 1 has no 'label'"),
        ("a.csv", "text,label,text\nx,1,y\n", "a.csv has two columns 'text'; allowed: one name for each column"),
        ("a.json", '{"text": 3, "label": "y"}', "a.json, line 1 has no 'text'"),
    ],
    ids=[
        *("ending", "absent", "empty", "no row", "no column", "short", "long", "huge"),
        *("fraction", "list", "no field", "two columns", "number"),
    ],
)
def test_invalid_tables_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / name, "text", "label")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["", "  ", "NaN", "nan"])
def test_white_space_around_labels_is_removed_and_empty_ones_and_nan_are_missing(tmp_path, missing):
    (tmp_path / "a.csv").write_text(f"text , label\na,pos \nb, pos\nc,{missing}\n")
    assert read_table(tmp_path / "a.csv", "text", "label") == (["a", "b", "c"], ["pos", "pos", MISSING])


def test_words_that_may_name_a_class_are_labels(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,NA\nb,none\nc,null\n")
    assert read_table(tmp_path / "a.csv", "text", "label").labels == ["NA", "none", "null"]


def test_labels_in_json_may_be_integers_truth_values_or_null(tmp_path):
    values = ["1", "1.0", "true", "null", '" 1"']
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "x", "label": {value}}}\n' for value in values))
    assert read_table(tmp_path / "a.jsonl", "text", "label").labels == ["1", "1", "true", MISSING, "1"]


def test_integers_are_one_class_however_they_are_written_and_words_are_not():
    tables = same_integers([Table(["a", "b", "c"], ["01", "1", MISSING]), Table(["d"], ["-007"])])
    assert [table.labels for table in tables] == [["1", "1", MISSING], ["-7"]]
    words = [Table(["a", "b"], ["01", "1"]), Table(["c"], ["one"])]
    assert same_integers(words) == words


def test_an_integer_may_stand_for_a_missing_label():
    assert with_missing(["-1", "1", "a", "-01"], -1) == [MISSING, "1", "a", MISSING]


def test_classes_are_sorted_by_value_or_alphabetically():
    assert classes_of(["10", "-1", "9", "10"]) == ("-1", "9", "10")
    assert classes_of(["pos", "neg", "10"]) == ("10", "neg", "pos")
    assert classes_of(["b", MISSING, "a"]) == ("a", "b")
