"""What every distiller must keep: checks that run on each registered one, and on a user's own.

``kdzoo check distiller=my_kd --config-dir conf`` runs all of them. A check is a function of a
:class:`Subject`, which builds the distiller of a configuration afresh, with small models and data, as often
as the check asks; it raises AssertionError with one line that says what was broken. A method to which a
check cannot apply says so, with the reason, in ``Distiller.exempt``.
"""

import copy
import inspect
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor, nn

from kdzoo import config, progress
from kdzoo.batch import Batch, as_batch
from kdzoo.checkpoint import load_student, read_checkpoint, save_model
from kdzoo.distiller import Distiller
from kdzoo.errors import ConfigError
from kdzoo.job import Job, for_seed
from kdzoo.training import History, fit

NEVER_EXEMPT = frozenset({"export", "resume", "determinism"})
FEW_SAMPLES = {"train_size": 44, "val_size": 20, "batch_size": 16}
"""Settings of data that have them, which make checks quick."""
SMALL: dict[str, dict[str, Any]] = {
    "kdzoo.data.Digits": {"labels_per_class": 1, "augment": {"shift": 1}},
    "kdzoo.models.MLP": {"hidden": [16, 16], "dropout": 0.2},
}
"""Settings of packaged classes that make checks quick; dropout and shifts, so that randomness counts."""
SHORT = {"trainer.max_epochs": 2, "trainer.limit_train_batches": 3, "trainer.log_every_n_steps": 1}
EXACT = {
    "trainer.precision": "64-true",
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
}
"""Float64, and an optimizer that does not hide the size of the gradient as Adam does."""


@dataclass(frozen=True)
class Trained:
    """What a training left."""

    distiller: Distiller
    data: Any
    history: History
    checkpoint: dict[str, Any]


class Subject:
    """A distiller under test, built afresh on every call.

    Args:
        cfg: a composed configuration; packaged data and models in it are made small.
        folder: where checks may write.
        allow: names of the user's own classes that may be built.
        changes: settings by dotted key that come after all others.
        dropout: whether dropout layers are active.
    """

    def __init__(
        self,
        cfg: DictConfig,
        folder: Path,
        allow: Collection[str] = (),
        changes: Mapping[str, Any] | None = None,
        dropout: bool = True,
    ) -> None:
        self.cfg, self.folder, self.dropout = cfg, folder, dropout
        self.allow = {*config.packaged_targets(), *allow}
        self.changes = dict(changes or {})
        self.method: type[Distiller] = config.locate(cfg.distiller._target_)

    def having(self, changes: Mapping[str, Any], dropout: bool = True) -> "Subject":
        """Return this subject with other settings."""
        return Subject(self.cfg, self.folder, self.allow, {**self.changes, **changes}, dropout)

    @cached_property
    def settings(self) -> DictConfig:
        """The configuration with everything small and all changes made."""
        cfg = self.cfg.copy()
        OmegaConf.set_struct(cfg, False)
        small = {
            f"{role}.{key}": value
            for role in ("data", "teacher", "student")
            for key, value in SMALL.get((cfg.get(role) or {}).get("_target_", ""), {}).items()
        }
        if FEW_SAMPLES.keys() <= config.parameters(config.locate(cfg.data._target_)).keys():
            small |= {f"data.{key}": value for key, value in FEW_SAMPLES.items()}
        for key, value in {**small, **SHORT, **self.method.contract_settings, **self.changes}.items():
            OmegaConf.update(cfg, key, value, merge=False, force_add=True)
        return cfg

    @cached_property
    def job(self) -> Job:
        """The job of seed 0."""
        return Job(for_seed(self.settings, 0), 0, self.folder, self.allow)

    @cached_property
    def _data(self) -> Any:
        return self.job.data()

    def data(self) -> Any:
        """Return the data, as if they had just been set up."""
        return copy.deepcopy(self._data)

    def distiller(self, data: Any) -> Distiller:
        """Return a new distiller with new models; the teacher is not trained."""
        student = self.job.model("student", data.sizes)
        teacher = None if self.method.teacher_kind is None else self.job.model("teacher", data.sizes)
        distiller = self.job.distiller(student, teacher)
        for module in distiller.modules():
            if isinstance(module, nn.Dropout) and not self.dropout:
                module.p = 0.0
        return distiller

    def first(self) -> tuple[Distiller, Batch]:
        """Return a new distiller that has seen the sizes of a batch, and this batch."""
        data = self.data()
        distiller = self.distiller(data)
        batch = as_batch(next(iter(data.train_dataloader())))
        distiller.rehearse(batch)
        return distiller, batch

    def train(
        self, name: str, *callbacks: pl.Callback, every_n_steps: int | None = None, backend: str | None = None
    ) -> Trained:
        """Train a new distiller, or continue the training of that name where it was interrupted.

        Args:
            name: of the folder of the training.
            *callbacks: more callbacks.
            every_n_steps: save also every so many steps.
            backend: of ``torch.compile`` for the student; None does not compile it.
        """
        data = self.data()
        distiller = self.distiller(data)
        if backend is not None:
            distiller.student.compile(backend=backend)
        how = self.job.training(name, self.folder / name)
        with _quiet():
            history = fit(
                distiller, data, replace(how, callbacks=[*how.callbacks, *callbacks], every_n_steps=every_n_steps)
            )
        return Trained(distiller, data, history, read_checkpoint(how.folder / "last.ckpt"))


