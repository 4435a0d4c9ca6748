"""Stopping a run of a search that promises less than earlier ones, by Optuna's median rule."""

import os
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig

from kdzoo.config.processes import SWEEP
from kdzoo.errors import ConfigError, PrunedError
from kdzoo.storage.study import FILE, open_study


class Pruning(pl.Callback):
    """Report a validation metric of the student after every epoch, and stop the run if Optuna finds it too bad.

    A run is stopped if its best value so far is worse than the median of what the other trials reported at the same
    epoch. Trainings of teachers and controls are not stopped, and nothing is outside of a search.

    Args:
        monitor: Name of the metric, ``val/loss`` or ``val/<term>``.
        mode: Whether a smaller (``min``) or a larger (``max``) value is better.
        startup_trials: Number of trials that are never stopped, at least 0.
        warmup_epochs: Number of epochs after which a training may be stopped, at least 0.

    Raises:
        ConfigError: A number is negative, or the mode is unknown.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        startup_trials: int = 5,
        warmup_epochs: int = 0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"mode must be min or max, got {mode!r}")
        for name, number in {"startup_trials": startup_trials, "warmup_epochs": warmup_epochs}.items():
            if number < 0:
                raise ConfigError(f"{name} must be at least 0, got {number}")
        self.monitor, self.mode = monitor, mode
        self.startup_trials, self.warmup_epochs = startup_trials, warmup_epochs

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: ARG002
        """Report the metric, and stop the run on all ranks if the first one is told to.

        Raises:
            PrunedError: The run is to be stopped.
            ConfigError: The metric does not exist; the message names those that do.
        """
        is_hopeless = self._is_searched(trainer) and self._is_hopeless(trainer)
        if trainer.strategy.reduce_boolean_decision(is_hopeless, all=False):
            raise PrunedError(f"pruned after epoch {trainer.current_epoch}")

    @staticmethod
    def _is_searched(trainer: pl.Trainer) -> bool:
        """Return whether this is the training of the student of a trial; on other ranks than the first, it is not."""
        is_student = Path(trainer.default_root_dir).name == "student"
        return is_student and (Path(os.environ.get(SWEEP, "")) / FILE).is_file() and HydraConfig.initialized()

    def _is_hopeless(self, trainer: pl.Trainer) -> bool:
        """Report the metric to the study; return whether the run is to be stopped."""
        from optuna.pruners import MedianPruner
        from optuna.study import StudyDirection
        from optuna.trial import Trial

        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise ConfigError(f"callbacks.pruning.monitor={self.monitor} must be one of {', '.join(sorted(metrics))}")
        study = open_study(Path(os.environ[SWEEP]), pruner=MedianPruner(self.startup_trials, self.warmup_epochs))
        trial = Trial(study, study.get_trials(deepcopy=False)[HydraConfig.get().job.num]._trial_id)
        value = float(metrics[self.monitor])
        is_same = (study.direction == StudyDirection.MINIMIZE) == (self.mode == "min")
        # The epochs of further seeds follow those of the first one. The folder is seed_<n>/checkpoints/student.
        run_folder = Path(trainer.default_root_dir).parents[2]
        n_seeds = len(list(run_folder.glob("seed_*/result.json")))
        trial.report(value if is_same else -value, n_seeds * (trainer.max_epochs or 0) + trainer.current_epoch)
        return trial.should_prune()
