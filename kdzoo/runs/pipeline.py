"""A run: teacher, distillation, controls, evaluation and report, once for every seed."""

import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kdzoo import config, kinds, plotting
from kdzoo.config import registry, validate
from kdzoo.core.abilities import HasLearnedSizes, InitialisesFromTeacher
from kdzoo.core.base import DRY_RUN_SAMPLES, Distiller
from kdzoo.core.batch import as_batch
from kdzoo.errors import ConfigError, DataError
from kdzoo.kinds.protocols import (
    DescribesExport,
    Exports,
    HasReferenceScores,
    PlotsModel,
    Recommends,
    RestrictsControl,
)
from kdzoo.runs import report, teachers
from kdzoo.runs.evaluation import bound_kind, evaluate
from kdzoo.runs.job import Job, calibrated, for_seed, initialised
from kdzoo.runs.resume import stop_between_steps
from kdzoo.runs.training import History, fit
from kdzoo.storage import atomic, run_folder
from kdzoo.storage.checkpoint import save_model


def run(
    cfg: DictConfig | Mapping[str, Any] | str | Path, *, allow: Collection[str] = (), command: str = ""
) -> dict[str, Any]:
    """Distil once for every seed and return the report that is left in the run folder.

    The same configuration in the same folder continues an interrupted run, bit for bit, and returns the
    report of a finished one.

    Args:
        cfg: what ``kdzoo.compose`` returns, or the path of a ``config.yaml`` that a run left.
        allow: names of your own classes that the configuration may build; the packaged ones always may.
        command: the line that starts this run again, for the report.

    Raises:
        ConfigError: all mistakes of the configuration, a line each, before anything is built.
        KdzooError: the data, a file or the training are at fault.
    """
    cfg = _loaded(cfg)
    allow = {*config.packaged_targets(), *allow}
    found = validate.mistakes(cfg, allow)
    if found:
        raise ConfigError("\n".join(found))
    folder = Path(cfg.output_dir)
    seeds = list(cfg.seeds) if cfg.seed is None else [cfg.seed]
    with run_folder.lock(folder), stop_between_steps():
        run_folder.reserve(folder, config.to_container(cfg), free=config.FREE_KEYS)
        finished = run_folder.read_json(folder / "report.json")
        if finished is not None:
            return finished
        jobs = [Job(for_seed(cfg, seed), seed, folder / f"seed_{seed}", allow) for seed in seeds]
        outcomes = [run_seed(job) for job in jobs]
        result = summarise(jobs, outcomes, command or f"kdzoo.run({str(folder / 'config.yaml')!r})")
        if run_folder.is_main_process():
            write_report(folder, jobs[0], result)
    return result


def run_seed(job: Job) -> dict[str, Any]:
    """Do everything for one seed and return its measurements; those of a finished seed are read from its folder."""
    finished = run_folder.read_json(job.folder / "result.json")
    if finished is not None:
        return finished
    data = job.data()
    method: type[Distiller] = config.locate(job.settings["distiller"]["_target_"])
    if job.settings["compile"] and "compile" in method.info.exempt:
        raise ConfigError(f"compile=true does not work with {method.__name__}: {method.info.exempt['compile']}")
    seconds, started = {}, time.perf_counter()
    models, is_cacheable = prepare_models(job, method, data)
    kind = bound_kind(job.kind_of("student", models["student"]), data, job.settings)
    seconds["teacher"] = time.perf_counter() - started

    started = time.perf_counter()
    distiller = job.distiller(models["student"], models.get("teacher"))
    transfer_set = distiller.transfer_set(data)
    if is_cacheable:
        teachers.cache_teacher_outputs(job, distiller, transfer_set)
    history = train(job, distiller, transfer_set, "student")
    seconds["student"] = time.perf_counter() - started

    node = with_learned_sizes(student_node(job, models.get("teacher"), data), models["student"])
    control_distillers = controls(job, distiller, kind, node, data) if job.settings["control"] else {}
    for role, control in control_distillers.items():
        models[role] = calibrated(control.student, data)
        seconds[role] = train(job, control, control.transfer_set(data), role).seconds

    models |= distiller.report_extras.baselines(transfer_set)
    if isinstance(kind, HasReferenceScores):
        models |= kind.reference_models(models, data)
    unseen = job.settings["data"].get("exclude_classes") or ()
    result = evaluate(kind, models, data, job.folder, unseen)
    result |= {"seconds": seconds, "cpu_seconds": {"student": history.cpu_seconds}}
    for role, trained in {"student": distiller, **control_distillers}.items():
        # A control of another method is measured as this method measures its student.
        extras = (trained if isinstance(trained, method) else distiller).report_extras
        batches = list(data.test_dataloader())
        result["models"][role]["metrics"] |= extras.measurements(
            trained.student, batches, partial(kinds.quick_scores, kind)
        )
    if run_folder.is_main_process():
        write_seed(job, distiller, kind, models, node, data, history)
        atomic.write_json(job.folder / "result.json", result)
    return result


