"""A training step on an accelerator makes the host wait for nothing, and is the step on the CPU.

The CPU plays the accelerator: the batch keeps host copies, and every operation that would wait raises.
"""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from kdzoo.contracts.accelerator import simulated_accelerator
from kdzoo.core import precision
from kdzoo.core.batch import (
    IGNORE,
    DeviceBatch,
    labelled_positions,
    labelled_selection,
    labels,
    micro_batches,
    valid_positions,
)
from kdzoo.core.loss_terms import position_counts
from kdzoo.distillers import DKD, LogitKD, LogitMSE, Supervised
from kdzoo.errors import NonFiniteLossError


def batch_of(shape=(6,), n_missing=2, mask=False):
    torch.manual_seed(0)
    target = torch.randint(3, shape)
    target.view(-1)[:n_missing] = IGNORE
    batch = {"input": torch.randn(*shape, 4), "target": target, "index": torch.arange(shape[0])}
    if mask:
        batch["mask"] = torch.rand(shape) < 0.7
    return batch


def moved_to_device(batch):
    """Return a batch on the simulated accelerator, whose tensors are not those of the host."""
    return DeviceBatch({key: value.clone() for key, value in batch.items()}, batch)


SHAPES = [((6,), 2, False), ((6,), 0, False), ((4, 5), 3, True), ((4, 5), 0, False), ((1,), 1, False)]


@pytest.mark.parametrize(("shape", "n_missing", "mask"), SHAPES)
def test_selections_are_those_of_the_mask_without_a_wait(shape, n_missing, mask):
    batch = batch_of(shape, n_missing, mask)
    labelled = labelled_positions(batch)
    expected = batch["input"][labelled], batch["target"][labelled]
    moved = moved_to_device(batch)
    with simulated_accelerator(moved.values()):
        selected = moved["input"][labelled_selection(moved)], labels(moved)
        valid = moved["input"][valid_positions(moved)]
    assert all(torch.equal(one, other) for one, other in zip(selected, expected, strict=True))
    assert torch.equal(valid, batch["input"][batch["mask"]] if mask else batch["input"])
    assert position_counts(moved) == position_counts(batch)


def test_micro_batches_keep_the_host_copies():
    moved = moved_to_device(batch_of())
    parts = list(micro_batches(moved, 4))
    assert [type(part) for part in parts] == [DeviceBatch, DeviceBatch]
    for key in ("target", "index"):
        assert torch.equal(torch.cat([part.host[key] for part in parts]), moved[key])
    assert torch.equal(torch.cat([labels(part) for part in parts]), labels(moved))


def test_a_batch_without_targets_has_no_labels():
    batch = {"input": torch.randn(3, 4)}
    moved = moved_to_device(batch)
    with simulated_accelerator(moved.values()):
        assert labels(moved).shape == (0,)
        assert moved["input"][labelled_selection(moved)].shape == (0, 4)


def test_a_batch_that_data_parallelism_rebuilds_keeps_its_copies():
    moved = moved_to_device(batch_of(mask=True))
    ((rebuilt,),), _ = torch.distributed.utils._to_kwargs((moved,), {}, torch.device("cpu"), False)
    assert type(rebuilt) is DeviceBatch
    assert rebuilt.host.keys() == moved.host.keys()
    assert all(rebuilt.host[key] is moved.host[key] for key in moved.host)  # nothing is copied from the device again


def test_a_mask_that_is_added_later_counts():
    moved = moved_to_device(batch_of())
    moved["mask"] = torch.tensor([True, False, True, True, False, True])
    assert torch.equal(moved["input"][valid_positions(moved)], moved["input"][moved["mask"]])
    assert position_counts(moved) == position_counts(dict(moved))


def without_waiting(compute):
    """Return a loss that fails where it would wait for the device."""

    def loss(self, batch, *arguments):
        with simulated_accelerator([*batch.values(), *self.parameters()]):
            return compute(self, batch, *arguments)

    return loss


def trained(method, batches, monkeypatch, *, on_accelerator, **options):
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    models = (student,) if method is Supervised else (student, teacher)
    distiller = method(*models, **options)
    if on_accelerator:
        monkeypatch.setattr(method, "transfer_batch_to_device", lambda self, batch, *_: moved_to_device(batch))
        monkeypatch.setattr(method, "_loss", without_waiting(method._loss))
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1000,
    )
    trainer.fit(distiller, DataLoader(batches, batch_size=None))
    return distiller


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("micro_batch_size", [None, 4])
@pytest.mark.parametrize("method", [LogitKD, LogitMSE, DKD, Supervised], ids=lambda method: method.__name__)
def test_steps_wait_for_nothing_and_move_the_weights_as_on_the_cpu(method, micro_batch_size, monkeypatch):
    batches = [batch_of() for _ in range(3)]
    with monkeypatch.context() as patch:
        on_accelerator = trained(method, batches, patch, on_accelerator=True, micro_batch_size=micro_batch_size)
    on_cpu = trained(method, batches, monkeypatch, on_accelerator=False, micro_batch_size=micro_batch_size)
    for one, other in zip(on_accelerator.student.parameters(), on_cpu.student.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


class Diverges(LogitKD):
    """Becomes NaN in its second step."""

    def losses(self, batch):
        terms = super().losses(batch)
        return {**terms, "soft": terms["soft"] * (float("nan") if self.global_step == 1 else 1.0)}


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_diverges_is_found_before_it_is_saved(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(precision, "DEVICES_OF_THE_HOST", set())
        patch.setattr(Diverges, "transfer_batch_to_device", lambda self, batch, *_: moved_to_device(batch))
        distiller = Diverges(nn.Linear(4, 3), nn.Linear(4, 3))
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(max_epochs=1, log_every_n_steps=1000, default_root_dir=tmp_path, **options)
        with pytest.raises(NonFiniteLossError, match="'soft' is not finite at step 1"):
            trainer.fit(distiller, DataLoader([batch_of() for _ in range(4)], batch_size=None))
    assert not list(tmp_path.rglob("*.ckpt"))