# -------------------------------------------------------------------- learning


def check_training(subject: Subject) -> None:
    """An epoch runs with finite terms, and 30 steps on one batch lower the loss."""
    _assert_finite(subject.train("training"))
    distiller, batch = subject.first()
    optimizer = torch.optim.Adam(distiller.trainable(), lr=1e-2)
    values = []
    for _ in range(30):
        torch.manual_seed(0)
        optimizer.zero_grad()
        loss = weighted_loss(distiller, batch)
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0], f"30 steps on one batch do not lower the loss: {values[0]:.6g} -> {values[-1]:.6g}"


def check_gradients(subject: Subject) -> None:
    """The gradient reaches every trainable parameter, and none of the teacher's."""
    distiller, batch = subject.first()
    weighted_loss(distiller, batch).backward()
    trainable = {id(parameter) for parameter in distiller.trainable()}
    assert trainable, "there is no trainable parameter"
    for name, parameter in distiller.named_parameters():
        if id(parameter) in trainable:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert bool(parameter.grad.any()), f"the gradient of {name} is zero"
        if name.startswith("teacher."):
            assert id(parameter) not in trainable, f"{name} is trainable"
            assert parameter.grad is None, f"{name} of the teacher has a gradient"


def check_teacher(subject: Subject) -> None:
    """The teacher is in eval mode at every step, and every weight and buffer stays as it was."""
    untouched = subject.distiller(subject.data()).teacher
    if untouched is None:
        return
    teacher = subject.train("teacher", _WatchTeacher()).distiller.teacher
    assert teacher is not None
    changed = difference(untouched.state_dict(), teacher.state_dict())
    assert changed is None, f"training changed the teacher: {changed}"