def prepare_models(job: Job, method: type[Distiller], data: Any) -> tuple[dict[str, nn.Module], bool]:
    """Return a trained teacher and a new student by role, and whether the teacher's outputs can be cached.

    Before the teacher is trained, everything is tried out in a dry run. It may change the models (a method's ``prepare``
    does) and copying them may not be affordable, so those of the dry run are dropped and built again: their weights are
    functions of the seed. A teacher that brings its weights is kept, since building it again would mean loading it again.
    """
    teacher = None if method.info.teacher == "none" else teachers.build(job, data.sizes)
    student = new_student(job, teacher, data)
    with unfrozen_afterwards(teacher):
        is_cacheable = dry_run(job, method, student, teacher, data)
    del student
    if teacher is not None:
        if not teachers.brings_weights(job, teacher):
            teacher = teachers.build(job, data.sizes)
        teachers.train(job, job.kind_of("teacher", teacher), teacher, data.sizes)
    student = initialised(new_student(job, teacher, data), teacher, data)
    return {**({} if teacher is None else {"teacher": teacher}), "student": student}, is_cacheable


def new_student(job: Job, teacher: nn.Module | None, data: Any) -> nn.Module:
    """Return a new student, calibrated on the data."""
    return calibrated(job.build("student", student_node(job, teacher, data)), data)


def student_node(job: Job, teacher: nn.Module | None, data: Any) -> dict[str, Any]:
    """Return the student's configuration with the sizes that the data and the teacher's architecture fix."""
    return job.node("student", {**data.sizes, **teachers.sizes(teacher)})


@contextmanager
def unfrozen_afterwards(model: nn.Module | None) -> Iterator[None]:
    """Restore which parameters of a model need gradients and which modules are in training mode."""
    parameters = [] if model is None else [(one, one.requires_grad) for one in model.parameters()]
    modules = [] if model is None else [(one, one.training) for one in model.modules()]
    try:
        yield
    finally:
        for parameter, requires_grad in parameters:
            parameter.requires_grad_(requires_grad)
        for module, training in modules:
            module.training = training


def dry_run(job: Job, method: type[Distiller], student: nn.Module, teacher: nn.Module | None, data: Any) -> bool:
    """Before anything is trained, reject models, arguments and settings that do not fit each other or the data.

    Returns:
        Whether the method reads the teacher only through its outputs, so that these can be cached.
    """
    batch = as_batch(next(iter(data.train_eval_dataloader())))
    sample = {key: value[:DRY_RUN_SAMPLES] for key, value in batch.items()}
    if next(iter(data.test_dataloader() or ()), None) is None:
        raise DataError(f"{type(data).__name__} has no test split; a report needs at least one labelled test sample")
    for role, model, supported in (
        ("student", student, method.info.student_kinds),
        ("teacher", teacher, method.info.teacher_kinds),
    ):
        if model is not None:
            kind = job.kind_of(role, model)
            if kind is not job.chosen_kind:  # whoever chooses a kind knows that the method works with it
                kinds.check_supported(role, kind, supported, method.__name__)
            kind.check(role, model, sample, data.sizes)
    if teacher is not None and not teachers.brings_weights(job, teacher):
        check_trainable(job.kind_of("teacher", teacher), teacher)
    student_kind = job.kind_of("student", student)
    if (
        job.settings["control"]
        and has_teacher_free_control(job, student_kind)
        and isinstance(student_kind, RestrictsControl)
    ):
        student_kind.check_teacher_free(student)
    if teacher is not None and isinstance(student, InitialisesFromTeacher):
        student.check_init_from_teacher(teacher, data)
    distiller = job.distiller(student, teacher)
    distiller.dry_run(sample)
    return distiller.frozen_teacher.is_cacheable


def check_trainable(kind: kinds.Kind, teacher: nn.Module) -> None:
    """Reject a teacher without weights of a kind that cannot be trained here."""
    if kind.teacher_free is None:
        raise ConfigError(
            f"teacher {type(teacher).__name__} has no weights, and a model of kind {kind.name} is not trained here; "
            "set teacher=hf teacher.path=FOLDER, or teacher_training.checkpoint"
        )


def has_teacher_free_control(job: Job, kind: kinds.Kind) -> bool:
    """Return whether a control can be trained without the teacher, and by another method than the student's."""
    return kind.teacher_free not in (None, job.settings["distiller"]["_target_"])


def controls(
    job: Job, distiller: Distiller, kind: kinds.Kind, node: Mapping[str, Any], data: Any
) -> dict[str, Distiller]:
    """Return the distillers of the student's controls by role: without the teacher, and with other settings."""
    found = {}
    if has_teacher_free_control(job, kind):
        found["control"] = job.teacher_free(job.build("student", node), str(kind.teacher_free))
    for role, changes in distiller.report_extras.controls.items():
        student = initialised(job.build("student", node), distiller.teacher, data)
        found[role] = job.distiller(student, distiller.teacher, changes)
    return found


