"""The registered distillers: list, names, citations."""

import re
from pathlib import Path

import pytest

from kdzoo import config
from kdzoo.config import registry
from kdzoo.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_dkd"


def test_every_packaged_distiller_is_registered_with_its_info():
    entries = {entry.name: entry for entry in registry.entries()}
    assert set(entries) == set(config.groups()["distiller"])
    kinds = ("classifier", "language_model", "masked_lm")
    assert entries["logit_kd"].signature.info["teacher_kinds"] == kinds
    assert entries["ot_pfa"].signature.info["student_kinds"] == ("automaton",)
    assert entries["supervised"].signature.info["teacher"] == "none"
    assert all(entry.summary.endswith(".") and "\n" not in entry.summary for entry in entries.values())
    assert "Hinton" in entries["logit_kd"].signature.info["paper"]


def test_a_users_distiller_is_listed_and_a_broken_one_does_not_hide_the_others(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "broken.yaml").write_text("_target_: not_there.Thing\n")
    entries = {entry.name: entry for entry in registry.entries([EXAMPLE / "conf", tmp_path])}
    assert entries["my_dkd"].summary == "Weigh the target class and the other classes separately."
    assert "'not_there.Thing' cannot be imported" in entries["broken"].summary
    assert "logit_kd" in entries


def test_settings_are_those_of_the_last_folder(tmp_path):
    assert registry.settings("distiller", "logit_kd")["temperature"] == 4.0
    assert "_target_" not in registry.settings("distiller", "logit_kd")
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "logit_kd.yaml").write_text("_target_: kdzoo.distillers.LogitKD\ntemperature: 9.0\n")
    assert registry.settings("distiller", "logit_kd", [tmp_path]) == {"temperature": 9.0}


def test_a_file_that_extends_another_is_listed(tmp_path):
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "hot.yaml").write_text("defaults: [logit_kd]\ntemperature: 20.0\n")
    (tmp_path / "distiller" / "note.yaml").write_text("# nothing\n")
    entries = {entry.name: entry for entry in registry.entries([tmp_path])}
    assert entries["hot"].target == "kdzoo.distillers.LogitKD"
    assert registry.settings("distiller", "hot", [tmp_path])["temperature"] == 20.0
    assert "note" not in entries


def test_a_file_that_extends_one_of_another_group_has_its_settings(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "wide.yaml").write_text("defaults: [{/teacher@_here_: mlp}]\nhidden: [9]\n")
    assert registry.targets("student", [tmp_path])["wide"] == "kdzoo.models.MLP"
    packaged = registry.settings("teacher", "mlp")
    assert registry.settings("student", "wide", [tmp_path]) == {**packaged, "hidden": [9]}


def test_mappings_of_a_file_and_the_one_that_it_extends_are_merged():
    settings = registry.settings("inner_network", "convnet_8_pretrained")["convnet_8"]
    assert settings == {**registry.settings("inner_network", "convnet_8")["convnet_8"], "pool": 40}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("defaults: [{/student@_here_: nope}]\n", "student/a extends student/nope, and there is no student/nope.yaml"),
        ("defaults: [b]\n", "student/a extends student/b extends student/a: a file cannot extend itself"),
    ],
)
def test_what_a_file_cannot_extend_is_named(content, message, tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "a.yaml").write_text(content)
    (tmp_path / "student" / "b.yaml").write_text("defaults: [{/student@_here_: a}]\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        registry.settings("student", "a", [tmp_path])


@pytest.mark.parametrize("content", ["a: [", "- 1\n", "a: b: c\n"])
def test_a_file_that_is_not_yaml_does_not_hide_the_others(content, tmp_path):
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "broken.yaml").write_text(content)
    entries = {entry.name: entry for entry in registry.entries([tmp_path])}
    assert str(tmp_path / "distiller" / "broken.yaml") in entries["broken"].error
    assert "\n" not in entries["broken"].error
    assert "temperature" in entries["logit_kd"].signature.parameters


def test_a_target_has_the_name_of_its_file():
    assert registry.name_of("distiller", "kdzoo.distillers.LogitKD") == "logit_kd"
    assert registry.name_of("distiller", "my_dkd.MyDKD", [EXAMPLE / "conf"]) == "my_dkd"
    assert registry.name_of("distiller", "else.Where") == "Where"


def test_a_broken_file_does_not_hide_the_names_of_others(tmp_path):
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "broken.yaml").write_text("a: [")
    (tmp_path / "distiller" / "mine.yaml").write_text("_target_: my.Method\n")
    assert registry.name_of("distiller", "my.Method", [tmp_path]) == "mine"


def test_citations_are_whole_and_not_repeated():
    text = registry.citations("kdzoo.distillers.LogitKD", "kdzoo.models.MLP", "kdzoo.distillers.LogitKD")
    assert text.count("@article{hinton2015distilling,") == 1
    assert text.count("{") == text.count("}")