class _WatchTeacher(pl.Callback):
    """Fail as soon as a part of the teacher is in training mode."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        """Look before a step."""
        _assert_eval(module.teacher, "at the start of a step")

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        """Look in a step."""
        _assert_eval(module.teacher, "in a step")

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: ARG002
        """Look after validation."""
        _assert_eval(module.teacher, "after validation")


def _assert_eval(teacher: nn.Module, when: str) -> None:
    training = [name or "itself" for name, module in teacher.named_modules() if module.training]
    assert not training, f"the teacher ({training[0]}) is in training mode {when}"


def check_batch_of_one(subject: Subject) -> None:
    """A batch of one sample, with a label and without one, gives a finite loss and gradient."""
    distiller, batch = subject.first()
    for row in range(len(batch["input"])):
        distiller.zero_grad()
        loss = weighted_loss(distiller, {key: value[row : row + 1] for key, value in batch.items()})
        assert math.isfinite(float(loss.detach())), f"the loss of sample {row} alone is {float(loss.detach())}"
        if loss.requires_grad:
            loss.backward()
        bad = [n for n, p in distiller.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert not bad, f"the gradient of {bad[0]} is not finite for sample {row} alone"


# -------------------------------------------------------------------- the same result, however it is computed


def check_determinism(subject: Subject) -> None:
    """The same seed gives the same weights and the same loss terms, bit for bit."""
    first, second = subject.train("first"), subject.train("second")
    changed = difference(lasting_state(first.checkpoint), lasting_state(second.checkpoint))
    assert changed is None, f"two trainings with one seed differ: {changed}"


def check_resume(subject: Subject) -> None:
    """Crashed once at every step, validation and end of an epoch, a training ends bit-identical."""
    pieces = {} if "micro_batches" in subject.method.exempt else {"distiller.micro_batch_size": 7}
    subject = subject.having({**pieces, "scheduler": COSINE})
    whole = subject.train("whole")
    crashes = Crashes()
    interrupted = crash_everywhere(subject, crashes)
    assert len(crashes.seen) > 2 * whole.checkpoint["global_step"], f"only {sorted(crashes.seen)} were interrupted"
    changed = difference(lasting_state(whole.checkpoint), lasting_state(interrupted.checkpoint))
    assert changed is None, f"an interrupted training ends differently: {changed}"


COSINE = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_partial_": True, "T_max": 2}


class CrashError(Exception):
    """Thrown by :class:`Crashes`."""


class Crashes(pl.Callback):
    """Crash once at every place of every step, wherever the training is taken up again."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, str]] = set()

    def _once(self, trainer: pl.Trainer, place: str) -> None:
        here = (trainer.global_step, place)
        if here not in self.seen:
            self.seen.add(here)
            raise CrashError(f"{place} of step {trainer.global_step}")

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash before a step."""
        self._once(trainer, "start")

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash when the gradient is known."""
        self._once(trainer, "update")

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash before validation."""
        self._once(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash at the end of an epoch."""
        self._once(trainer, "end of the epoch")

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Crash when everything is trained."""
        self._once(trainer, "end")


def crash_everywhere(subject: Subject, crashes: Crashes, every_n_steps: int | None = 1) -> Trained:
    """Train to the end, starting again after every crash."""
    while True:
        try:
            return subject.train("interrupted", crashes, every_n_steps=every_n_steps)
        except CrashError:
            continue


def check_micro_batches(subject: Subject) -> None:
    """A step in pieces of 1, 2, 5 or 8 samples is the step on the whole batch, to 1e-6."""
    one_step = subject.having({**EXACT, "trainer.max_steps": 1}, dropout=False)
    whole = one_step.train("whole").distiller.state_dict()
    for size in (1, 2, 5, 8):
        pieces = one_step.having({"distiller.micro_batch_size": size}, dropout=False)
        gap = largest_gap(whole, pieces.train(f"pieces_{size}").distiller.state_dict())
        assert gap <= 1e-6, f"micro_batch_size={size} changes the step by {gap:.2g}"


def check_data_parallel(subject: Subject) -> None:
    """Two processes end with the weights of one, to 1e-10 in float64."""
    gap = data_parallel_gaps({"subject": subject})["subject"]
    assert gap <= 1e-10, f"two processes end {gap:.2g} away from one"


def data_parallel_gaps(subjects: Mapping[str, Subject]) -> dict[str, float]:
    """Return how far the weights of two processes (gloo) end from those of one; one pair trains all subjects.

    The two processes take their batches once as they are and once in micro-batches.
    """
    folder = next(iter(subjects.values())).folder / "two_processes"
    folder.mkdir(parents=True, exist_ok=True)
    exact = {name: subject.having(EXACT, dropout=False) for name, subject in subjects.items()}
    variants = {
        (name, suffix): one.having(changes, dropout=False)
        for name, one in exact.items()
        for suffix, changes in (("", {}), ("_pieces", {"distiller.micro_batch_size": 5}))
        if not (suffix and "micro_batches" in one.method.exempt)
    }
    orders = [
        {"name": name + suffix, "cfg": OmegaConf.to_container(one.settings), "allow": sorted(one.allow)}
        for (name, suffix), one in variants.items()
    ]
    (folder / "orders.json").write_text(json.dumps(orders))
    pair = _two_processes(folder)
    alone = {name: one.train(f"alone_{name}").checkpoint["state_dict"] for name, one in exact.items()}
    failures = [process.communicate(timeout=300)[1] for process in pair]
    assert not any(process.returncode for process in pair), failures[0].strip().splitlines()[-1]
    gaps = dict.fromkeys(subjects, 0.0)
    for name, suffix in variants:
        together = read_checkpoint(folder / (name + suffix) / "last.ckpt")["state_dict"]
        gaps[name] = max(gaps[name], largest_gap(alone[name], together))
    return gaps


def _two_processes(folder: Path) -> list[subprocess.Popen[str]]:
    """Start two ranks that carry out the orders in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "kdzoo",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "kdzoo.contracts", str(folder)],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]