def with_learned_sizes(node: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return a model's configuration with the sizes that were found for it in the run, such as a number of states."""
    return {**node, **(model.learned_sizes if isinstance(model, HasLearnedSizes) else {})}


def train(job: Job, distiller: Distiller, data: Any, role: str) -> History:
    """Train one distiller in its own folder."""
    if job.settings["compile"]:
        distiller.student.compile()
    return fit(distiller, data, job.training(f"{role}, seed {job.seed}", job.folder / "checkpoints" / role))


def write_seed(
    job: Job,
    distiller: Distiller,
    kind: kinds.Kind,
    models: Mapping[str, nn.Module],
    node: Mapping[str, Any],
    data: Any,
    history: History,
) -> None:
    """Write the figures, the exported models and the history of one seed."""
    figures = job.folder / "figures"
    optimized = [name for name, weight in distiller.loss_weights.items() if weight]
    draw_history(history, optimized, job.folder)
    distiller.report_extras.figures(figures)
    if isinstance(kind, PlotsModel):
        kind.plot_model(models, figures, data)
    for role in models.keys() & {"student", "control", *distiller.report_extras.controls}:
        save_model(models[role], node, job.folder / role)
        if isinstance(kind, Exports):
            kind.export(models[role], job.folder / role, data)
    atomic.write_json(job.folder / "history.json", history.state_dict())


def summarise(jobs: list[Job], outcomes: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """Return the report over all seeds; its keys are documented in ``docs/report.md``."""
    settings = jobs[0].settings
    merged = report.over_seeds([outcome["models"] for outcome in outcomes])
    kind = jobs[0].kind_named(outcomes[0]["kind"])
    score = kind.score
    fidelity = report.over_seeds([outcome["fidelity"] for outcome in outcomes])
    by_role = {
        role: [outcome["models"][role]["metrics"][score] for outcome in outcomes] if role in merged else None
        for role in report.ROLES
    }
    result = {
        "schema": 1,
        "kind": kind.name,
        "score": score,
        "distiller": registry.name_of("distiller", settings["distiller"]["_target_"]),
        "data": registry.name_of("data", settings["data"]["_target_"]),
        "seed": jobs[0].seed if len(jobs) == 1 else [job.seed for job in jobs],
        "teacher": merged.get("teacher"),
        "student": merged["student"],
        "control": merged.get("control"),
        "controls": {role: one for role, one in merged.items() if role not in ("teacher", "student")},
        "fidelity": fidelity,
        "recommendation": kind.recommendation(report.means(fidelity)) if isinstance(kind, Recommends) else None,
        "comparison": report.comparison(score, by_role, lower_is_better=kind.lower_is_better),
        "splits": outcomes[0]["splits"],
        **{
            clock: {role: sum(one[clock][role] for one in outcomes) for role in outcomes[0][clock]}
            for clock in ("seconds", "cpu_seconds")
        },
        "threads": torch.get_num_threads(),
        "versions": report.versions(),
        "command": command,
    }
    return {**result, "expected": report.against_expected(result, settings["expected"])}


def write_report(folder: Path, first: Job, result: Mapping[str, Any]) -> None:
    """Write what a run leaves; ``report.json`` last, since it says that the run is finished."""
    figures = sorted(path.relative_to(folder).as_posix() for path in (first.folder / "figures").glob("*.png"))
    atomic.write_text(folder / "report.md", report.to_markdown(result, figures))
    atomic.write_text(folder / "citations.bib", registry.citations(*config.targets(first.settings)))
    shutil.copytree(first.folder / "student", folder / "student", dirs_exist_ok=True)
    kind = first.kind_named(result["kind"])
    if isinstance(kind, DescribesExport):
        kind.describe(folder / "student", result)
    atomic.write_json(folder / "report.json", result)


def draw_history(history: History, optimized: Sequence[str], folder: Path) -> None:
    """Draw the loss terms that were optimized over the steps, and below them those that were only measured."""
    terms: dict[bool, dict[str, tuple[list[int], list[float]]]] = {True: {}, False: {}}
    for name, values in history.terms.items():
        logged = [(step, value) for step, value in zip(history.steps, values, strict=True) if value is not None]
        terms[name in optimized][name] = ([step for step, _ in logged], [value for _, value in logged])
    plotting.loss_curves(terms[True], terms[False], folder / "figures" / "losses.png")


def _loaded(cfg: DictConfig | Mapping[str, Any] | str | Path) -> DictConfig:
    if isinstance(cfg, DictConfig):
        return cfg
    if isinstance(cfg, Mapping):
        return OmegaConf.create(dict(cfg))
    return OmegaConf.create({**config.to_container(OmegaConf.load(cfg)), "output_dir": str(Path(cfg).parent)})
