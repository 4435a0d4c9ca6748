"""Two processes end with the weights of one, for every registered distiller; a mean over one rank is found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kdzoo
from kdzoo import config
from kdzoo.config import registry
from kdzoo.contracts import ranks
from kdzoo.contracts.subject import Subject
from kdzoo.distillers import LogitKD
from kdzoo.functional import soft_target_kl

ROOT = Path(__file__).resolve().parents[2]
REGISTERED = registry.targets("distiller")


class DividesByMeanOfRank(LogitKD):
    """Divides by the mean over the samples of its own rank."""

    def losses(self, batch):
        student, teacher = self.student(batch["input"]), self.frozen_teacher.output(batch)
        kl = soft_target_kl(student, teacher, temperature=self.temperature)
        return {"soft": kl / kl.detach().mean(), "hard": super().losses(batch)["hard"]}


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """The differences of all registered distillers and of one that is wrong, from one pair of processes."""
    folder = tmp_path_factory.mktemp("ranks")
    subjects = {name: Subject(kdzoo.compose(f"distiller={name}"), folder) for name in REGISTERED}
    subjects = {name: one for name, one in subjects.items() if "data_parallel" not in one.method.info.exempt}
    cfg = kdzoo.compose("distiller=logit_kd")
    cfg.distiller._target_ = f"{__name__}.DividesByMeanOfRank"
    subjects["wrong"] = Subject(cfg, folder, allow={cfg.distiller._target_})
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))  # the two processes import this file
        return ranks.data_parallel_gaps(subjects)


@pytest.mark.parametrize("name", REGISTERED)
def test_two_processes_end_with_the_weights_of_one(name, gaps):
    exempt = config.locate(REGISTERED[name]).info.exempt
    if "data_parallel" in exempt:
        pytest.skip(exempt["data_parallel"])
    # The networks of a pool are trained in float32 before the training, and their last bit depends on the processor and
    # on where the memory lies.
    assert gaps[name] <= (1e-7 if name == "dataset_poison" else 1e-10)


def test_a_mean_over_one_rank_is_found(gaps):
    assert gaps["wrong"] > 1e-6


def test_the_error_of_a_rank_is_reported(subject_of, monkeypatch):
    def start(folder):
        code = "import sys; sys.exit('a line before\\nValueError: no second rank')"
        return [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]

    monkeypatch.setattr(ranks, "_start_two_ranks", start)
    with pytest.raises(AssertionError, match=r"^ValueError: no second rank"):
        ranks.data_parallel_gaps({"logit_kd": subject_of("logit_kd")})
