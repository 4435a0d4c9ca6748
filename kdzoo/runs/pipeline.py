"""A run: preparing the teacher, distillation, controls and evaluation for every seed, and one report of all seeds."""

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kdzoo import config, kinds, plotting
from kdzoo.config import registry, validate
from kdzoo.config.overrides import folders_of
from kdzoo.config.processes import check_processes, is_data_parallel
from kdzoo.core.base import Distiller
from kdzoo.errors import ConfigError
from kdzoo.kinds.protocols import (
    DescribesExport,
    Exports,
    HasReferenceScores,
    PlotsModel,
    Recommends,
)
from kdzoo.reports.content import ROLES
from kdzoo.reports.html import to_html
from kdzoo.reports.markdown import to_markdown
from kdzoo.reports.run_result import RunResult
from kdzoo.runs import snapshots, statistics, teachers, written_settings
from kdzoo.runs.evaluation import bound_kind, evaluate
from kdzoo.runs.job import Job, calibrated, for_seed, initialised
from kdzoo.runs.preparation import has_teacher_free_control, prepare_models, student_node, with_learned_sizes
from kdzoo.runs.progress import displayed
from kdzoo.runs.resume import stop_between_steps
from kdzoo.runs.training import HISTORY_FILE, History, fit_in_run
from kdzoo.storage import atomic, checked_json, run_folder
from kdzoo.storage.checkpoint import save_model


def run(
    cfg: DictConfig | Mapping[str, Any] | str | Path,
    *,
    allow: Collection[str] = (),
    command: str = "",
    wait: bool = False,
) -> RunResult:
    """Distil once for every seed, write the report to the run folder, and return it.

    Called again with the same configuration and folder, it continues an interrupted run, with bit-for-bit the same
    results as an uninterrupted one, and returns the report of a finished run.

    Args:
        cfg: What ``kdzoo.compose`` returns, or the path of a ``config.yaml`` that a run has written. Such a file is
            data: its values are plain, and it decides neither on ``cache_dir`` nor on a logger.
        allow: Names of your own classes that the configuration may build; packaged ones are always allowed.
        command: The command line that starts this run again, for the report; by default that of the overrides which
            ``kdzoo.compose`` was given, or else a call with the run's ``config.yaml``.
        wait: Whether to wait for another process that uses the run folder, which is an error otherwise.

    Returns:
        The report, as a dictionary that is printed as a table; its keys are documented in ``docs/report.md``.

    Raises:
        ConfigError: The configuration has mistakes; the message has a line for each. Nothing has been built then.
        KdzooError: The data, a file or the training has failed.
    """
    cfg = _as_config(cfg)
    allow = {*config.packaged_targets(), *allow}
    mistakes = validate.mistakes(cfg, allow)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    check_processes(cfg.trainer)
    folder, settings = Path(cfg.output_dir), config.plain_settings(cfg)
    # Before the lock, which cannot be taken where nothing can be written, such as on a medium that only can be read.
    if (finished := run_folder.finished_report(folder, settings, free=config.FREE_WHEN_CONTINUED)) is not None:
        return RunResult(finished, folder, allow)
    seeds = list(cfg.seeds) if cfg.seed is None else [cfg.seed]
    with run_folder.lock(folder, wait_for="the same run" if wait else ""), stop_between_steps():
        run_folder.reserve(folder, settings, free=config.FREE_WHEN_CONTINUED)
        finished = run_folder.read_report(folder / "report.json")  # of a process that this one has waited for
        if finished is not None:
            return RunResult(finished, folder, allow)
        jobs = [Job(for_seed(cfg, seed), seed, folder / f"seed_{seed}", allow) for seed in seeds]
        command = command or config.composing_command(cfg) or f"kdzoo.run({str(folder / 'config.yaml')!r})"
        result = summarise(jobs, run_seeds(jobs), command)
        if run_folder.is_main_process():
            with atomic.explained_errors(folder):
                write_report(folder, jobs[0], result)
    return RunResult(result, folder, allow)


