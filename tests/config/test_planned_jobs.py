"""The jobs of a sweep are known beforehand only if it runs all combinations."""

import pytest
from omegaconf import OmegaConf

from kdzoo.config import planned_jobs, sweepers


@pytest.mark.parametrize(
    ("sweeper", "planned"),
    [
        ({"_target_": sweepers.BASIC}, [["a=1", "b=0"], ["a=2", "b=0"]]),
        ({"_target_": sweepers.GRID}, [["a=1", "b=0"], ["a=2", "b=0"]]),
        ({"_target_": "another.Sweeper"}, []),
    ],
)
def test_only_a_sweep_over_all_combinations_plans_its_jobs(sweeper, planned):
    job = OmegaConf.create({"hydra": {"sweeper": sweeper}})
    assert planned_jobs.combinations(job, [["++a=1", "++a=2"], ["b=0"]]) == planned
