"""Every registered distiller passes every check that applies to it; each check fails for a method that violates it.

Data parallelism is checked in ``test_ranks.py``, by one pair of processes for all distillers.
"""

import math

import pytest
import torch
from torch import nn

from kdzoo.config import registry
from kdzoo.contracts import CHECKS, checks
from kdzoo.core.batch import as_batch
from kdzoo.distillers import LogitKD
from kdzoo.errors import NonFiniteLossError
from kdzoo.functional import soft_target_kl

REGISTERED = registry.targets("distiller")


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "data_parallel"])
@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_distiller_passes(name, check, subject_of):
    subject = subject_of(name)
    if check in subject.method.info.exempt:
        pytest.skip(subject.method.info.exempt[check])
    CHECKS[check](subject)


# ---------------------------------------------------------------- methods that violate the contract


class TrainsTeacher(LogitKD):
    """Optimizes the teacher as well."""

    def trainable(self):
        self.teacher.requires_grad_(True)
        return self.parameters()

    def losses(self, batch):
        distance = (self.student(batch["input"]) - self.teacher(batch["input"])).square().mean(1)
        return {**super().losses(batch), "soft": distance}


class ForgetsState(LogitKD):
    """Keeps a running state that is not in the checkpoint."""

    calls = 0

    def losses(self, batch):
        self.calls += self.training
        terms = super().losses(batch)
        return {**terms, "soft": terms["soft"] * (1 + 0.1 * self.calls)}


class CountsInLosses(LogitKD):
    """Changes its state, which is in the checkpoint, in ``losses`` and not in ``after_step``."""

    def __init__(self, *models, **options):
        super().__init__(*models, **options)
        self.register_buffer("calls", torch.zeros(()))

    def losses(self, batch):
        self.calls += self.training
        return super().losses(batch)


class IgnoresMicroBatches(LogitKD):
    """Has a training step of its own, which computes the loss of the undivided batch."""

    def training_step(self, batch, batch_idx):
        batch = as_batch(batch)
        means = {name: value.mean() for name, value in self.losses(batch).items() if value.numel()}
        self.last_terms = {name: mean.detach() for name, mean in means.items()}
        self._clear_gradients()
        return sum(self.loss_weights[name] * mean for name, mean in means.items())


class HasUnusedParameter(LogitKD):
    """Has a parameter that no loss depends on."""

    def __init__(self, *models, **options):
        super().__init__(*models, **options)
        self.unused = nn.Parameter(torch.ones(2))


class DividesByBatchMean(LogitKD):
    """Divides by the mean over whatever part of the batch it is given."""

    def losses(self, batch):
        student, teacher = self.student(batch["input"]), self.frozen_teacher.output(batch)
        kl = soft_target_kl(student, teacher, temperature=self.temperature)
        return {"soft": kl / kl.detach().mean(), "hard": super().losses(batch)["hard"]}


class DependsOnEntropy(LogitKD):
    """Draws random numbers from the operating system."""

    def losses(self, batch):
        terms = super().losses(batch)
        noise = torch.rand((), generator=torch.Generator().manual_seed(torch.seed() % 2**31))
        return {**terms, "soft": terms["soft"] * (1 + noise)}


class NeedsTwoSamples(LogitKD):
    """Divides by zero for a single sample."""

    def losses(self, batch):
        terms = super().losses(batch)
        return {**terms, "soft": terms["soft"] / (len(batch["input"]) - 1)}


class WakesTeacher(LogitKD):
    """Puts the teacher into training mode."""

    def losses(self, batch):
        self.teacher.train()
        return super().losses(batch)


class RaisesLoss(LogitKD):
    """Reverses the gradient of its terms, so that steps raise them."""

    def losses(self, batch):
        return {name: 2 * value.detach() - value for name, value in super().losses(batch).items()}


class SavesTeacher(LogitKD):
    """Writes a part of the teacher into checkpoints."""

    def __init__(self, student, teacher, **options):
        super().__init__(student, teacher, **options)
        self.register_state_dict_post_hook(save_teacher)


def save_teacher(module, state, prefix, metadata):
    state["teacher.copy"] = torch.ones(1)


class DiffersCompiled(LogitKD):
    """Has another loss once the student is compiled."""

    def losses(self, batch):
        factor = 1.0 if self.student._compiled_call_impl is None else 2.0
        return {name: factor * value for name, value in super().losses(batch).items()}


class OverflowsInBfloat16(LogitKD):
    """Has an infinite loss in mixed precision."""

    def losses(self, batch):
        terms = super().losses(batch)
        return {**terms, "soft": terms["soft"] / (not torch.is_autocast_enabled("cpu"))}


class ReadsItsLoss(LogitKD):
    """Looks at a value of the loss in every step."""

    def losses(self, batch):
        terms = super().losses(batch)
        return terms if terms["soft"].max() < 1e9 else {name: value / 2 for name, value in terms.items()}


class ChangesStudent(LogitKD):
    """Changes what the student returns in a way that its configuration and weights do not record."""

    def __init__(self, student, teacher, **options):
        super().__init__(student, teacher, **options)
        student.register_forward_hook(lambda module, inputs, output: 2 * output)


VIOLATIONS = [
    (TrainsTeacher, "gradients", "teacher"),
    (TrainsTeacher, "teacher", "changed the teacher"),
    (WakesTeacher, "teacher", "training mode"),
    (HasUnusedParameter, "gradients", "unused"),
    (ForgetsState, "resume", "ends differently"),
    (DependsOnEntropy, "determinism", "differ"),
    (DividesByBatchMean, "micro_batches", "micro_batch_size=1 changes the step"),
    (CountsInLosses, "micro_batches", "micro_batch_size=1 changes the step"),
    (IgnoresMicroBatches, "micro_batches", r"micro_batch_size=1 is ignored: losses saw 16 samples"),
    (NeedsTwoSamples, "batch_of_one", "sample 0 alone"),
    (RaisesLoss, "training", "do not lower the loss"),
    (SavesTeacher, "checkpoint", r"teacher\.copy"),
    (DiffersCompiled, "compile", "compilation changes the term"),
    (OverflowsInBfloat16, "bf16", "loss term 'soft' is inf"),
    (ReadsItsLoss, "accelerator", r"makes the host wait .*test_checks\.py:\d+: return terms if terms"),
    (ChangesStudent, "export", "returns other outputs"),
]


@pytest.mark.parametrize(("method", "check", "reason"), VIOLATIONS, ids=lambda value: getattr(value, "__name__", None))
def test_a_check_finds_a_violation(method, check, reason, subject_of):
    # A loss that is not finite ends the training before a check can look at the terms.
    with pytest.raises((AssertionError, NonFiniteLossError), match=reason):
        CHECKS[check](subject_of(method))


def test_a_term_that_is_not_finite_is_found(subject_of):
    trained = subject_of("logit_kd").train("one")
    trained.history.terms["soft"][-1] = math.inf
    with pytest.raises(AssertionError, match=r"soft.*inf"):
        checks.assert_finite(trained)


def test_a_weight_that_is_not_finite_is_found(subject_of):
    trained = subject_of("logit_kd").train("one")
    next(iter(trained.checkpoint["state_dict"].values())).view(-1)[0] = math.nan
    with pytest.raises(AssertionError, match=r"student\.layers\.0\.linear\.weight is not finite"):
        checks.assert_finite(trained)
