"""Runs of generative models and the cells of their tables, shared by the studies."""

import re
import statistics
from pathlib import Path
from typing import Any

import kdzoo
from kdzoo.reports import content


def run(folder: Path, seeds: int, *settings: str) -> dict[str, Any]:
    """Return the report of a run over several seeds, which is made unless it is in the folder.

    Args:
        folder: Folder of all runs of the study and of their cache.
        seeds: Number of seeds, from 0.
        *settings: Overrides, as on the command line.
    """
    name = re.sub(r"[^\w.]+", "_", "-".join(settings))  # overrides must not have signs of the grammar in a path
    places = [f"output_dir={folder / name}", f"cache_dir={folder / 'cache'}"]
    return kdzoo.run(kdzoo.compose(*settings, f"seeds={list(range(seeds))}", *places))


def values(report: dict[str, Any], role: str, metric: str) -> list[float]:
    """Return a metric of a model, for each seed or the one number of a run with one seed."""
    value = content.models(report)[role]["metrics"][metric]
    return value["values"] if isinstance(value, dict) else [value]


def cell(report: dict[str, Any], role: str, metric: str) -> str:
    """Return a metric of a model as mean and deviation over the seeds."""
    numbers = values(report, role, metric)
    spread = f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.2f}{spread}"
