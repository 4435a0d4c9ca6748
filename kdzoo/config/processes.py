"""How many processes the settings of a run ask for, and whether that is how many there are."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdzoo.errors import ConfigError

# Path of the folder of a sweep. An environment variable, because only these reach the processes that a Hydra launcher
# starts.
SWEEP = "KDZOO_SWEEP"
# The variables by which torchrun tells a process its place in a group, apart from those that begin with TORCHELASTIC_.
GROUP_VARIABLES = (
    *(f"{prefix}{name}" for prefix in ("", "LOCAL_", "GROUP_", "ROLE_") for name in ("RANK", "WORLD_SIZE")),
    *("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
)


# Parts of the names of Lightning's strategies that divide a model, also of their classes.
SHARDING = ("fsdp", "deepspeed", "modelparallel", "model_parallel")


def sharding_mistake(strategy: Any) -> Iterator[str]:
    """Yield a line if a strategy of Lightning divides a model among processes.

    These strategies need GPUs, and kdzoo was never run with them. Their optimizers hold shards of parameters, their
    checkpoints may be folders, and what a run does outside of a training step (evaluation, export, state that changes
    once per step) needs the whole model on every process.

    Args:
        strategy: A name, or a mapping with ``_target_``.
    """
    name = str(strategy.get("_target_")) if isinstance(strategy, Mapping) else str(strategy)
    if any(part in name.lower() for part in SHARDING):
        yield (
            f"trainer.strategy={name} divides a model among processes, which kdzoo does not support: every process "
            "needs the whole model; allowed: auto, ddp and the other strategies whose names begin with ddp"
        )


def is_data_parallel(trainer: Mapping[str, Any]) -> bool:
    """Return whether the settings of a trainer ask for several processes.

    Example:
        >>> is_data_parallel({"devices": 1}), is_data_parallel({"devices": 2}), is_data_parallel({"num_nodes": 2})
        (False, True, True)
    """
    devices = trainer.get("devices", 1)
    is_one = devices in (1, "1", "auto") or (
        isinstance(devices, Sequence) and not isinstance(devices, str) and len(devices) == 1
    )
    return not is_one or trainer.get("num_nodes", 1) > 1


def is_first_process() -> bool:
    """Return whether this is the first of the processes that torchrun or Slurm has started, or the only one.

    Only this one prints. Unlike Lightning's own answer, this one needs no import that takes seconds.
    """
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "SLURM_PROCID"))


def check_processes(trainer: Mapping[str, Any]) -> None:
    """Reject several processes of torchrun for a trainer of one process: each would do the whole run, in one folder.

    Raises:
        ConfigError: Names the number of processes and the settings that use them.
    """
    n_started = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if n_started > 1 and not is_data_parallel(trainer):
        raise ConfigError(
            f"torchrun has started {n_started} processes, and trainer.devices={trainer.get('devices', 1)} uses one; "
            f"set trainer=ddp trainer.devices={n_started}, or start kdzoo without torchrun"
        )


def leave_group() -> None:
    """Make this process one on its own, for work that many processes share without knowing each other.

    Torchrun and Slurm tell each process its place in a group by environment variables, from which Lightning takes that
    only the first one writes files. Called before Lightning is imported.
    """
    for name in list(os.environ):
        if name in GROUP_VARIABLES or name.startswith(("TORCHELASTIC_", "SLURM_")):
            del os.environ[name]
