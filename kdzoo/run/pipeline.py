"""A run: teacher, control trained without a teacher, distillation, evaluation, report; once for every seed."""

import copy
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kdzoo import config, kinds, plotting
from kdzoo.config import registry, validate
from kdzoo.core.base import Distiller
from kdzoo.core.batch import as_batch
from kdzoo.errors import ConfigError, DataError
from kdzoo.run import report, teachers
from kdzoo.run.evaluation import cpu_ms_per_1000
from kdzoo.run.job import Job, calibrated, for_seed, initialised, kind_of_student
from kdzoo.run.resume import stop_between_steps
from kdzoo.run.training import History, fit
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
    found = validate.in_settings(cfg, allow)
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
    """Do everything for one seed and return its measurements; those of a finished seed are read again."""
    done = run_folder.read_json(job.folder / "result.json")
    if done is not None:
        return done
    started = time.perf_counter()
    data = job.data()
    method = config.locate(job.settings["distiller"]["_target_"])
    if job.settings["compile"] and "compile" in method.exempt:
        raise ConfigError(f"compile=true does not work with {method.__name__}: {method.exempt['compile']}")
    teacher_kind, student_kind = method.kinds(job.settings["distiller"])
    kind = kinds.get(student_kind).bind(data, Path(job.settings["cache_dir"]), job.settings["feature_extractor"])
    models = {} if teacher_kind is None else {"teacher": teachers.build(job, data.sizes)}
    sizes = {**data.sizes, **teachers.sizes(models.get("teacher"))}
    models["student"] = calibrated(job.model("student", sizes), data)
    dry_run(job, method, models, data)
    if teacher_kind is not None:
        teachers.train(job, kinds.get(teacher_kind), models["teacher"], data.sizes)
    seconds = {"teacher": time.perf_counter() - started}
    initialised(models["student"], models.get("teacher"), data)
    distiller = job.distiller(models["student"], models.get("teacher"))
    started = time.perf_counter()
    transfer = distiller.transfer_set(data)
    teachers.cache_teacher_outputs(job, distiller, transfer)
    history = train(job, distiller, transfer, "student")
    seconds["student"] = time.perf_counter() - started
    node = with_learned_sizes(job.node("student", sizes), models["student"])
    beside = controls(job, distiller, kind, node, data) if job.settings["control"] else {}
    for role, control in beside.items():
        models[role] = calibrated(control.student, data)
        seconds[role] = train(job, control, control.transfer_set(data), role).seconds
    models |= distiller.baselines(transfer)
    models |= kind.reference_models(models, data)
    unseen = job.settings["data"].get("exclude_classes") or ()
    times = {"seconds": seconds, "cpu_seconds": {"student": history.cpu_seconds}}
    result = {**evaluate(kind, models, data, job.folder, unseen), **times}
    for role, one in {"student": distiller, **beside}.items():
        result["models"][role]["metrics"] |= measurements(
            kind, one if isinstance(one, method) else distiller, one.student, data
        )
    if run_folder.is_main_process():
        descended = [name for name, weight in distiller.loss_weights.items() if weight]
        draw_history(history, descended, job.folder)
        distiller.figures(job.folder / "figures")
        kind.plot_model(models, job.folder / "figures", data)
        for role in models.keys() & {"student", "control", *distiller.controls}:
            save_model(models[role], node, job.folder / role)
            kind.export(models[role], job.folder / role, data)
        atomic.write_json(job.folder / "history.json", history.state_dict())
        atomic.write_json(job.folder / "result.json", result)
    return result


def dry_run(job: Job, method: type[Distiller], models: Mapping[str, nn.Module], data: Any) -> None:
    """Before anything is trained, refuse models, arguments and settings that do not fit each other or the data."""
    rows = as_batch(next(iter(data.train_eval_dataloader())))
    sample = {key: value[:8] for key, value in rows.items()}
    if next(iter(data.test_dataloader() or ()), None) is None:
        raise DataError(f"{type(data).__name__} has no test part; a report needs at least one labelled test sample")
    teacher_kind, student_kind = method.kinds(job.settings["distiller"])
    for role, name in (("student", student_kind), ("teacher", teacher_kind)):
        if role in models:
            kinds.get(str(name)).check(role, models[role], sample, data.sizes)
    kind = kinds.get(student_kind)
    if (
        teacher_kind is not None
        and kinds.get(teacher_kind).teacher_free is None
        and not teachers.brings_weights(job, models["teacher"])
    ):
        raise ConfigError(
            f"teacher {type(models['teacher']).__name__} has no weights, and an {teacher_kind} is not trained here; "
            "set teacher=hf teacher.path=FOLDER, or teacher_training.checkpoint"
        )
    if job.settings["control"] and kind.teacher_free not in (None, job.settings["distiller"]["_target_"]):
        kind.check_teacher_free(models["student"])
    if (
        callable(check_init_from_teacher := getattr(models["student"], "check_init_from_teacher", None))
        and "teacher" in models
    ):
        check_init_from_teacher(models["teacher"], data)
    copies = copy.deepcopy(dict(models))
    job.distiller(copies["student"], copies.get("teacher")).dry_run(sample)


