"""The contract checks: each raises an AssertionError of one line if it fails; its docstring is printed if it passes.

Tolerances: a difference that only rounding can cause is bounded by 1e-10 after a few steps in float64, and by 1e-5 to
1e-6 where float32 is involved or a different order of summation is allowed.
"""

import math
import traceback
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.contracts import accelerator
from kdzoo.contracts.compare import difference, final_state, largest_gap, weighted_loss
from kdzoo.contracts.crashes import Crashes, crash_everywhere
from kdzoo.contracts.ranks import data_parallel_gaps
from kdzoo.contracts.subject import EXACT, Subject, Trained
from kdzoo.core.batch import Batch, DeviceBatch, as_batch, n_samples
from kdzoo.storage.checkpoint import load_student, save_model

# Enough steps at a high learning rate that any useful gradient lowers the loss on one batch.
OVERFIT_STEPS, OVERFIT_LR = 30, 1e-2


def check_training(subject: Subject) -> None:
    """An epoch runs with finite terms, and 30 steps on one batch lower the loss."""
    assert_finite(subject.train("training"))
    distiller, batch = subject.prepared()
    optimizer = torch.optim.Adam(distiller.trainable_parameters(), lr=OVERFIT_LR)
    values = []
    for _ in range(OVERFIT_STEPS):
        torch.manual_seed(0)  # the same dropout masks in every step, so that the losses can be compared
        optimizer.zero_grad()
        loss = weighted_loss(distiller, batch)
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0], (
        f"{OVERFIT_STEPS} steps on one batch do not lower the loss: {values[0]:.6g} -> {values[-1]:.6g}"
    )


def check_gradients(subject: Subject) -> None:
    """The gradient reaches every trainable parameter, and none of the teacher's."""
    distiller, batch = subject.prepared()
    weighted_loss(distiller, batch).backward()
    trainable = {id(parameter) for parameter in distiller.trainable_parameters()}
    assert trainable, "there is no trainable parameter"
    for name, parameter in distiller.named_parameters():
        if id(parameter) in trainable:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            # Exactly zero everywhere means that no loss depends on the parameter.
            assert bool(parameter.grad.any()), f"the gradient of {name} is zero"
        if name.startswith("teacher."):
            assert id(parameter) not in trainable, f"{name} is trainable"
            assert parameter.grad is None, f"{name} of the teacher has a gradient"


def check_teacher(subject: Subject) -> None:
    """The teacher is in eval mode at every step, and its weights and buffers do not change."""
    untouched = subject.distiller(subject.data()).teacher
    if untouched is None:
        return
    teacher = subject.train("teacher", _WatchTeacher()).distiller.teacher
    assert teacher is not None
    changed = difference(untouched.state_dict(), teacher.state_dict())
    assert changed is None, f"training changed the teacher: {changed}"


