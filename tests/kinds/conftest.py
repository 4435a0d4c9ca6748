"""Synthetic sets of three points in the plane, with samples of three classes; the digits and their classifier."""

import pytest
import torch
from torch import nn

from kdzoo.data import Digits
from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.kinds.evaluation_classifier import EvaluationClassifier

SIZES = {"in_shape": (2,), "num_classes": 3}


def make_batches(n=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % 3
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    inputs = centres[target] + 0.5 * torch.randn(n, 2, generator=generator)
    return [{"input": inputs[:20], "target": target[:20]}, {"input": inputs[20:], "target": target[20:]}]


def make_set(set_class=SyntheticSet, inner_network=None, **options):
    torch.manual_seed(0)
    synthetic_set = set_class(
        inner_network=inner_network or {"linear": InnerNetwork(nn.Linear(2, 3))},
        **SIZES,
        **{"steps": 4, "step_size": 0.5, **options},
    )
    with torch.no_grad():
        synthetic_set.images.copy_(torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]]))
        synthetic_set.labels.copy_(torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.4, 0.6]]))
    return synthetic_set


@pytest.fixture(scope="session")
def digits() -> Digits:
    """All labelled digits."""
    data = Digits(labels_per_class=None)
    data.setup()
    return data


@pytest.fixture(scope="session")
def classifier(digits, tmp_path_factory) -> EvaluationClassifier:
    """The evaluation classifier of the digits."""
    return EvaluationClassifier.of(digits, lambda samples: samples, tmp_path_factory.mktemp("cache"))
