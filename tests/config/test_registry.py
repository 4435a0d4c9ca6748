"""The registered distillers: list, names, citations."""

from pathlib import Path

from kdzoo import config
from kdzoo.config import registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_dkd"


def test_every_packaged_distiller_is_described():
    rows = {row["name"]: row for row in registry.describe()}
    assert set(rows) == set(config.groups()["distiller"])
    assert rows["logit_kd"]["teacher"] == rows["logit_kd"]["student"] == "classifier, language model, masked lm"
    assert rows["ot_pfa"]["student"] == "automaton"
    assert rows["supervised"]["teacher"] == "none"
    assert all(row["summary"].endswith(".") and "\n" not in row["summary"] for row in rows.values())
    assert "Hinton" in rows["logit_kd"]["paper"]


def test_a_users_distiller_is_listed_and_a_broken_one_does_not_hide_the_others(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "broken.yaml").write_text("_target_: not_there.Thing\n")
    rows = {row["name"]: row for row in registry.describe([EXAMPLE / "conf", tmp_path])}
    assert rows["my_dkd"]["summary"] == "Weigh the target class and the other classes separately."
    assert "'not_there.Thing' cannot be imported" in rows["broken"]["summary"]
    assert "logit_kd" in rows


def test_a_target_has_the_name_of_its_file():
    assert registry.name_of("distiller", "kdzoo.distillers.LogitKD") == "logit_kd"
    assert registry.name_of("distiller", "my_dkd.MyDKD", [EXAMPLE / "conf"]) == "my_dkd"
    assert registry.name_of("distiller", "else.Where") == "else.Where"


def test_citations_are_whole_and_not_repeated():
    text = registry.citations("kdzoo.distillers.LogitKD", "kdzoo.models.MLP", "kdzoo.distillers.LogitKD")
    assert text.count("@article{hinton2015distilling,") == 1
    assert text.count("{") == text.count("}")
