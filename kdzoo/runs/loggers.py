"""Loggers of single trainings for Weights & Biases and MLflow, which need neither a network nor an answer to a prompt.

A run trains several models one after the other: teacher, student and controls. Each training is a run of its own there.
"""

import os
from pathlib import Path

import pytorch_lightning.loggers


class WandbLogger(pytorch_lightning.loggers.WandbLogger):
    """Log a training with Weights & Biases, offline unless told otherwise.

    Args:
        save_dir: Folder of the training, in which ``wandb/offline-run-*`` is written.
        project: Name of the project.
        group: Name that the trainings of one run share; None for none.
        entity: The user or team; None for the default one of the account.
        offline: Write local files only, for ``wandb sync``. False needs an account and a network.
    """

    def __init__(
        self,
        save_dir: str,
        *,
        project: str = "kdzoo",
        group: str | None = None,
        entity: str | None = None,
        offline: bool = True,
    ) -> None:
        import wandb

        # Not Lightning's own ``offline``, which would switch the whole process.
        super().__init__(
            name=training_name(Path(save_dir)),
            save_dir=save_dir,
            project=project,
            group=group,
            entity=entity,
            mode="offline" if offline else "online",
            settings=wandb.Settings(silent=True, console="off"),  # the terminal belongs to the progress display
        )
        # Lightning passes an argument that is deprecated in wandb, which warns of it.
        self._wandb_init.pop("anonymous", None)
        # Where the folder does not exist, wandb writes to the one for temporary files.
        Path(save_dir).mkdir(parents=True, exist_ok=True)

    def finalize(self, status: str) -> None:
        """End the run; otherwise the next training in this process would continue it."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


class MLFlowLogger(pytorch_lightning.loggers.MLFlowLogger):
    """Log a training with MLflow.

    Args:
        save_dir: Folder of the training, which the artifacts are written to.
        tracking_uri: The database of the runs, a local file (``sqlite:///FILE``), or the address of a server.
        experiment_name: Name of the experiment.
        tags: Further tags of the run.
    """

    def __init__(
        self,
        save_dir: str,
        *,
        tracking_uri: str,
        experiment_name: str = "kdzoo",
        tags: dict[str, str] | None = None,
    ) -> None:
        # MLflow sends usage statistics by default, for which it would wait without a network.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        file = tracking_uri.removeprefix("sqlite:///")
        if file != tracking_uri:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        super().__init__(
            save_dir=save_dir,
            tracking_uri=tracking_uri,
            experiment_name=experiment_name,
            run_name=training_name(Path(save_dir)),
            tags=tags,
            artifact_location=Path(save_dir).resolve().as_uri(),
        )


def training_name(folder: Path) -> str:
    """Return the name of a training, from the folder of its checkpoints.

    Example:
        >>> training_name(Path("outputs/first/seed_0/checkpoints/student"))
        'seed_0/student'
        >>> training_name(Path("outputs/cache/teachers/0a1b"))
        'teacher'
    """
    if folder.parent.name == "checkpoints":
        return f"{folder.parents[1].name}/{folder.name}"
    return "teacher" if folder.parent.name == "teachers" else folder.name
