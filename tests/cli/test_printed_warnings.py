"""Warnings of kdzoo are lines like its other messages; those of libraries keep their place in the program."""

import warnings

import pytest

from kdzoo.cli import printed_warnings
from kdzoo.cli.ranks import RANK_SETTINGS
from kdzoo.errors import KdzooWarning


@pytest.mark.parametrize(
    ("variables", "printed"),
    [({}, "kdzoo: no checksum\n"), ({"RANK": "1"}, ""), ({RANK_SETTINGS: "settings.json"}, "")],
    ids=["one process", "second process of torchrun", "second process of Lightning"],
)
def test_the_first_process_prints_a_warning_of_kdzoo_in_one_line(variables, printed, monkeypatch, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(f"of Python: {message}")
        printed_warnings.print_as_lines()
        warnings.warn("no checksum", KdzooWarning, stacklevel=1)
        warnings.warn("of a library", UserWarning, stacklevel=1)
    out, error = capsys.readouterr()
    assert (out, error) == ("of Python: of a library\n", printed)
