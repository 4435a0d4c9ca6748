"""A configuration from a file writes only to the folder of its run."""

import inspect

import pytest

from kdzoo import config
from kdzoo.config import signatures
from kdzoo.config.places import FILE_ARGUMENTS, FOLDER_ARGUMENTS, check_places
from kdzoo.errors import ConfigError

# Arguments of packaged classes with paths that are only read.
READ = {"path", "root", "test_file", "tokenizer", "train_file"}


@pytest.mark.parametrize("name", sorted(FOLDER_ARGUMENTS))
@pytest.mark.parametrize("value", ["/etc", "../x", "x", "http://example.org"])
def test_folders_are_refused(name, value):
    node = {"callbacks": [{"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", name: value}]}
    with pytest.raises(ConfigError, match=rf"FILE: callbacks\[0\]\.{name} must be null, got '{value}'"):
        check_places(node, "FILE")
    check_places({"callbacks": [{"_target_": "x", name: None}]}, "FILE")


def test_names_of_files_have_no_folders():
    check_places({"a": {"_target_": "x", "filename": "best-{epoch:03d}"}}, "FILE")
    with pytest.raises(ConfigError, match=r"FILE: a\.filename must be a name without folders, got '\.\./\.\./x'"):
        check_places({"a": {"_target_": "x", "filename": "../../x"}}, "FILE")


def test_every_argument_with_a_path_is_known_as_read_or_written():
    unknown = set()
    for target in config.packaged_targets():
        for parameter in signatures.describe(target).parameters.values():
            is_path = "Path" in inspect.formatannotation(parameter.annotation)
            if is_path and parameter.name not in READ | FOLDER_ARGUMENTS | FILE_ARGUMENTS:
                unknown.add(f"{target}: {parameter.name}")
    assert not unknown
