"""Calling a model leaves its modes as they were, and its errors become one line."""

import pytest
import torch
from torch import nn

from kdzoo.core.inference import inference, try_call
from kdzoo.errors import ConfigError, DataError


def test_each_module_gets_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    model[1].eval()
    with inference(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [True, True, False, False]
    assert torch.is_grad_enabled()


def test_the_modes_come_back_after_an_error():
    model = nn.Dropout(0.5)
    with pytest.raises(ZeroDivisionError), inference(model):
        raise ZeroDivisionError
    assert model.training


def test_a_function_is_called_without_gradients():
    with inference(len):
        assert not torch.is_grad_enabled()


def test_an_error_of_the_model_is_one_line_with_its_role_and_the_shape():
    with pytest.raises(ConfigError, match=r"^student Linear cannot take an input of shape \(2, 5\): mat1 and mat2"):
        try_call("student", nn.Linear(4, 3), torch.zeros(2, 5))


class Complains(nn.Module):
    """Raises an error of this package."""

    def forward(self, inputs):
        raise DataError("tokens are out of range")


def test_an_error_of_this_package_is_not_wrapped():
    with pytest.raises(DataError, match=r"^tokens are out of range$"):
        try_call("student", Complains(), torch.zeros(1))


def test_the_output_is_returned_in_eval_mode():
    model, inputs = nn.Dropout(0.9), torch.ones(100)
    assert torch.equal(try_call("student", model, inputs), inputs)
    assert model.training
