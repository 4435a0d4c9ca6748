"""A cache that is filled before the run is the one that the run reads."""

import pytest

import kdzoo
from kdzoo.errors import ConfigError
from kdzoo.runs.caching import cache_outputs
from kdzoo.storage import sharded_rows

TINY = ("debug=fast", "student.hidden=[8]", "teacher.hidden=[8]", "control=false")


def test_a_run_computes_no_outputs_that_are_cached(tmp_path, monkeypatch):
    settings = [*TINY, f"cache_dir={tmp_path}/cache", f"output_dir={tmp_path}/run"]
    with monkeypatch.context() as patch:
        patch.setattr(kdzoo.distillers.LogitKD, "training_step", None)  # the student is not trained
        folders = cache_outputs(kdzoo.compose(*settings, "seed=null", "seeds=[0,1]"))
    assert len(set(folders)) == 2
    assert all((folder / "manifest.json").exists() for folder in folders)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(sharded_rows, "write", None)
    report = kdzoo.run(kdzoo.compose(*settings, "seed=0"))
    assert report["student"]["metrics"]["accuracy"] > 0


@pytest.mark.parametrize("setting", ["data.augment={shift:1}", "teacher_cache=false"])
def test_a_run_that_stores_no_outputs_is_refused(setting, tmp_path):
    with pytest.raises(ConfigError, match="stores no outputs of a teacher: its losses must read"):
        cache_outputs(kdzoo.compose(*TINY, "seed=0", setting, f"cache_dir={tmp_path}"))


def test_mistakes_are_found_first():
    with pytest.raises(ConfigError, match="temperature"):
        cache_outputs(kdzoo.compose(*TINY, "distiller.temperature=cold"))
