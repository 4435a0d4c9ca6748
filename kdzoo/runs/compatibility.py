"""Which teachers, students and distillers work together, found by what a run does before it trains anything."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdzoo import config, kinds
from kdzoo.config import validate
from kdzoo.core.base import DRY_RUN_SAMPLES
from kdzoo.core.batch import as_batch
from kdzoo.errors import ConfigError, KdzooError, first_line
from kdzoo.runs import teachers
from kdzoo.runs.job import Job, for_seed
from kdzoo.runs.preparation import new_student, try_models

# Few and short samples: no more than a dry run needs.
_SMALL = ("seed=0", "max_samples=64", "max_batch_size=8", "max_sequence_length=16", "control=false")

_GROUPS = {"distiller", "teacher", "student", "data"}


@dataclass(frozen=True)
class Outcome:
    """Whether a teacher, a student and a distiller work together.

    Attributes:
        distiller: Name of the distiller's YAML file.
        teacher: Name of the teacher's file; None for a distiller without a teacher.
        student: Name of the student's file.
        data: Name of the data set that they work on; None if there is none among those that were tried.
        reason: Why they do not work; empty if they do.
    """

    distiller: str
    teacher: str | None
    student: str
    data: str | None
    reason: str = ""


class Compatibility:
    """Tries combinations of models and distillers on some data sets; settings, data and models are built once each.

    Args:
        data: Names of data sets to try, the preferred ones first.
        overrides: Further overrides of every combination, such as ``distiller.layers={...}``.
        config_dir: A folder with config groups of the user's own.
        allow: Exact names of the classes and functions that may be built.

    Example:
        >>> Compatibility(["digits", "reber"]).outcome("ot_pfa", "rnn_lm", "pfa").data
        'reber'
    """

    def __init__(
        self,
        data: Sequence[str],
        overrides: Sequence[str] = (),
        config_dir: Path | None = None,
        allow: Collection[str] = (),
    ) -> None:
        self.data, self.allow = list(data), {*config.packaged_targets(), *allow}
        self._overrides, self._config_dir = list(overrides), config_dir
        self._composed, self._data, self._fit = cache(self._compose), cache(self._build_data), cache(self._try_fit)

    def outcome(self, distiller: str, teacher: str, student: str) -> Outcome:
        """Try a combination on each data set that fits both models, until one works.

        Args:
            distiller: Name of its YAML file.
            teacher: Name of its file; not used by a distiller without a teacher.
            student: Name of its file.
        """
        method = config.locate(self._composed(f"distiller={distiller}").distiller._target_)
        used_teacher = None if method.info.teacher == "none" else teacher
        reasons = []
        for name in self.data:
            misfit, model_kinds = self._fit(used_teacher, student, name)
            try:
                if misfit:
                    raise ConfigError(misfit)
                # Before the models are built once more; a dry run checks the same.
                for role, supported in (("teacher", method.info.teacher_kinds), ("student", method.info.student_kinds)):
                    if role in model_kinds:
                        kinds.check_supported(role, model_kinds[role], supported, method.__name__)
                try_models(self._job(name, used_teacher, student, distiller), method, self._data(name))
                return Outcome(distiller, used_teacher, student, name)
            except KdzooError as error:
                # What a method has against models says more than that they do not fit some data.
                reasons.append((bool(misfit), first_line(error)))
        return Outcome(distiller, used_teacher, student, None, min(reasons, key=lambda reason: reason[0])[1])

    def _try_fit(self, teacher: str | None, student: str, data_name: str) -> tuple[str, dict[str, kinds.Kind]]:
        """Return why the models do not fit a data set, or else an empty string and their kinds."""
        try:
            data = self._data(data_name)
            job = self._job(data_name, teacher, student)
            batch = as_batch(next(iter(data.train_eval_dataloader())))
            sample = {key: value[:DRY_RUN_SAMPLES] for key, value in batch.items()}
            models = {} if teacher is None else {"teacher": teachers.build(job, data.sizes)}
            models["student"] = new_student(job, models.get("teacher"), data)
            model_kinds = {role: job.kind_of(role, model, data.sizes) for role, model in models.items()}
            for role, kind in model_kinds.items():
                kind.check(role, models[role], sample, data.sizes)
        except KdzooError as error:
            return first_line(error), {}
        return "", model_kinds

    def _job(self, data_name: str, teacher: str | None, student: str, distiller: str | None = None) -> Job:
        """Return the settings of a combination, or raise a ConfigError with the first mistake in them."""
        # Each option is composed once and put into the settings of the distiller, since composing takes a while.
        # Without a distiller, a synthetic set needs some network to be trained on it.
        cfg = self._composed("inner_network=logistic" if distiller is None else f"distiller={distiller}").copy()
        OmegaConf.set_struct(cfg, False)
        for group, name in (("data", data_name), ("teacher", teacher), ("student", student)):
            if name is not None:
                cfg[group] = self._composed(f"{group}={name}")[group]
        mistakes = validate.mistakes(cfg, self.allow)
        if mistakes:
            raise ConfigError(mistakes[0])
        return Job(for_seed(cfg, 0), 0, Path(cfg.output_dir), self.allow)

    def _build_data(self, name: str) -> Any:
        cfg = self._composed(f"data={name}")
        return Job(for_seed(cfg, 0), 0, Path(cfg.output_dir), self.allow).data()

    def _compose(self, *chosen: str) -> DictConfig:
        # A setting of the distiller, say, is not one of the default distiller, with which models are composed.
        groups = {text.split("=")[0] for text in chosen}
        fitting = [
            text for text in self._overrides if text.split(".")[0] in groups or text.split(".")[0] not in _GROUPS
        ]
        return config.compose(*_SMALL, *fitting, *chosen, config_dir=self._config_dir)
