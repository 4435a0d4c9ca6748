"""Queues and moving averages: updated once per step, whatever the micro-batches, and restored from checkpoints."""

import pytest
import torch

import kdzoo
from kdzoo.contracts import checks
from kdzoo.contracts.subject import Subject
from kdzoo.core.step_state import FeatureQueue
from kdzoo.core.weight_average import WeightAverage
from kdzoo.distillers import LogitKD
from kdzoo.errors import ConfigError


def test_a_queue_keeps_the_latest_vectors_in_order():
    queue = FeatureQueue(size=4, dim=1)
    for first in (0.0, 2.0, 4.0):
        queue.enqueue(torch.tensor([[first], [first + 1]]))
        queue.after_step()
    assert queue.queue.flatten().tolist() == [2.0, 3.0, 4.0, 5.0]


def test_a_queue_changes_only_at_the_end_of_a_step():
    queue = FeatureQueue(size=3, dim=2)
    before = queue.queue.clone()
    queue.enqueue(torch.ones(1, 2))
    queue.enqueue(2 * torch.ones(1, 2, requires_grad=True))
    assert torch.equal(queue.queue, before)
    queue.after_step()
    assert queue.queue.tolist() == [before[2].tolist(), [1.0, 1.0], [2.0, 2.0]]
    assert not queue.queue.requires_grad
    queue.after_step()  # nothing is pending
    assert queue.queue[2].tolist() == [2.0, 2.0]


def test_more_vectors_than_the_queue_holds():
    queue = FeatureQueue(size=2, dim=1)
    queue.enqueue(torch.arange(5.0)[:, None])
    queue.after_step()
    assert queue.queue.flatten().tolist() == [3.0, 4.0]


def test_a_queue_ignores_what_is_measured_in_eval_mode():
    queue = FeatureQueue(size=3, dim=2).eval()
    before = queue.queue.clone()
    queue.enqueue(torch.ones(2, 2))
    queue.train().after_step()
    assert torch.equal(queue.queue, before)


def test_a_queue_starts_with_unit_vectors_of_its_seed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = FeatureQueue(8, 3, seed=1), FeatureQueue(8, 3, seed=1), FeatureQueue(8, 3, seed=2)
    torch.testing.assert_close(first.queue.norm(dim=1), torch.ones(8))
    assert torch.equal(first.queue, same.queue)
    assert not torch.equal(first.queue, other.queue)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("size", "dim"), [(0, 2), (2, 0), (1.5, 2)])
def test_sizes_of_a_queue_are_checked(size, dim):
    with pytest.raises(ConfigError, match="must be an integer >= 1"):
        FeatureQueue(size, dim)


# ---------------------------------------------------------------- inside of a training


class QueueAndAverage(LogitKD):
    """Compares the student with the mean of a queue and with its own average, so that errors in either show."""

    def __init__(self, *models, **options):
        super().__init__(*models, **options)
        self.average = WeightAverage(self.student, decay=0.5)
        self.queue = None

    def prepare(self, batch):
        if self.queue is None:
            self.queue = FeatureQueue(20, self.frozen_teacher.output(batch).shape[1])

    def losses(self, batch):
        logits, teacher = self.student(batch["input"]), self.frozen_teacher.output(batch)
        self.queue.enqueue(teacher)
        with torch.no_grad():
            average = self.average(batch["input"])
        distance = (logits - self.queue.queue.mean(0)).square().sum(1) + (logits - average).square().sum(1)
        return {"soft": distance, "hard": super().losses(batch)["hard"]}


@pytest.fixture
def subject(tmp_path):
    cfg = kdzoo.compose("distiller=logit_kd")
    cfg.distiller._target_ = f"{__name__}.QueueAndAverage"
    return Subject(cfg, tmp_path, allow={cfg.distiller._target_}, changes={"optimizer.lr": 0.01})


def test_micro_batches_do_not_change_the_state(subject):
    """The check compares buffers too, so queue and average are those of undivided batches."""
    checks.check_micro_batches(subject.with_changes({"trainer.max_epochs": 1}))


def test_the_state_is_restored_from_checkpoints(subject):
    checks.check_resume(subject)


def test_the_queue_holds_the_last_samples_of_the_training_and_none_of_validation(subject):
    trained = subject.with_changes({"distiller.micro_batch_size": 5, "data.augment": None}).train("one")
    sampler = trained.data.train_sampler
    sampler.set_position(len(sampler))  # the beginning of the second and last epoch
    last = torch.cat([indices for _, indices in sampler])[-20:]
    expected = trained.distiller.teacher(trained.data.splits.train.inputs[last])
    torch.testing.assert_close(trained.distiller.queue.queue, expected)
