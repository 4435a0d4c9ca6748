"""Signatures read from source text are those of the imported classes."""

import inspect
import subprocess
import sys
import typing

import pytest

from kdzoo import config
from kdzoo.config import signatures, validate

VALUES = (True, 1, 0.5, "x", None, [1], [0.5, 0.5], ["x"], {"a": 1})


@pytest.mark.parametrize("target", sorted(config.packaged_targets()))
def test_the_source_text_describes_what_the_class_does(target):
    read, imported = signatures.from_source(target), signatures._imported(target)
    if read is None:
        assert signatures.describe(target) == imported
        return
    named = {name: p for name, p in imported.parameters.items() if p.kind is not p.VAR_KEYWORD}
    assert set(read.parameters) == set(named)
    for name, parameter in named.items():
        empty = inspect.Parameter.empty
        assert (read.parameters[name].default is empty) == (parameter.default is empty), name
        hints = read.parameters[name].annotation, parameter.annotation
        if typing.Any not in hints:
            accepted = [[value for value in VALUES if validate._fits(value, hint)] for hint in hints]
            assert accepted[0] == accepted[1], (name, hints)
    if target.startswith("kdzoo.distillers."):
        assert read.info == imported.info


def test_the_source_text_of_every_packaged_class_is_enough():
    packaged = [name for name in config.packaged_targets() if name.startswith("kdzoo.")]
    assert [name for name in packaged if signatures.from_source(name) is None] == []


def test_a_class_made_by_a_decorator_is_imported(tmp_path, monkeypatch):
    (tmp_path / "made_here.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Made:\n    width: int\n    depth: int = 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert signatures.from_source("made_here.Made") is None
    signature = signatures.describe("made_here.Made")
    assert signature.parameters["width"].annotation is int
    assert signature.parameters["depth"].default == 2


def test_mistakes_are_found_without_torch(tmp_path):
    code = (
        "import sys; from kdzoo.config import overrides\n"
        "found = overrides.check(overrides.parse(['distiler=x', 'student.hiden=3', 'optimizer.lr=fast'])).mistakes\n"
        "assert len(found) == 3, found; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


USER_METHOD = """
import kdzoo
from kdzoo.core.method_info import MethodInfo


class Plain(kdzoo.Distiller):
    def __init__(self, student, teacher, *, strength: float = 1.0):
        super().__init__(student, teacher)


class Declared(kdzoo.Distiller):
    info = MethodInfo(terms={"mine": 2.0})

    def __init__(self, student, teacher, **options):
        super().__init__(student, teacher, **options)
"""


def test_a_base_class_is_found_through_the_package(tmp_path, monkeypatch):
    (tmp_path / "user_method.py").write_text(USER_METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    plain, declared = (signatures.from_source(f"user_method.{name}") for name in ("Plain", "Declared"))
    assert set(plain.parameters) == {"student", "teacher", "strength"}
    assert plain.info == signatures.INFO_DEFAULTS
    assert {"optimizer", "micro_batch_size"} <= set(declared.parameters)
    assert declared.info == {**signatures.INFO_DEFAULTS, "terms": {"mine": 2.0}}
    for name in ("Plain", "Declared"):
        read, imported = signatures.from_source(f"user_method.{name}"), signatures._imported(f"user_method.{name}")
        assert (set(read.parameters), read.info) == (set(imported.parameters) - {"options"}, imported.info)