def train_as_rank(folder: Path) -> None:
    """Train every ordered subject as one of two processes."""
    two = {"trainer.devices": 2, "trainer.strategy": "ddp"}
    for order in json.loads((folder / "orders.json").read_text()):
        subject = Subject(OmegaConf.create(order["cfg"]), folder, order["allow"], two, dropout=False)
        subject.train(order["name"])


def check_compile(subject: Subject) -> None:
    """With the student compiled (traced by torch.compile, run without code generation), the terms are the same."""
    subject = subject.having({}, dropout=False)
    plain, compiled = subject.train("plain").history, subject.train("compiled", backend="eager").history
    for name, values in plain.terms.items():
        gap = max(abs((one or 0.0) - (other or 0.0)) for one, other in zip(values, compiled.terms[name], strict=True))
        assert gap <= 1e-5, f"compilation changes the term {name!r} by {gap:.2g}"


def check_bf16(subject: Subject) -> None:
    """Automatic mixed precision with bfloat16 keeps terms and weights finite."""
    _assert_finite(subject.having({"trainer.precision": "bf16-mixed"}).train("bf16"))


# -------------------------------------------------------------------- what is left on disk


def check_export(subject: Subject) -> None:
    """The exported student, read again, gives equal outputs."""
    trained = subject.train("export")
    student = trained.distiller.student.eval()
    save_model(student, subject.job.node("student", trained.data.sizes), subject.folder / "exported")
    again = load_student(subject.folder / "exported", allow=subject.allow)
    batch = as_batch(next(iter(trained.data.train_eval_dataloader())))
    changed = difference(_output(student, batch), _output(again, batch))
    assert changed is None, f"the exported student answers differently: {changed}"


def check_checkpoint(subject: Subject) -> None:
    """The checkpoint is plain data, and holds nothing of the teacher."""
    trained = subject.train("checkpoint")
    kept = trained.checkpoint["state_dict"]
    teachers = [name for name in kept if name.startswith("teacher.")]
    assert not teachers, f"the checkpoint holds the teacher's {teachers[0]}"
    expected = {name for name in trained.distiller.state_dict() if not name.startswith("teacher.")}
    assert set(kept) == expected, f"the checkpoint lacks {sorted(expected - set(kept))}"


# -------------------------------------------------------------------- arguments

BAD_NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -1.0, True, "much")
BAD_COUNTS: tuple[Any, ...] = (-1, 1.5, math.nan, True, "many")
FILLED = ("student", "teacher", "optimizer", "scheduler", "loss_weights")


def check_arguments(subject: Subject) -> None:
    """Numeric arguments, names of choices and loss weights out of range are refused, with the argument's name."""
    data = subject.data()
    student, teacher = subject.job.model("student", data.sizes), subject.job.model("teacher", data.sizes)
    models = [student] if subject.method.teacher_kind is None else [student, teacher]
    given = {
        key: value
        for key, value in subject.job.settings["distiller"].items()
        if key not in ("_target_", "_partial_", "_convert_")
    }
    term = next(iter(subject.method.terms), "any")
    wrong = [(name, value) for name, kinds in _numbers(subject.method).items() for value in kinds]
    wrong += [("micro_batch_size", 0), ("loss_weights", {term: -1.0}), ("loss_weights", {term: math.nan})]
    wrong += [("loss_weights", {"no_such_term": 1.0})] if subject.method.terms else []
    for name, value in wrong:
        refusal = _refusal(subject.method, models, {**given, name: value})
        assert refusal, f"{name}={value!r} is accepted"
        assert name in refusal, f"{name}={value!r} is refused without naming it: {refusal}"


def _refusal(method: type[Distiller], models: Sequence[nn.Module], arguments: Mapping[str, Any]) -> str:
    """Return the line with which a method refuses its arguments, or nothing if it takes them."""
    try:
        method(*models, **arguments)
    except ConfigError as error:
        return str(error)
    return ""


def _numbers(method: type[Distiller]) -> dict[str, Sequence[Any]]:
    """Return bad values for each argument of a distiller, by its type."""
    table: dict[Any, Sequence[Any]] = {float: BAD_NUMBERS, int: BAD_COUNTS, str: ("no_such_choice",)}
    found = {}
    for name in config.parameters(method):
        for owner in method.__mro__:
            own = vars(owner).get("__init__")
            hint = typing.get_type_hints(own).get(name) if own is not None and name not in FILLED else None
            kinds = [kind for kind in (hint, *typing.get_args(hint)) if kind in table]
            if kinds and typing.get_origin(hint) in (None, typing.Union, type(int | None)):
                found[name] = table[kinds[0]]
                break
    return found


