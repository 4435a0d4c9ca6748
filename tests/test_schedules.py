"""Learning rates that change with every step."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdzoo.distillers import Supervised
from kdzoo.schedules import OneCycle


class Rates(pl.Callback):
    """Keeps the learning rate of every step."""

    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_a_cycle_spans_the_steps_of_the_training():
    data = DataLoader(TensorDataset(torch.rand(40, 4), torch.arange(40) % 3), batch_size=4)
    distiller = Supervised(
        nn.Linear(4, 3), optimizer=partial(torch.optim.Adam, lr=0.1), scheduler=partial(OneCycle, warmup=0.25)
    )
    seen = Rates()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=2, callbacks=[seen], enable_model_summary=False, **quiet).fit(distiller, data)
    assert len(seen.rates) == 20
    assert seen.rates[0] == pytest.approx(0.1 / 25)
    assert seen.rates.index(max(seen.rates)) == 4
    assert max(seen.rates) == pytest.approx(0.1)
    assert seen.rates[4:] == sorted(seen.rates[4:], reverse=True)
    assert seen.rates[-1] == pytest.approx(0.1 / 25 / 1e4, rel=0.01)


def test_without_a_trainer_the_schedule_can_be_made():
    distiller = Supervised(nn.Linear(4, 3), scheduler=OneCycle)
    assert distiller.configure_optimizers()["lr_scheduler"]["interval"] == "step"
