"""The settings that the other ranks of a data-parallel job read, and what is restored after the job."""

import json
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kdzoo.cli import ranks
from kdzoo.errors import ConfigError


def cfg_of(devices, folder="unused"):
    return OmegaConf.create({"trainer": {"devices": devices}, "output_dir": str(folder)})


@pytest.mark.parametrize("devices", [1, "1", "auto"])
def test_one_process_needs_no_settings(devices, tmp_path):
    with ranks.pinned_ranks(cfg_of(devices, tmp_path), set(), "kdzoo"):
        assert not ranks.is_other_rank()
    assert list(tmp_path.iterdir()) == []


def test_settings_and_variables_last_as_long_as_the_job(tmp_path):
    def job():
        with ranks.pinned_ranks(cfg_of(2, tmp_path / "run"), {"b", "a"}, "kdzoo seed=1"):
            assert ranks.is_other_rank()
            content = json.loads(Path(os.environ[ranks.RANK_SETTINGS]).read_text())
            assert content["cfg"]["trainer"] == {"devices": 2}
            assert (content["allow"], content["command"]) == (["a", "b"], "kdzoo seed=1")
            os.environ["LOCAL_RANK_OF_THIS_TEST"] = "0"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        job()
    assert not ranks.is_other_rank()
    assert "LOCAL_RANK_OF_THIS_TEST" not in os.environ
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(("mode", "launcher", "rejected"), [("MULTIRUN", "joblib", True), ("MULTIRUN", "basic", False)])
def test_a_launcher_must_not_start_processes(mode, launcher, rejected):
    from hydra.types import RunMode

    settings = OmegaConf.create({"runtime": {"choices": {"hydra/launcher": launcher}}, "mode": RunMode[mode]})
    if rejected:
        with pytest.raises(ConfigError, match=r"trainer\.devices=2 needs hydra/launcher=basic, got joblib"):
            ranks.check_launcher(cfg_of(2), settings)
    else:
        ranks.check_launcher(cfg_of(2), settings)
    ranks.check_launcher(cfg_of(1), settings)
