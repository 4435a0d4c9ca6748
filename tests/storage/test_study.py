"""A study is what its file says, whoever opens it."""

import pytest

from kdzoo.storage.study import FILE, open_study

optuna = pytest.importorskip("optuna")


def test_a_study_is_continued_by_whoever_opens_its_folder(tmp_path):
    study = open_study(tmp_path, direction="maximize")
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    found = open_study(tmp_path)
    assert (tmp_path / FILE).exists()
    assert found.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [known.params for known in found.trials] == [trial.params]
