"""A search by Optuna, which chooses the settings of a job by the scores of earlier ones: ``hydra/sweeper=optuna``.

The study is kept in the folder of the sweep. A trial has the number of its job, and its points are a function of the
sampler's seed, of its number and of earlier scores, so that a search that is continued makes no point twice.
"""

import hashlib
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from kdzoo.cli import sweep_jobs, sweeps
from kdzoo.cli.launching import PersistentLauncher, Task, consecutive
from kdzoo.cli.sweep_jobs import ENDED_WELL, Job, Sweep
from kdzoo.config.search_space import Choices, Interval, dimension
from kdzoo.config.sweepers import Direction, Sampler
from kdzoo.core import metric_catalogue
from kdzoo.errors import ConfigError
from kdzoo.storage import run_folder
from kdzoo.storage.study import open_study

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

# The attribute of a trial that repeats a failed one: the number of that one.
REPEATS = "repeats"


class OptunaSweeper(Sweeper):
    """Run trials until the study has as many as it should; see :class:`~kdzoo.config.sweepers.OptunaSettings`."""

    def __init__(
        self, n_trials: int, n_jobs: int, direction: Direction, sampler: Sampler, seed: int, params: Any = None
    ) -> None:
        # The parameters are among the arguments already: kdzoo checks them like those of the command line.
        del params
        self.n_trials, self.n_jobs, self.direction, self.sampler, self.seed = n_trials, n_jobs, direction, sampler, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the search; see ``hydra.plugins.sweeper.Sweeper``."""
        self.context = hydra_context
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=Task(task_function), config=config
        )
        self.persistent_launcher = PersistentLauncher(launcher)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing.

        Raises:
            ConfigError: The study maximizes a score of which lower values are better, or the other way round.
        """
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        overrides = parser.parse_overrides(arguments)
        fixed = [text for text, item in zip(arguments, overrides, strict=True) if not item.is_sweep_override()]
        several = [item for item in overrides if item.is_sweep_override()]
        space = {str(item.get_key_element()): distribution(dimension(item)) for item in several}
        sweep = sweep_jobs.read(Path(os.environ[sweeps.SWEEP]))
        with run_folder.lock(sweep.folder, wait_for="the same search"):
            study = open_study(sweep.folder, direction=self.direction.name)
            settle(study, sweep, space)
            while batch := self.next_batch(study, space):
                for run in consecutive(sorted(batch)):
                    self.persistent_launcher.launch([[*fixed, *batch[number]] for number in run], run[0])
                jobs = {job.number: job for job in sweep.jobs()}
                for number in batch:
                    tell(study, number, jobs.get(number, Job(number, [])))

    def next_batch(self, study: "Study", space: Mapping[str, "BaseDistribution"]) -> dict[int, list[str]]:
        """Return the overrides of the next trials by their numbers; empty if the study is complete."""
        from optuna.trial import TrialState

        trials = study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING][: self.n_jobs]
        if running:  # those of a search that was killed, whose settings are known
            return {trial.number: texts(trial.params) for trial in running}
        waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        n_points = sum(REPEATS not in trial.user_attrs for trial in trials)
        # Batches begin at multiples of their size, so that a search that was stopped between two has the same ones.
        end = min(self.n_trials, n_points - n_points % self.n_jobs + self.n_jobs)
        points = range(min(waiting, self.n_jobs)) if waiting else range(n_points, end)
        batch = {}
        for point in points:
            study.sampler = make_sampler(self.sampler, self.seed, point)
            trial = study.ask(dict(space))
            batch[trial.number] = texts(trial.params)
        return batch


def make_sampler(sampler: Sampler, seed: int, point: int) -> "BaseSampler":
    """Return a sampler whose random state is a function of its seed and of the number of the point."""
    from optuna import samplers

    digest = hashlib.sha256(f"{seed} {point}".encode()).digest()
    kinds: dict[Sampler, Any] = {Sampler.tpe: samplers.TPESampler, Sampler.random: samplers.RandomSampler}
    return kinds[sampler](seed=int.from_bytes(digest[:4], "big"))


def distribution(values: Choices | Interval) -> "BaseDistribution":
    """Return Optuna's description of the values of a setting."""
    from optuna import distributions

    if isinstance(values, Choices):
        return distributions.CategoricalDistribution(values.values)
    low, high, step = values.low, values.high, values.step
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=values.log, step=int(step or 1))
    return distributions.FloatDistribution(low, high, log=values.log, step=step)


def texts(params: Mapping[str, Any]) -> list[str]:
    """Return the settings of a trial as overrides."""
    return [f"{key}={value}" for key, value in params.items()]


def settle(study: "Study", sweep: Sweep, settings: Collection[str]) -> None:
    """Let a study continue where it was stopped.

    It is told of jobs that were done when the search was killed. The points of failed trials are tried again, as trials
    of their own, and their jobs are forgotten.

    Args:
        study: The study.
        sweep: The sweep.
        settings: The settings that the study gives values.
    """
    from optuna.trial import TrialState

    trials, jobs = study.get_trials(deepcopy=False), sweep.jobs()
    ended = {job.number: job for job in jobs if job.state in ENDED_WELL}
    repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.RUNNING and trial.params.keys() != set(settings):
            # The search was killed before all settings were written.
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state == TrialState.RUNNING and trial.number in ended:
            tell(study, trial.number, ended[trial.number])
    failed = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.FAIL]
    for trial in failed:
        if trial.number not in repeated:
            study.enqueue_trial(trial.params, user_attrs={REPEATS: trial.number})
    numbers = {trial.number for trial in failed}
    sweep.forget([job for job in jobs if job.number in numbers])


def tell(study: "Study", number: int, job: Job) -> None:
    """Tell a study how the job of a trial has ended.

    Raises:
        ConfigError: The study searches in the wrong direction.
    """
    from optuna.trial import TrialState

    score = sweep_jobs.searched_score(job.result)
    if job.state == "pruned":
        study.tell(number, state=TrialState.PRUNED)
    elif job.state != "done" or score is None or math.isnan(score):
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, score)
        check_direction(study.direction.name.lower(), job.result)


def check_direction(direction: str, result: Mapping[str, Any]) -> None:
    """Reject a direction that is not that of the score.

    Args:
        direction: ``maximize`` or ``minimize``.
        result: The result of a job that is done.

    Raises:
        ConfigError: Names both directions.
    """
    metric = metric_catalogue.find(result.get("metric", ""), result.get("kind"))
    right = {"higher": "maximize", "lower": "minimize", None: direction}[metric.better if metric else None]
    if direction != right and metric is not None:
        raise ConfigError(
            f"hydra.sweeper.direction={direction}, but a {metric.better} {result['metric']} is better; set "
            f"hydra.sweeper.direction={right}; the trials that are done are not computed again"
        )
