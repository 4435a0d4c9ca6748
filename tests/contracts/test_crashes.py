"""The callback that interrupts a training: every place once, whatever was interrupted before."""

from types import SimpleNamespace

import pytest

from kdzoo.contracts.crashes import CrashError, Crashes, crash_everywhere

HOOKS = {
    "on_train_batch_start": "start",
    "on_before_optimizer_step": "update",
    "on_validation_start": "validation",
    "on_train_epoch_end": "end of the epoch",
    "on_train_end": "end",
}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_place_crashes_once_per_step(hook):
    crashes = Crashes()
    for step in (3, 4):
        trainer = SimpleNamespace(global_step=step)
        with pytest.raises(CrashError, match=f"{HOOKS[hook]} of step {step}"):
            getattr(crashes, hook)(trainer, None)
        getattr(crashes, hook)(trainer, None)
    assert crashes.seen == {(3, HOOKS[hook]), (4, HOOKS[hook])}


def test_the_training_is_started_again_until_it_ends():
    crashes, starts = Crashes(), []

    class Restartable:
        def train(self, name, callback, every_n_steps):
            starts.append((name, every_n_steps))
            for step in range(3):
                callback.on_train_batch_start(SimpleNamespace(global_step=step))
            return "trained"

    assert crash_everywhere(Restartable(), crashes, every_n_steps=2) == "trained"
    assert starts == [("interrupted", 2)] * 4
