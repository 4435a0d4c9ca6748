"""Learning rates that change with every step."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdzoo.core.schedules import Linear, OneCycle
from kdzoo.distillers import Supervised
from kdzoo.errors import ConfigError


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


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.05), (20, 0.0), (7, 0.5), (1, 0.05)])
def test_a_line_rises_and_falls_to_nothing(steps, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = Linear(optimizer, total_steps=steps, warmup=warmup)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    top = rates.index(max(rates))
    assert 0 < max(rates) <= 0.1
    assert abs(top - warmup * steps) <= 1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == 0.0
    falls = torch.tensor(rates[top + 1 :]).diff()  # the top itself may lie between two steps
    torch.testing.assert_close(falls, falls[:1].expand_as(falls), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("warmup", [-0.1, 1.5, "much"])
def test_a_warmup_outside_its_range_is_refused(warmup):
    with pytest.raises(ConfigError, match=r"^warmup must be"):
        Linear(torch.optim.SGD([torch.zeros(1)], lr=0.1), total_steps=3, warmup=warmup)
