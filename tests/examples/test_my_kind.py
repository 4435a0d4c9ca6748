"""The example of a user-defined kind adds a metric to those of classifiers, and models are compared by it."""

from pathlib import Path

import pytest
import torch

import kdzoo
from kdzoo import config
from kdzoo.kinds.classifier import Predictions

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_kind"


@pytest.fixture
def kind(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    cfg = kdzoo.compose("kind=my_kind", config_dir=EXAMPLE / "conf")
    return config.instantiate(cfg.kind, allow={cfg.kind._target_})


def test_the_metric_is_the_share_of_targets_among_the_three_most_likely_classes(kind):
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]]).expand(4, -1)
    metrics = kind.metrics(Predictions(logits, torch.tensor([0, 1, 2, 3])))
    assert metrics["top_3_accuracy"] == 0.75
    assert metrics["accuracy"] == 0.25


def test_models_are_compared_by_the_metric(kind):
    assert kind.score == "top_3_accuracy"
    assert not kind.lower_is_better
