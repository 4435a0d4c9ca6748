"""Outputs of hidden layers through forward hooks."""

import pytest
import torch
from torch import nn

from kdzoo.core.hooks import capture
from kdzoo.errors import ConfigError


def test_outputs_come_in_the_order_of_the_paths():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(5, 4)
    with capture(model, ["2", "0"]) as hidden:
        output = model(inputs)
        last, first = hidden()
    assert torch.equal(last, output)
    assert torch.equal(first, model[0](inputs))


def test_of_a_tuple_the_first_tensor_is_recorded():
    model, inputs = nn.ModuleDict({"rnn": nn.GRU(4, 3, batch_first=True)}), torch.randn(2, 5, 4)
    with capture(model, ["rnn"]) as hidden:
        output, _ = model["rnn"](inputs)
        assert torch.equal(hidden()[0], output)


def test_hooks_are_removed_even_after_an_error():
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(RuntimeError), capture(model, ["0"]):
        model(torch.randn(2, 5))
    assert not model[0]._forward_hooks


def test_a_module_that_is_not_called_is_named():
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(4, 3)})
    with capture(model, ["used", "unused"]) as hidden:
        model["used"](torch.zeros(1, 4))
        with pytest.raises(ConfigError, match="module 'unused' of ModuleDict was not called; it has no output"):
            hidden()
