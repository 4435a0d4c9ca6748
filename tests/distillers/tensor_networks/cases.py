"""Sizes, settings and measures that the tests of methods with matrix product states share."""

import torch
from torch import Tensor, nn

SIZES = {"in_shape": (1, 3, 4), "num_classes": 3}

# Settings of whole runs: a few digits, three epochs, a teacher that is trained in a second.
SMALL_RUN = [
    *("data=digits_labelled", "data.train_size=200", "data.batch_size=20", "seed=0", "trainer.max_epochs=3"),
    *("student.bond_dim=3", "teacher_training.max_epochs=20"),
]
PERCEPTRON_TEACHER = ["teacher=mlp", "teacher.hidden=[8]"]


def relative_error(model: nn.Module, teacher: nn.Module, inputs: Tensor) -> float:
    """Return ||model - teacher|| / ||teacher|| over the outputs of some inputs."""
    with torch.no_grad():
        return float((model(inputs) - teacher(inputs)).norm() / teacher(inputs).norm())
