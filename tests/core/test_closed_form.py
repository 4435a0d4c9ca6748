"""Methods that compute their student: batches are observed once per epoch, and what was observed is in checkpoints."""

import pytest
import torch
from torch import nn

import kdzoo
from kdzoo.contracts import CHECKS
from kdzoo.contracts.compare import difference, final_state
from kdzoo.contracts.crashes import Crashes, crash_everywhere
from kdzoo.contracts.subject import Subject
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.method_info import MethodInfo


class MeanInput(ClosedFormDistiller):
    """Sets a bias to the mean of the inputs; needs ``epochs`` epochs to do so."""

    info = MethodInfo(teacher="none", exempt=CLOSED_FORM_EXEMPT)

    def __init__(self, student, teacher=None, *, epochs: int = 1, **options):
        super().__init__(student, teacher, **options)
        self.epochs = epochs

    def losses(self, batch):
        return {"distance": (batch["input"].flatten(1) - self.student.mean).square().sum(1)}

    def observe(self, batch):
        inputs = batch["input"].flatten(1).double()
        self.observed = {
            "sum": self.observed.get("sum", 0) + inputs.sum(0),
            "count": self.observed.get("count", 0) + len(inputs),
            "epochs": self.observed.get("epochs", 0),
        }

    def solve(self):
        self.student.mean.copy_(self.observed["sum"] / self.observed["count"])
        self.observed = {"epochs": self.observed["epochs"] + 1}
        return self.observed["epochs"] == self.epochs


class Mean(nn.Module):
    """Predicts the first ten entries of its mean."""

    def __init__(self, in_shape):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(torch.Size(in_shape).numel()))

    def forward(self, inputs):
        return self.mean[:10].expand(len(inputs), -1)


@pytest.fixture
def subject(tmp_path):
    cfg = kdzoo.compose("distiller=supervised", "teacher=null")
    cfg.distiller = {"_target_": f"{__name__}.MeanInput"}
    cfg.student = {"_target_": f"{__name__}.Mean"}
    return Subject(cfg, tmp_path, allow={f"{__name__}.MeanInput", f"{__name__}.Mean"}, changes={"data.augment": None})


def test_the_student_is_set_from_every_batch_of_an_epoch(subject):
    trained = subject.train("one")
    inputs = trained.data.splits.train.inputs.flatten(1)
    torch.testing.assert_close(trained.distiller.student.mean.data, inputs.mean(0), rtol=1e-5, atol=1e-6)
    assert trained.checkpoint["observed"] == {"epochs": 1}


def test_the_method_decides_when_the_training_is_over(subject):
    assert subject.train("one").history.validation[-1]["epoch"] == 0
    longer = subject.with_changes({"distiller.epochs": 3, "trainer.max_epochs": 9}).train("two")
    assert longer.history.validation[-1]["epoch"] == 2


def test_an_interrupted_epoch_continues_with_what_was_observed(subject):
    subject = subject.with_changes({"distiller.epochs": 2})
    whole, interrupted = subject.train("whole"), crash_everywhere(subject, Crashes())
    assert difference(final_state(whole.checkpoint), final_state(interrupted.checkpoint)) is None


def test_nothing_is_optimized_by_gradients():
    distiller = MeanInput(Mean([2]))
    assert distiller.trainable_parameters() == []
    assert distiller.configure_optimizers() is None
    assert distiller.frozen_teacher.cache_key is None


def test_the_exempt_checks_exist():
    assert CLOSED_FORM_EXEMPT.keys() <= CHECKS.keys()
