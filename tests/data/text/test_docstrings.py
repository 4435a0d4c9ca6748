"""The documentation strings of the standard library: their order, their documents, and their blocks."""

import abc
import json
from itertools import pairwise

import pytest

from kdzoo.data import Docstrings
from kdzoo.data.text.docstrings import docstrings, docstrings_of


def test_pieces_are_lines_and_an_empty_one_ends_each_string():
    pieces = docstrings()
    assert pieces[-1] == ""
    assert not any(first == second == "" for first, second in pairwise(pieces))
    assert all(piece.strip() for piece in pieces if piece)
    assert all("\n" not in piece for piece in pieces)


@pytest.mark.parametrize("function", [json.dumps, abc.ABCMeta.register])
def test_packages_are_left_out_and_modules_are_complete(function):
    """``json`` is a folder and is left out; ``abc`` is a module at the top level."""
    first_line = function.__doc__.strip().splitlines()[0].strip()
    assert (first_line in docstrings()) == (function is abc.ABCMeta.register)


def test_the_reader_starts_from_the_beginning_each_time():
    read = Docstrings().reader()
    assert tuple(read()) == tuple(read()) == docstrings()


def test_the_default_vocabulary_is_small():
    assert (Docstrings().vocab_size, Docstrings(vocab_size=300).vocab_size) == (4000, 300)


def test_strings_come_level_by_level_from_any_statement(tmp_path):
    source = """'module'
try:
    class A:
        'A'
        def inner(self): 'inner'
except ImportError:
    def in_handler(): 'handler'
match 1:
    case 1:
        async def in_case(): 'case'
def last():
    'last'
"""
    (tmp_path / "source.py").write_text(source)
    # The order of ast.walk, in which the text and the published numbers on it were made.
    assert list(docstrings_of(tmp_path / "source.py")) == ["module", "last", "A", "inner", "handler", "case"]
