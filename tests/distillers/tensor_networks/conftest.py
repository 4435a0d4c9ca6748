"""Data and models that the tests of methods with matrix product states share."""

from collections.abc import Callable

import pytest
import torch

from kdzoo.data import ArrayData
from kdzoo.models import MLP, MPSClassifier
from tests.distillers.tensor_networks.cases import SIZES


@pytest.fixture
def images() -> ArrayData:
    """Eighty random images of 12 pixels with three classes, of which the first twenty are the test set too."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(80, 1, 3, 4, generator=generator)
    y = torch.arange(80) % 3
    data = ArrayData((x, y), (x[:20], y[:20]), val_size=0, batch_size=16)
    data.setup()
    return data


@pytest.fixture
def perceptron() -> MLP:
    """A small teacher for these images, not trained."""
    torch.manual_seed(0)
    return MLP(**SIZES, hidden=[8]).eval()


@pytest.fixture
def new_chain() -> Callable[..., MPSClassifier]:
    """Return a new student for these images, always the same."""

    def make(bond_dim: int = 4) -> MPSClassifier:
        torch.manual_seed(1)
        return MPSClassifier(**SIZES, bond_dim=bond_dim)

    return make
