"""Calling a model without changing it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError, KdzooError, first_line


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Within this context, a model is in eval mode and no gradients are recorded.

    Args:
        model: A module, each of whose submodules gets its own mode back; any other callable is left alone.
    """
    # Not model.train() at the end, which would also switch submodules to training mode that were in eval mode before.
    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []
    try:
        if training:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def try_call(role: str, model: nn.Module, inputs: Tensor) -> Any:
    """Call a model of the user's on a few inputs, before anything depends on it.

    Args:
        role: What the run calls the model, for the message.
        model: Any module; it stays in its mode.
        inputs: The inputs ``[batch, ...]``.

    Raises:
        ConfigError: Whatever the model raises, in one line that names its role, its class and the shape of the inputs.
    """
    try:
        with inference(model):
            return model(inputs)
    except KdzooError:
        raise  # its message already explains the problem
    except Exception as error:
        name, shape = type(model).__name__, tuple(inputs.shape)
        raise ConfigError(f"{role} {name} cannot take an input of shape {shape}: {first_line(error)}") from error