def controls(
    job: Job, distiller: Distiller, kind: kinds.Kind, node: Mapping[str, Any], data: Any
) -> dict[str, Distiller]:
    """Return the distillers of the student's controls by role: teacher_free, and under the method's other settings."""
    found = {}
    if kind.teacher_free not in (None, job.settings["distiller"]["_target_"]):
        found["control"] = job.teacher_free(job.build("student", node), str(kind.teacher_free))
    for role, changes in distiller.controls.items():
        found[role] = job.distiller(
            initialised(job.build("student", node), distiller.teacher, data), distiller.teacher, changes
        )
    return found


def with_learned_sizes(node: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return a model's configuration with the sizes that the method has found for it, such as a number of states."""
    return {**node, **getattr(model, "learned_sizes", {})}


def train(job: Job, distiller: Distiller, data: Any, role: str) -> History:
    """Train one distiller in its own folder."""
    if job.settings["compile"]:
        distiller.student.compile()
    return fit(distiller, data, job.training(f"{role}, seed {job.seed}", job.folder / "checkpoints" / role))


def evaluate(
    kind: kinds.Kind, models: Mapping[str, nn.Module], data: Any, folder: Path, unseen: Sequence[int] = ()
) -> dict[str, Any]:
    """Measure every model on the test part, and student and control against the teacher.

    ``unseen`` are classes that the student's training part lacks; what corrects for that is chosen on the
    validation part, if there is one.
    """
    batches = list(data.test_dataloader())
    predictions = {role: kind.predict(model, batches) for role, model in models.items()}
    validation = list(data.val_dataloader()) if unseen else []
    corrected = {}
    if validation:
        corrected = {
            role: kind.unseen(predictions[role], kind.predict(model, validation), unseen)
            for role, model in models.items()
        }
    measured = {
        role: {
            "parameters": kind.size(model),
            "metrics": {
                **kind.metrics(predictions[role]),
                **corrected.get(role, {}),
                **kind.properties(model),
            },
            "cpu_ms_per_1000": cpu_ms_per_1000(model, batches),
        }
        for role, model in models.items()
    }
    taught = [role for role in predictions if role != "teacher" and "teacher" in predictions]
    if run_folder.is_main_process():
        kind.plot_predictions(predictions, folder / "figures")
    return {
        "models": measured,
        "fidelity": {role: kind.fidelity(predictions[role], predictions["teacher"]) for role in taught},
        "splits": data.summary(),
    }


def measurements(kind: kinds.Kind, distiller: Distiller, model: nn.Module, data: Any) -> dict[str, float]:
    """Return what only the method can measure of a student or control on the test part."""
    return distiller.measurements(model, list(data.test_dataloader()), kind.scores)


def summarise(jobs: list[Job], outcomes: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """Return the report over all seeds; its keys are documented in ``docs/report.md``."""
    settings = jobs[0].settings
    merged = report.over_seeds([outcome["models"] for outcome in outcomes])
    kind = kind_of_student(settings["distiller"])
    score = kind.score
    fidelity = report.over_seeds([outcome["fidelity"] for outcome in outcomes])
    by_role = {
        role: [outcome["models"][role]["metrics"][score] for outcome in outcomes] if role in merged else None
        for role in report.ROLES
    }
    result = {
        "schema": 1,
        "distiller": registry.name_of("distiller", settings["distiller"]["_target_"]),
        "data": registry.name_of("data", settings["data"]["_target_"]),
        "seed": jobs[0].seed if len(jobs) == 1 else [job.seed for job in jobs],
        "teacher": merged.get("teacher"),
        "student": merged["student"],
        "control": merged.get("control"),
        "controls": {role: one for role, one in merged.items() if role not in ("teacher", "student")},
        "fidelity": fidelity,
        "advice": kind.recommendation(report.means(fidelity)),
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
    kind_of_student(first.settings["distiller"]).describe(folder / "student", result)
    atomic.write_json(folder / "report.json", result)


def draw_history(history: History, descended: Sequence[str], folder: Path) -> None:
    """Draw the loss terms that the student descended over its steps, and below them those that were only measured."""
    terms: dict[bool, dict[str, tuple[list[int], list[float]]]] = {True: {}, False: {}}
    for name, values in history.terms.items():
        logged = [(step, value) for step, value in zip(history.steps, values, strict=True) if value is not None]
        terms[name in descended][name] = ([step for step, _ in logged], [value for _, value in logged])
    plotting.loss_curves(terms[True], terms[False], folder / "figures" / "losses.png")


def _loaded(cfg: DictConfig | Mapping[str, Any] | str | Path) -> DictConfig:
    if isinstance(cfg, DictConfig):
        return cfg
    if isinstance(cfg, Mapping):
        return OmegaConf.create(dict(cfg))
    return OmegaConf.create({**config.to_container(OmegaConf.load(cfg)), "output_dir": str(Path(cfg).parent)})