class _WatchTeacher(pl.Callback):
    """Fail as soon as any module of the teacher is in training mode."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        """Check before a step."""
        _assert_eval(module.teacher, "at the start of a step")

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        """Check within a step, after the backward pass."""
        _assert_eval(module.teacher, "in a step")

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: ARG002
        """Check after validation."""
        _assert_eval(module.teacher, "after validation")


def _assert_eval(teacher: nn.Module, when: str) -> None:
    training = [name or "itself" for name, module in teacher.named_modules() if module.training]
    assert not training, f"the teacher ({training[0]}) is in training mode {when}"


def check_batch_of_one(subject: Subject) -> None:
    """A batch of one sample, with a label and without one, gives a finite loss and gradient."""
    distiller, batch = subject.prepared()
    for row in range(len(batch["input"])):
        distiller.zero_grad()
        loss = weighted_loss(distiller, {key: value[row : row + 1] for key, value in batch.items()})
        assert math.isfinite(float(loss.detach())), f"the loss of sample {row} alone is {float(loss.detach())}"
        if loss.requires_grad:
            loss.backward()
        bad = [n for n, p in distiller.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert not bad, f"the gradient of {bad[0]} is not finite for sample {row} alone"


def check_determinism(subject: Subject) -> None:
    """The same seed gives the same weights and the same loss terms, bit for bit."""
    first, second = subject.train("first"), subject.train("second")
    changed = difference(final_state(first.checkpoint), final_state(second.checkpoint))
    assert changed is None, f"two trainings with one seed differ: {changed}"


# A schedule over the two epochs of SHORT, so that resuming with a wrong epoch changes the learning rate.
COSINE = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_partial_": True, "T_max": 2}


def check_resume(subject: Subject) -> None:
    """Crashed once at every step, validation and end of an epoch, a training ends bit-identical."""
    # 7 does not divide the batches of 16, so that the last micro-batch is smaller.
    divided = {} if "micro_batches" in subject.method.info.exempt else {"distiller.micro_batch_size": 7}
    subject = subject.with_changes({**divided, "scheduler": COSINE})
    whole = subject.train("whole")
    crashes = Crashes()
    interrupted = crash_everywhere(subject, crashes)
    # At least two crashes per step and one more; fewer mean that the callback was not called where it should be.
    assert len(crashes.seen) > 2 * whole.checkpoint["global_step"], f"only {sorted(crashes.seen)} were interrupted"
    changed = difference(final_state(whole.checkpoint), final_state(interrupted.checkpoint))
    assert changed is None, f"an interrupted training ends differently: {changed}"


def check_micro_batches(subject: Subject) -> None:
    """A step in micro-batches of 1, 2, 5 or 8 samples is the step on the whole batch, to 1e-6, in as little memory."""
    one_step = subject.with_changes({**EXACT, "trainer.max_steps": 1}, dropout=False)
    whole = one_step.train("whole").distiller.state_dict()
    for size in (1, 2, 5, 8):
        micro_batches = one_step.with_changes({"distiller.micro_batch_size": size}, dropout=False)
        largest = _LargestBatch()
        gap = largest_gap(whole, micro_batches.train(f"micro_batches_{size}", largest).distiller.state_dict())
        assert gap <= 1e-6, f"micro_batch_size={size} changes the step by {gap:.2g}"
        # A training_step that ignores the setting makes the same step, but not in less memory.
        assert largest.samples <= size, f"micro_batch_size={size} is ignored: losses saw {largest.samples} samples"


class _LargestBatch(pl.Callback):
    """Record the largest number of samples that ``losses`` gets in a step."""

    def __init__(self) -> None:
        self.samples = 0

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        """Watch the losses of this step."""
        losses = type(module).losses

        def watched(batch: Batch) -> Any:
            self.samples = max(self.samples, n_samples(batch))
            return losses(module, batch)

        module.losses = watched

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:  # noqa: ARG002
        """Leave the distiller as it was."""
        del module.losses


def check_data_parallel(subject: Subject) -> None:
    """Two processes end with the weights of one, to 1e-10 in float64."""
    gap = data_parallel_gaps({"subject": subject})["subject"]
    assert gap <= 1e-10, f"two processes end {gap:.2g} away from one"


def check_compile(subject: Subject) -> None:
    """With the student compiled (traced by torch.compile, run without code generation), the terms are the same."""
    subject = subject.with_changes({}, dropout=False)
    # The backend "eager" traces the model as any backend does, and takes a fraction of the time to compile.
    uncompiled, compiled = subject.train("plain").history, subject.train("compiled", backend="eager").history
    for name, values in uncompiled.terms.items():
        pairs = zip(values, compiled.terms[name], strict=True)
        gap = max(abs((value or 0.0) - (compiled_value or 0.0)) for value, compiled_value in pairs)
        assert gap <= 1e-5, f"compilation changes the term {name!r} by {gap:.2g}"


def check_accelerator(subject: Subject) -> None:
    """A step on an accelerator, which the CPU simulates, reads no value from it that the host would wait for."""
    distiller, batch = subject.prepared()
    # Copies, because what a batch on an accelerator keeps in the host's memory may be read.
    batch = DeviceBatch({key: value.clone() for key, value in batch.items()}, batch)
    distiller.train()
    on_device = [*batch.values(), *distiller.parameters(), *distiller.buffers()]
    try:
        with accelerator.simulated_accelerator(on_device):
            loss = weighted_loss(distiller, batch)
            if loss.requires_grad:
                loss.backward()
    except accelerator.HostWaitsError as error:
        frames = traceback.extract_tb(error.__traceback__)
        between = (str(Path(torch.__file__).parent), accelerator.__file__)
        *_, place = (frame for frame in frames if not frame.filename.startswith(between))
        raise AssertionError(f"{error}: {place.filename}:{place.lineno}: {place.line}") from error


def check_bf16(subject: Subject) -> None:
    """Automatic mixed precision with bfloat16 keeps terms and weights finite."""
    assert_finite(subject.with_changes({"trainer.precision": "bf16-mixed"}).train("bf16"))


def check_export(subject: Subject) -> None:
    """The exported student, read again, returns equal outputs."""
    trained = subject.train("export")
    student = trained.distiller.student.eval()
    save_model(student, subject.student_node(trained.data, trained.distiller.teacher), subject.folder / "exported")
    again = load_student(subject.folder / "exported", allow=subject.allow)
    batch = as_batch(next(iter(trained.data.train_eval_dataloader())))
    changed = difference(_output(student, batch), _output(again, batch))
    assert changed is None, f"the exported student returns other outputs: {changed}"


def check_checkpoint(subject: Subject) -> None:
    """The checkpoint is plain data, and holds nothing of the teacher."""
    # Subject.train has read it with weights_only=True, which rejects anything but plain data.
    trained = subject.train("checkpoint")
    saved = trained.checkpoint["state_dict"]
    of_teacher = [name for name in saved if name.startswith("teacher.")]
    assert not of_teacher, f"the checkpoint holds the teacher's {of_teacher[0]}"
    expected = {name for name in trained.distiller.state_dict() if not name.startswith("teacher.")}
    assert set(saved) == expected, f"the checkpoint lacks {sorted(expected - set(saved))}"


def assert_finite(trained: Trained) -> None:
    """Assert that a training has terms, and that terms and weights are finite."""
    assert trained.history.terms, "no loss term was computed"
    for name, values in trained.history.terms.items():
        bad = [value for value in values if value is not None and not math.isfinite(value)]
        assert not bad, f"the term {name!r} became {bad[0]}"
    bad_weights = [name for name, value in trained.checkpoint["state_dict"].items() if not value.isfinite().all()]
    assert not bad_weights, f"{bad_weights[0]} is not finite after training"


def _output(model: nn.Module, batch: Batch) -> Any:
    """Return the output of a model for a batch, with a fixed seed for models that draw samples."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model(batch["input"])
