"""The jobs of a sweep, as far as they are known before it starts."""

import itertools
from collections.abc import Sequence

from omegaconf import DictConfig

from kdzoo.config.sweepers import BASIC, GRID


def combinations(job: DictConfig, columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the overrides of each job of a sweep over all combinations; empty for a sweeper that chooses them.

    Args:
        job: The configuration of one job, with Hydra's own settings.
        columns: For each override, one override for every value.
    """
    if job.hydra.sweeper.get("_target_") not in (BASIC, GRID):
        return []
    return [[text.removeprefix("++") for text in row] for row in itertools.product(*columns)]
