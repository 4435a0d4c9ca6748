"""The position in the training stream under a real trainer, which sets epochs and makes iterators in its own order."""

import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.data import ArrayData

N, BATCH, EPOCHS = 22, 4, 3


class Recorder(pl.LightningModule):
    """A model of one layer that records every batch it is trained on."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 2)
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append((batch["index"].tolist(), batch["input"].sum().item()))
        return nn.functional.cross_entropy(self.layer(batch["input"].flatten(1)), batch["target"])

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Position(pl.Callback):
    """Saves after every step, and restores the sampler from the number of batches done."""

    def __init__(self, folder=None):
        self.folder = folder

    def on_train_batch_end(self, trainer, *_):
        if self.folder:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_load_checkpoint(self, trainer, module, checkpoint):
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
        trainer.datamodule.train_sampler.set_position(progress["processed"])


def fit(workers, callback, checkpoint=None):
    rng = np.random.default_rng(0)
    pair = rng.random((N, 1, 6, 6), np.float32), rng.integers(0, 2, N)
    data = ArrayData(pair, pair, val_size=2, batch_size=BATCH, augment={"shift": 1}, num_workers=workers)
    model = Recorder()
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[callback],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's recommendations for loaders and workers
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    return model.seen


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return fit(0, Position(folder)), folder


@pytest.mark.parametrize("done", range(1, 15))
def test_resume_at_every_step_sees_the_tail(uninterrupted, done):
    uninterrupted_run, folder = uninterrupted
    assert len(uninterrupted_run) == 15
    assert fit(0, Position(), folder / f"{done}.ckpt") == uninterrupted_run[done:]


@pytest.mark.parametrize("done", [7, 10])
def test_resume_with_workers(uninterrupted, done):
    uninterrupted_run, folder = uninterrupted
    assert fit(1, Position(), folder / f"{done}.ckpt") == uninterrupted_run[done:]
