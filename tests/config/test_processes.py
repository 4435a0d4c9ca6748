import os
import re

import pytest
from omegaconf import OmegaConf

from kdzoo.config.processes import (
    check_processes,
    is_data_parallel,
    is_first_process,
    leave_group,
    sharding_mistake,
)
from kdzoo.errors import ConfigError


@pytest.mark.parametrize("trainer", [{}, {"devices": 1}, {"devices": "1"}, {"devices": "auto"}, {"devices": [3]}])
def test_one_process(trainer):
    assert not is_data_parallel(trainer)
    assert not is_data_parallel(OmegaConf.create(trainer))


@pytest.mark.parametrize("trainer", [{"devices": 2}, {"devices": [0, 1]}, {"devices": 1, "num_nodes": 2}])
def test_several_processes(trainer):
    assert is_data_parallel(trainer)


@pytest.mark.parametrize(
    "strategy",
    ["fsdp", "fsdp_cpu_offload", "deepspeed_stage_3", {"_target_": "pytorch_lightning.strategies.FSDPStrategy"}],
)
def test_strategies_that_divide_a_model_are_refused(strategy):
    (line,) = sharding_mistake(strategy)
    assert re.match(r"trainer\.strategy=\S+ divides a model among processes, which kdzoo does not support", line)


@pytest.mark.parametrize("strategy", [None, "auto", "ddp", "ddp_find_unused_parameters_true", "single_device"])
def test_other_strategies_are_not(strategy):
    assert not list(sharding_mistake(strategy))


def test_processes_of_torchrun_that_would_all_do_the_same_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    check_processes({"devices": 1})  # the variable may stand for something else
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    check_processes({"devices": 2})
    with pytest.raises(ConfigError, match=r"torchrun has started 2 processes, and trainer.devices=1 uses one; set "):
        check_processes({"devices": 1})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    check_processes({"devices": 1})


def test_the_first_process_is_known_without_lightning(monkeypatch):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    for name in ("RANK", "SLURM_PROCID"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "0")
            assert is_first_process()
            patch.setenv(name, "1")
            assert not is_first_process()


def test_a_process_that_leaves_its_group_is_the_first_and_only_one(monkeypatch):
    torchrun = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR")
    for name in (*torchrun, "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("SLURMED", "yes")
    assert not is_first_process()
    leave_group()
    assert is_first_process()
    check_processes({"devices": 1})
    assert not {*torchrun, "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_NTASKS"} & os.environ.keys()
    assert os.environ["SLURMED"] == "yes"
