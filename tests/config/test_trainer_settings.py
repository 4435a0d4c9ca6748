"""Arguments of the trainer by which a run would never end, do nothing, or divide a model among processes."""

import pytest

from kdzoo.config import trainer_settings


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"max_epochs": 3, "max_steps": -1, "limit_train_batches": 1.0, "log_every_n_steps": None}, []),
        ({"max_epochs": -1, "max_steps": 7}, []),
        ("cpu", []),  # not a mapping, which is another mistake
        ({"max_epochs": 0}, ["trainer.max_epochs=0 would train nothing; allowed: above 0"]),
        ({"max_epochs": 1, "max_steps": 0}, ["trainer.max_steps=0 would train nothing; allowed: above 0"]),
        (
            {"max_epochs": 1, "limit_train_batches": 0.0},
            ["trainer.limit_train_batches=0.0 would train nothing; allowed: above 0"],
        ),
        ({"max_epochs": -1}, ["trainer.max_epochs=-1 would train without end; set it, or trainer.max_steps"]),
        ({"log_every_n_steps": 0}, ["trainer.log_every_n_steps must be at least 1 or null, got 0"]),
    ],
)
def test_mistakes(trainer, expected):
    assert list(trainer_settings.mistakes(trainer)) == expected


def test_trainings_that_inherit_a_zero_are_not_named_again():
    line = "teacher_training.max_epochs=0 would train nothing; allowed: above 0"
    assert list(trainer_settings.idle("teacher_training", {"max_epochs": 0}, {"max_epochs": 5})) == [line]
    assert list(trainer_settings.idle("teacher_training", {"max_epochs": 0}, {"max_epochs": 0})) == []
