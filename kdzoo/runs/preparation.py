"""What happens before the training: building the models, and a dry run that finds mistakes before they cost hours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from kdzoo import kinds
from kdzoo.core.abilities import HasLearnedSizes, InitialisesFromTeacher
from kdzoo.core.base import DRY_RUN_SAMPLES, Distiller
from kdzoo.core.batch import Batch, as_batch
from kdzoo.errors import ConfigError, DataError
from kdzoo.kinds.protocols import RestrictsControl
from kdzoo.runs import teachers
from kdzoo.runs.job import Job, calibrated, initialised


def prepare_models(job: Job, method: type[Distiller], data: Any) -> tuple[dict[str, nn.Module], bool]:
    """Return a trained teacher and a new student by role, and whether the teacher's outputs can be cached.

    Before the teacher is trained, everything is tried out in a dry run. It may change the models (a method's
    ``prepare`` does) and copying them may not be affordable, so those of the dry run are dropped and built again: their
    weights are functions of the seed. A teacher that brings its weights is kept, since building it again would mean
    loading it again.

    Raises:
        ConfigError: The models, the method and the data do not fit each other.
        DataError: The data have no test split.
    """
    teacher, is_cacheable = try_models(job, method, data)
    if teacher is not None:
        if not teachers.brings_weights(job, teacher):
            teacher = teachers.build(job, data.sizes)
        teachers.train(job, job.kind_of("teacher", teacher), teacher, data.sizes)
    student = initialised(new_student(job, teacher, data), teacher, data)
    return {**({} if teacher is None else {"teacher": teacher}), "student": student}, is_cacheable


def try_models(job: Job, method: type[Distiller], data: Any) -> tuple[nn.Module | None, bool]:
    """Build teacher and student and try them out in a dry run.

    Returns:
        The teacher, which is not trained, and whether its outputs can be cached. The student is dropped, so that this
        one and the next do not have to fit into memory together.

    Raises:
        ConfigError: The models, the method and the data do not fit each other.
        DataError: The data have no test split.
    """
    teacher = None if method.info.teacher == "none" else teachers.build(job, data.sizes)
    student = new_student(job, teacher, data)
    with unfrozen_afterwards(teacher):
        return teacher, dry_run(job, method, student, teacher, data)


def new_student(job: Job, teacher: nn.Module | None, data: Any) -> nn.Module:
    """Return a new student, calibrated on the data."""
    return calibrated(job.build("student", student_node(job, teacher, data)), data)


def student_node(job: Job, teacher: nn.Module | None, data: Any) -> dict[str, Any]:
    """Return the student's configuration with the sizes that the data and the teacher's architecture determine."""
    return job.node("student", {**data.sizes, **teachers.sizes(teacher)})


def with_learned_sizes(node: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return a model's configuration with the sizes that were found for it in the run, such as a number of states."""
    return {**node, **(model.learned_sizes if isinstance(model, HasLearnedSizes) else {})}


@contextmanager
def unfrozen_afterwards(model: nn.Module | None) -> Iterator[None]:
    """Restore which parameters of a model need gradients and which modules are in training mode.

    A dry run freezes the teacher, which may have to be trained afterwards.
    """
    parameters = [] if model is None else [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modules = [] if model is None else [(module, module.training) for module in model.modules()]
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
    # A user's own data module may return None or an empty loader.
    if next(iter(data.test_dataloader() or ()), None) is None:
        raise DataError(f"{type(data).__name__} has no test split; a report needs at least one labelled test sample")
    check_kind(job, "student", student, method.info.student_kinds, method.__name__, sample, data)
    if teacher is not None:
        check_kind(job, "teacher", teacher, method.info.teacher_kinds, method.__name__, sample, data)
        if not teachers.brings_weights(job, teacher):
            check_trainable(job.kind_of("teacher", teacher), teacher)
    check_control(job, student)
    if teacher is not None and isinstance(student, InitialisesFromTeacher):
        student.check_init_from_teacher(teacher, data)
    # Last, since the losses of a method fail less clearly on models that the checks above reject.
    distiller = job.distiller(student, teacher)
    distiller.dry_run(sample)
    return distiller.frozen_teacher.is_cacheable


def check_kind(
    job: Job, role: str, model: nn.Module, supported: tuple[str, ...], method: str, sample: Batch, data: Any
) -> None:
    """Reject a model of a kind that the method does not work with, or that does not fit the data."""
    kind = job.kind_of(role, model, data.sizes)
    # A kind that the configuration chooses may be unknown to the method; whoever chooses it knows that the two fit.
    if kind is not job.chosen_kind:
        kinds.check_supported(role, kind, supported, method)
    kind.check(role, model, sample, data.sizes)


def check_trainable(kind: kinds.Kind, teacher: nn.Module) -> None:
    """Reject a teacher without weights of a kind that cannot be trained here."""
    if kind.teacher_free is None:
        raise ConfigError(
            f"teacher {type(teacher).__name__} has no weights, and a model of kind {kind.name} is not trained here; "
            "set teacher=hf teacher.path=FOLDER, or teacher_training.checkpoint"
        )


def check_control(job: Job, student: nn.Module) -> None:
    """Reject a student that cannot be trained without the teacher, if the run is to train such a control."""
    kind = job.kind_of("student", student)
    is_trained = job.settings["control"] and has_teacher_free_control(job, kind)
    if is_trained and isinstance(kind, RestrictsControl):
        kind.check_teacher_free(student)


def has_teacher_free_control(job: Job, kind: kinds.Kind) -> bool:
    """Return whether a control can be trained without the teacher, and by another method than the student's."""
    return kind.teacher_free not in (None, job.settings["distiller"]["_target_"])
