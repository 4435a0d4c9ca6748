"""The command ``kdzoo cache``: the outputs of a teacher are stored before the runs that read them."""

import sys
from collections.abc import Callable, Collection
from concurrent.futures import BrokenExecutor

from omegaconf import DictConfig

from kdzoo.cli.launching import LOST_JOB
from kdzoo.cli.sweeps import JobFailedError, raised_errors
from kdzoo.errors import KdzooError


def fill(cfg: DictConfig, allow: Collection[str]) -> None:
    """Store the outputs that the run of a configuration reads, and print the folders and their sizes.

    Args:
        cfg: The composed configuration.
        allow: Exact names of the classes and functions that may be built.
    """
    from kdzoo.runs.caching import cache_outputs  # imports torch, which the process of a launcher may not need
    from kdzoo.runs.progress import displayed

    with displayed():
        folders = cache_outputs(cfg, allow=allow)
    for folder in dict.fromkeys(folders):
        print(f"{folder}: {sum(path.stat().st_size for path in folder.glob('*.safetensors')):,} bytes")


def fill_for_job(number: int, cfg: DictConfig, allow: Collection[str]) -> None:
    """Do :func:`fill` for a job of a sweep, whose failure stops no other job.

    Args:
        number: Its place in the sweep, from 0.
        cfg: The composed configuration.
        allow: Exact names of the classes and functions that may be built.

    Raises:
        JobFailedError: The job failed, and has said why.
    """
    try:
        fill(cfg, allow)
    except KdzooError as error:
        for line in str(error).splitlines():
            print(f"kdzoo: job {number + 1} failed: {line}", file=sys.stderr, flush=True)
        raise JobFailedError(f"job {number + 1} failed") from None


def launch(start: Callable[[], None]) -> None:
    """Run a sweep of :func:`fill_for_job`, and exit with 1 if a job has failed.

    Args:
        start: Starts Hydra, which runs the jobs.

    Raises:
        KdzooError: A process of Hydra's launcher was killed.
    """
    try:
        with raised_errors():
            start()
    except JobFailedError:
        sys.exit(1)
    except Exception as error:
        if not isinstance(error, BrokenExecutor) and type(error).__name__ not in LOST_JOB:
            raise
        raise KdzooError("the process of a job was killed; the same command continues with what is missing") from None
