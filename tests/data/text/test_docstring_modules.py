"""Labelled documentation strings of the standard library: classes, splits, and missing sources."""

import inspect
import tarfile
from collections import Counter

import pytest

from kdzoo.data import DocstringModules
from kdzoo.data.text import docstring_modules
from kdzoo.data.text.docstring_modules import MODULES
from kdzoo.errors import DataError


def test_every_string_has_the_class_of_its_module():
    train, test = DocstringModules().read()
    label_of_text = dict(zip(train.texts + test.texts, train.labels + test.labels, strict=True))
    assert label_of_text[inspect.getdoc(tarfile.TarFile.extractall)] == "tarfile"
    assert label_of_text[inspect.getdoc(inspect.getmro)] == "inspect"
    assert set(train.labels) == set(test.labels) == set(MODULES)


def test_one_string_in_five_of_each_module_is_for_test():
    train, test = (Counter(table.labels) for table in DocstringModules().read())
    for module in MODULES:
        assert test[module] == (train[module] + test[module]) // 5


def test_the_data_module_has_eight_classes():
    pytest.importorskip("transformers")
    data = DocstringModules(vocab_size=300, max_length=12, train_size=20, batch_size=10)
    data.setup()
    assert data.classes == MODULES
    assert data.sizes["num_classes"] == 8
    assert data.summary()["n_train"] == 20


def test_a_library_without_sources_is_refused(monkeypatch):
    monkeypatch.setattr(docstring_modules, "MODULES", ("sys",))
    with pytest.raises(DataError, match=r"sys\.py is missing; an installation of Python with the sources"):
        DocstringModules().read()