def run_seeds(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return the measurements of all seeds, and show the progress meanwhile."""
    outcomes = []
    with displayed() as display:
        for i, job in enumerate(jobs, 1):
            display.part = f"seed {i} of {len(jobs)}" if len(jobs) > 1 else ""
            outcomes.append(run_seed(job))
    return outcomes


def run_seed(job: Job) -> dict[str, Any]:
    """Prepare, train, evaluate and export for one seed, and return its measurements.

    The measurements of a seed that is already finished are read from its folder, so that an interrupted run continues
    with the first unfinished seed.
    """
    finished = run_folder.read_if_present(job.folder / "result.json")
    if finished is not None:
        return finished
    data = job.data()
    method: type[Distiller] = config.locate(job.settings["distiller"]["_target_"])
    check_method(method, job.settings)
    seconds, started = {}, time.perf_counter()
    models, is_cacheable = prepare_models(job, method, data)
    kind = bound_kind(job.kind_of("student", models["student"]), data, job.settings)
    seconds["teacher"] = time.perf_counter() - started

    started = time.perf_counter()
    distiller = job.distiller(models["student"], models.get("teacher"))
    transfer_set = distiller.transfer_set(data)
    if is_cacheable:
        teachers.cache_teacher_outputs(job, distiller, transfer_set)
    seconds["student"] = time.perf_counter() - started
    drawing = snapshots.drawing(kind, data)
    history = train(job, distiller, transfer_set, "student", drawing)
    seconds["student"] += history.seconds  # of all sessions, if the training was interrupted

    node = with_learned_sizes(student_node(job, models.get("teacher"), data), models["student"])
    control_distillers = controls(job, distiller, kind, node, data) if job.settings["control"] else {}
    for role, control in control_distillers.items():
        # Controls have the same start as the student: built from the same seed and calibrated on the same data.
        models[role] = calibrated(control.student, data)
        seconds[role] = train(job, control, control.transfer_set(data), role, drawing).seconds

    models |= distiller.report_extras.baselines(transfer_set)
    if isinstance(kind, HasReferenceScores):
        models |= kind.reference_models(models, data)
    unseen = job.settings["data"].get("exclude_classes") or ()
    result = evaluate(kind, models, data, job.folder, unseen)
    result |= {"seconds": seconds, "cpu_seconds": {"student": history.cpu_seconds}}
    add_warnings(result, {"student": distiller, **control_distillers})
    add_measurements(result, distiller, control_distillers, kind, data)
    if run_folder.is_main_process():
        with atomic.explained_errors(job.folder):  # figures and programs are written by libraries
            write_seed(job, distiller, kind, models, node, data)
        # Last: this file marks the seed as finished.
        checked_json.write(job.folder / "result.json", result)
    return result


def add_warnings(result: dict[str, Any], trained: Mapping[str, Distiller]) -> None:
    """Add what methods say of trainings that ended and yet failed, with the role of the model, in place."""
    for role, distiller in trained.items():
        result["warnings"] += [f"{role}: {subject}: {warning}" for subject, warning in distiller.warnings.items()]


def check_method(method: type[Distiller], settings: Mapping[str, Any]) -> None:
    """Reject settings of a run that its method is exempt from.

    Args:
        method: The distiller.
        settings: The settings of the run.

    Raises:
        ConfigError: Names the setting, the method and the reason.
    """
    trainer = settings["trainer"]
    used = {
        "compile": ("compile=true", settings["compile"]),
        "data_parallel": (f"trainer.devices={trainer.get('devices', 1)}", is_data_parallel(trainer)),
    }
    for name, (setting, is_used) in used.items():
        if is_used and name in method.info.exempt:
            raise ConfigError(f"{setting} does not work with {method.__name__}: {method.info.exempt[name]}")


def add_measurements(
    result: dict[str, Any], distiller: Distiller, controls: Mapping[str, Distiller], kind: kinds.Kind, data: Any
) -> None:
    """Add the metrics that the distiller itself measures to those of the student and its controls, in place."""
    batches = list(data.test_dataloader())
    for role, role_distiller in {"student": distiller, **controls}.items():
        # A control that was trained by another method is measured in the same way as the student.
        has_same_method = isinstance(role_distiller, type(distiller))
        extras = (role_distiller if has_same_method else distiller).report_extras
        result["models"][role]["metrics"] |= extras.measurements(
            role_distiller.student, batches, partial(kinds.quick_scores, kind)
        )


def controls(
    job: Job, distiller: Distiller, kind: kinds.Kind, node: Mapping[str, Any], data: Any
) -> dict[str, Distiller]:
    """Return the distillers that train the student's controls, by role: one without a teacher, others by settings."""
    by_role = {}
    if has_teacher_free_control(job, kind):
        student = job.build("student", node)
        by_role["control"] = job.teacher_free(student, str(kind.teacher_free), job.settings["control_training"])
    for role, changes in distiller.report_extras.controls.items():
        student = initialised(job.build("student", node), distiller.teacher, data)
        by_role[role] = job.distiller(student, distiller.teacher, changes)
    return by_role


def train(job: Job, distiller: Distiller, data: Any, role: str, snapshot: snapshots.Draw | None = None) -> History:
    """Train a distiller, compiled if the run is set to, with its checkpoints in the folder of its role.

    Args:
        job: The job.
        distiller: The distiller, with the model that is trained.
        data: What it is trained on.
        role: The role of that model.
        snapshot: Draws that model now and then; None: it is not drawn.
    """
    if job.settings["compile"]:
        # In place: torch.compile(student) would return a wrapper and rename the keys of every checkpoint.
        distiller.student.compile()
    stages = {"student": "distilling the student", "control": "training the control"}
    stage = stages.get(role, f"training the control {role!r}")
    # Other controls are students of the same method with other settings.
    changes = {"max_epochs": job.settings["control_training"]["max_epochs"]} if role == "control" else {}
    training = job.training(f"{role}, seed {job.seed}", job.folder / "checkpoints" / role, stage=stage, **changes)
    return fit_in_run(distiller, data, replace(training, snapshot=snapshot))


def write_seed(
    job: Job,
    distiller: Distiller,
    kind: kinds.Kind,
    models: Mapping[str, nn.Module],
    node: Mapping[str, Any],
    data: Any,
) -> None:
    """Write the figures and the exported models of one seed."""
    figures = job.folder / "figures"
    other_controls = distiller.report_extras.controls
    draw_histories(
        job.folder, [*ROLES, *other_controls], [name for name, weight in distiller.loss_weights.items() if not weight]
    )
    distiller.report_extras.figures(figures)
    if isinstance(kind, PlotsModel):
        kind.plot_model(models, figures, data)
    for role in models.keys() & {"student", "control", *other_controls}:
        save_model(models[role], node, job.folder / role)
    if isinstance(kind, Exports):
        kind.export(models["student"], job.folder / "student", data)


def summarise(jobs: list[Job], outcomes: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """Return the report over all seeds; its keys are documented in ``docs/report.md``.

    Args:
        jobs: The jobs of all seeds.
        outcomes: The results of :func:`run_seed`, in the same order.
        command: The command line that starts the run again.
    """
    settings = jobs[0].settings
    merged = statistics.over_seeds([outcome["models"] for outcome in outcomes])
    kind = jobs[0].kind_named(outcomes[0]["kind"])
    score = kind.score
    fidelity = statistics.over_seeds([outcome["fidelity"] for outcome in outcomes])
    # Seeds that an earlier version has finished have no such score.
    validation: list[Any] = [outcome.get("validation") for outcome in outcomes]
    by_role = {
        role: [outcome["models"][role]["metrics"][score] for outcome in outcomes] if role in merged else None
        for role in ROLES
    }
    result = {
        # Raised whenever a key changes its name or meaning, for programs that read reports.
        "schema": 1,
        "kind": kind.name,
        "score": score,
        **{
            group: registry.name_of(group, settings[group]["_target_"], folders_of(command))
            for group in ("distiller", "data")
        },
        "seed": jobs[0].seed if len(jobs) == 1 else [job.seed for job in jobs],
        "teacher": merged.get("teacher"),
        "student": merged["student"],
        "control": merged.get("control"),
        "validation": None if None in validation else sum(validation) / len(validation),
        "controls": {role: values for role, values in merged.items() if role not in ("teacher", "student")},
        "fidelity": fidelity,
        "recommendation": kind.recommendation(statistics.means(fidelity)) if isinstance(kind, Recommends) else None,
        "warnings": _warnings(jobs, outcomes),
        "comparison": statistics.comparison(score, by_role, lower_is_better=kind.lower_is_better),
        "splits": outcomes[0]["splits"],
        **{
            clock: {role: sum(outcome[clock][role] for outcome in outcomes) for role in outcomes[0][clock]}
            for clock in ("seconds", "cpu_seconds")
        },
        "threads": torch.get_num_threads(),
        "versions": statistics.versions(),
        "command": command,
    }
    return {**result, "expected": statistics.compare_with_expected(result, settings["expected"])}


def _warnings(jobs: Sequence[Job], outcomes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the warnings of all seeds, with their seeds; those that an earlier version has finished have none."""
    pairs = zip(jobs, outcomes, strict=True)
    return [f"seed {job.seed}, {warning}" for job, outcome in pairs for warning in outcome.get("warnings", ())]


def write_report(folder: Path, first_job: Job, result: Mapping[str, Any]) -> None:
    """Write the report and the exported student; ``report.json`` last, since it marks the run as finished.

    The report's figures and the student are those of the first seed.
    """
    figures = sorted(path.relative_to(folder).as_posix() for path in (first_job.folder / "figures").glob("*.png"))
    citations = registry.citations(*config.targets(first_job.settings))
    atomic.write_text(folder / "citations.bib", citations)
    atomic.write_text(folder / "report.md", to_markdown(result, figures))
    atomic.write_text(folder / "report.html", to_html(result, first_job.settings, folder, figures, citations))
    shutil.copytree(first_job.folder / "student", folder / "student", dirs_exist_ok=True)
    kind = first_job.kind_named(result["kind"])
    if isinstance(kind, DescribesExport):
        kind.describe(folder / "student", result)
    checked_json.write(folder / "report.json", result)


def draw_histories(folder: Path, roles: Sequence[str], measured: Collection[str]) -> None:
    """Plot the loss terms of all models that were trained, on training and validation data, and their snapshots.

    Args:
        folder: Folder of a seed.
        roles: The models that may have been trained, in the order of the legend.
        measured: Names of the terms that were not optimized.
    """
    histories = {role: run_folder.read_if_present(folder / "checkpoints" / role / HISTORY_FILE) for role in roles}
    trained = {role: history for role, history in histories.items() if history is not None}
    curves = {role: training_curves(history) for role, history in trained.items()}
    plotting.loss_curves(curves, folder / "figures" / "losses.png", measured=measured)
    for role, history in trained.items():  # a history of an earlier version has no snapshots
        snapshots.draw(role, history.get("snapshots", {}), folder / "figures")


def training_curves(history: Mapping[str, Any]) -> plotting.TrainingCurves:
    """Return the curves of a history: those of its terms over steps and, without their sum, over epochs from 1.

    Args:
        history: What ``History.state_dict`` returns.
    """
    training, validation = {}, {}
    for name, values in history["terms"].items():
        points = [(step, value) for step, value in zip(history["steps"], values, strict=True) if value is not None]
        training[name] = [step for step, _ in points], [value for _, value in points]
    for name in {name: None for metrics in history["validation"] for name in metrics if name.startswith("val/")}:
        points = [(metrics["epoch"] + 1, metrics[name]) for metrics in history["validation"] if name in metrics]
        # Methods weight different terms, so that their sums cannot be compared; the terms of one name can.
        if name != "val/loss":
            validation[name.removeprefix("val/")] = [epoch for epoch, _ in points], [value for _, value in points]
    return plotting.TrainingCurves(training, validation)


def _as_config(cfg: DictConfig | Mapping[str, Any] | str | Path) -> DictConfig:
    if isinstance(cfg, DictConfig):
        return cfg
    return OmegaConf.create(dict(cfg)) if isinstance(cfg, Mapping) else written_settings.load(Path(cfg))
