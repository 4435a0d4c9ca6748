"""The sweepers that Hydra can be given as ``hydra/sweeper=NAME``, with their settings.

Their classes are in :mod:`kdzoo.cli`, since they run jobs.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore

# Hydra's default. It is replaced by GRID, which has the same settings, only when a sweep starts: a default of
# train.yaml could not be overridden by an experiment.
BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
GRID = "hydra_plugins.kdzoo_sweepers.GridSweeper"
OPTUNA = "hydra_plugins.kdzoo_sweepers.OptunaSweeper"

Direction = Enum("Direction", ["maximize", "minimize"])
Sampler = Enum("Sampler", ["tpe", "random"])


@dataclass
class GridSettings:
    """The settings of ``hydra/sweeper=grid``, which are those of Hydra's own sweeper.

    Attributes:
        max_batch_size: Jobs that are given to the launcher at a time; None: all.
        params: The values of settings, as on the command line.
    """

    _target_: str = GRID
    max_batch_size: int | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptunaSettings:
    """The settings of ``hydra/sweeper=optuna``.

    Attributes:
        n_trials: Trials of the whole study, at least 1; a search that is repeated runs those that are missing.
        n_jobs: Trials that are given to the launcher at a time, at least 1.
        direction: Whether a higher or a lower score is better.
        sampler: What chooses the settings of a trial.
        seed: Seed of the sampler.
        params: The search space, as on the command line.
    """

    _target_: str = OPTUNA
    n_trials: int = 20
    n_jobs: int = 1
    direction: Direction = Direction.maximize
    sampler: Sampler = Sampler.tpe
    seed: int = 0
    params: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Make the sweepers known to Hydra."""
    for name, node in {"grid": GridSettings, "optuna": OptunaSettings}.items():
        ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node, provider="kdzoo")
