"""Sizes, settings and a measure that the tests of methods with matrix product states share."""

import torch
from torch import Tensor, nn

SIZES = {"in_shape": (1, 3, 4), "num_classes": 3}

# A teacher that is trained in a second.
PERCEPTRON_TEACHER = ["teacher=mlp", "teacher.hidden=[8]"]


def relative_error(model: nn.Module, teacher: nn.Module, inputs: Tensor) -> float:
    """Return ||model - teacher|| / ||teacher|| over the outputs of some inputs."""
    with torch.no_grad():
        return float((model(inputs) - teacher(inputs)).norm() / teacher(inputs).norm())
