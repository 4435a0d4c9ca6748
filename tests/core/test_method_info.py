"""The declaration of a method."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from kdzoo.config.signatures import INFO_DEFAULTS
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers import LogitKD


def test_a_declaration_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        LogitKD.info.paper = "another"


def test_a_subclass_changes_what_it_names():
    info = replace(LogitKD.info, paper="another")
    assert (info.terms, info.bibtex, info.paper) == (LogitKD.info.terms, LogitKD.info.bibtex, "another")


def test_two_declarations_share_no_mapping():
    first, second = MethodInfo(), MethodInfo()
    assert first.exempt is not second.exempt
    assert first.terms is not second.terms


def test_the_command_line_assumes_the_same_defaults():
    """Without importing this class, it reads declarations from the source text."""
    defaults = MethodInfo()
    assert INFO_DEFAULTS.keys() <= {field.name for field in fields(MethodInfo)}
    assert {name: getattr(defaults, name) for name in INFO_DEFAULTS} == INFO_DEFAULTS
