"""Methods with manual optimization: the same steps, schedules and exact resume as with automatic optimization."""

import pytest
import torch

import kdzoo
from kdzoo.contracts.checks import COSINE
from kdzoo.contracts.compare import difference, final_state
from kdzoo.contracts.crashes import Crashes, crash_everywhere
from kdzoo.contracts.subject import Subject
from kdzoo.core.manual import ManualDistiller
from kdzoo.distillers import LogitKD

PER_STEP = {"_target_": "kdzoo.core.schedules.Linear", "_partial_": True, "warmup": 0.3}


class PlainSteps(ManualDistiller, LogitKD):
    """Does by hand what automatic optimization does."""

    def update(self, batch):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.accumulate_gradient(batch)
        optimizer.step()


class TwoSteps(PlainSteps):
    """Steps twice for every batch."""

    def update(self, batch):
        super().update(batch)
        super().update(batch)


def subject_of(method, folder, **changes):
    cfg = kdzoo.compose("distiller=logit_kd")
    cfg.distiller._target_ = f"{__name__}.{method.__name__}"
    allow = {cfg.distiller._target_, PER_STEP["_target_"]}
    return Subject(cfg, folder, allow, {key.replace("__", "."): value for key, value in changes.items()})


@pytest.mark.parametrize("scheduler", [PER_STEP, COSINE], ids=["per-step", "per-epoch"])
def test_an_interrupted_training_ends_with_the_same_bits(scheduler, tmp_path):
    subject = subject_of(PlainSteps, tmp_path, scheduler=scheduler, distiller__micro_batch_size=7)
    whole, interrupted = subject.train("whole"), crash_everywhere(subject, Crashes())
    assert whole.checkpoint["global_step"] == 6
    assert difference(final_state(whole.checkpoint), final_state(interrupted.checkpoint)) is None


@pytest.mark.parametrize("scheduler", [PER_STEP, COSINE, None], ids=["per-step", "per-epoch", "none"])
@pytest.mark.parametrize("micro_batch_size", [None, 7])
def test_manual_steps_are_those_of_automatic_optimization(scheduler, micro_batch_size, tmp_path):
    changes = {"scheduler": scheduler, "distiller__micro_batch_size": micro_batch_size}
    manual = subject_of(PlainSteps, tmp_path / "manual", **changes).train("one")
    target = {"distiller___target_": "kdzoo.distillers.LogitKD"}
    automatic = subject_of(PlainSteps, tmp_path / "automatic", **changes, **target).train("one")
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert difference(manual.checkpoint[key], automatic.checkpoint[key]) is None
    assert manual.history.terms == automatic.history.terms


def test_schedules_and_states_change_once_per_batch(tmp_path):
    class Counter(torch.nn.Module):
        calls = 0

        def after_step(self):
            self.calls += 1

    subject = subject_of(TwoSteps, tmp_path, scheduler=PER_STEP)
    data = subject.data()
    distiller = subject.distiller(data)
    distiller.counter = Counter()
    subject.distiller = lambda data: distiller
    trained = subject.train("one")
    assert trained.checkpoint["global_step"] == 12  # Lightning counts the optimizer's steps
    assert distiller.counter.calls == 6
    assert trained.checkpoint["lr_schedulers"][0]["last_epoch"] == 6
