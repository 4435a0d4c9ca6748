"""Lines of text files that know where they come from."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.automata.exchange.lines import Line, read_lines
from kdzoo.errors import DataError

LINE = Line.of("  text ", Path("a.txt"), 7)


def test_lines_are_stripped_and_numbered_from_one(tmp_path):
    (tmp_path / "file").write_text("a b \n\n  c")
    lines = list(read_lines(str(tmp_path / "file")))
    assert lines == ["a b", "", "c"]
    assert [(line.path, line.number) for line in lines] == [(tmp_path / "file", number) for number in (1, 2, 3)]
    assert LINE == "text"


@given(st.integers(0, 10**12))
def test_integers_are_read(value):
    assert LINE.integer(str(value), "token") == value
    assert LINE.integer(str(value), "token", value + 1) == value


@pytest.mark.parametrize("text", ["", "-1", "+1", "1_000", "1.0", "\u0663", "x"])
def test_other_text_is_not_an_integer(text):
    with pytest.raises(DataError, match=r"a\.txt, line 7 has token .*; allowed: an integer >= 0"):
        LINE.integer(text, "token")
    with pytest.raises(DataError, match=r"a\.txt, line 7 has token '5'; allowed: an integer in 0\.\.4"):
        LINE.integer("5", "token", 5)


@given(st.floats(0, 1))
def test_decimals_are_read_exactly(value):
    assert LINE.decimal(repr(value), "probability", 0, 1) == value


@pytest.mark.parametrize("text", ["", "nan", "1.5", "-0.1", "inf", "half"])
def test_other_text_is_not_a_probability(text):
    with pytest.raises(DataError, match=r"a\.txt, line 7 has probability .*; allowed: a number in 0\.\.1"):
        LINE.decimal(text, "probability", 0, 1)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="absent does not exist; allowed: a text file"):
        list(read_lines(tmp_path / "absent"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="bytes cannot be read as text"):
        list(read_lines(tmp_path / "bytes"))


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_line_ends_divide_lines_and_a_byte_order_mark_is_removed(tmp_path, character, end):
    path = tmp_path / "a.txt"
    path.write_bytes(f"\ufeffa b{end}c{character}d{end}{end}e".encode())
    assert list(read_lines(path)) == ["a b", f"c{character}d", "", "e"]
    path.write_bytes(f"a{end}".encode())
    assert list(read_lines(path)) == ["a"]
    path.write_bytes(b"")
    assert list(read_lines(path)) == []
