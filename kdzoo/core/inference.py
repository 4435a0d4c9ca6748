"""Asking a model without changing it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Put a model into eval mode and record no gradients; afterwards everything is as it was."""
    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []
    try:
        if training:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