# -------------------------------------------------------------------- helpers


def weighted_loss(distiller: Distiller, batch: Batch) -> Tensor:
    """Return the weighted sum of the means of a batch's terms."""
    terms = distiller.losses(batch)
    loss = torch.zeros((), dtype=torch.float64, device=batch["input"].device)
    for name, value in terms.items():
        if value.numel():
            loss = loss + distiller.loss_weights.get(name, 1.0) * value.double().mean()
    return loss


def lasting_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal at the end of two equal trainings."""
    return {
        key: checkpoint[key]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step", "epoch")
    }


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """Return the first place where two trees of values differ in a bit, or None; clock times may differ."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        if same and torch.equal(one, other):
            return None
        return f"{where} by {float((one - other).abs().max()):.2g}" if same else f"{where} has another shape or dtype"
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if set(one) != set(other):
            return f"{where} has other keys: {sorted(map(str, set(one) ^ set(other)))}"
        pairs = [(key, one[key], other[key]) for key in one if key != "seconds"]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{where} has {len(one)} and {len(other)} entries"
        pairs = list(zip(range(len(one)), one, other, strict=True))
    else:
        return None if one == other or (one != one and other != other) else f"{where}: {one!r} and {other!r}"
    found = (difference(mine, theirs, f"{where}.{key}".lstrip(".")) for key, mine, theirs in pairs)
    return next((line for line in found if line is not None), None)


def largest_gap(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference of two states with the same names."""
    assert one.keys() == other.keys(), f"the states have other keys: {sorted(one.keys() ^ other.keys())}"
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one if one[key].numel())


def _assert_finite(trained: Trained) -> None:
    assert trained.history.terms, "no loss term was computed"
    for name, values in trained.history.terms.items():
        bad = [value for value in values if value is not None and not math.isfinite(value)]
        assert not bad, f"the term {name!r} became {bad[0]}"
    bad_weights = [name for name, value in trained.checkpoint["state_dict"].items() if not value.isfinite().all()]
    assert not bad_weights, f"{bad_weights[0]} is not finite after training"


def _output(model: nn.Module, batch: Batch) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        return model(batch["input"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the line that every training prints."""
    before = progress.console.quiet
    progress.console.quiet = True
    try:
        yield
    finally:
        progress.console.quiet = before


CHECKS: dict[str, Callable[[Subject], None]] = {
    "training": check_training,
    "gradients": check_gradients,
    "teacher": check_teacher,
    "batch_of_one": check_batch_of_one,
    "determinism": check_determinism,
    "resume": check_resume,
    "micro_batches": check_micro_batches,
    "data_parallel": check_data_parallel,
    "compile": check_compile,
    "bf16": check_bf16,
    "export": check_export,
    "checkpoint": check_checkpoint,
    "arguments": check_arguments,
}


def exemptions(method: type[Distiller]) -> dict[str, str]:
    """Return the checks that do not apply to a method, each with its reason.

    Raises:
        ConfigError: one does not exist, may not be exempt or has no reason.
    """
    for name, reason in method.exempt.items():
        if name not in CHECKS:
            raise ConfigError(f"{method.__name__}.exempt names no check: {name!r}; the checks: {list(CHECKS)}")
        if name in NEVER_EXEMPT or not reason.strip():
            raise ConfigError(f"{method.__name__}.exempt: {name!r} may not be exempt, or the reason is missing")
    return dict(method.exempt)


def report_checks(cfg: DictConfig, *, allow: Collection[str] = ()) -> bool:
    """Run every check on the distiller of a configuration, print a line for each, return whether all are kept."""
    console = Console(highlight=False)
    reasons = exemptions(config.locate(cfg.distiller._target_))
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        for name, check in CHECKS.items():
            if name in reasons:
                console.print(f"exempt  {name}: {reasons[name]}", markup=False)
                continue
            try:
                check(Subject(cfg, Path(folder) / name, allow))
            except Exception as error:
                kept = False
                kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                reason = next(iter(str(error).splitlines()), "no reason given")
                console.print(f"FAILED  {name}: {kind}{reason}", markup=False)
            else:
                summary = inspect.getdoc(check) or ""
                console.print(f"passed  {name}: {summary}", markup=False)
    return kept


if __name__ == "__main__":
    train_as_rank(Path(sys.argv[1]))
