"""The forward pass that methods on hidden layers share: recorded outputs, hooks, and paths that are refused."""

import pytest
import torch
from torch import Tensor, nn

from kdzoo.distillers import FeatureKD
from kdzoo.distillers.features.layer_kd import LayerKD
from kdzoo.errors import ConfigError
from kdzoo.models import MLP

CLASSES = 3


def perceptron(width: int, seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP(in_shape=(4,), num_classes=CLASSES, hidden=[width, width])


def make_batch() -> dict[str, Tensor]:
    return {"input": torch.randn(5, 4), "target": torch.arange(5) % CLASSES}


def test_outputs_are_those_of_the_layers_in_the_order_of_the_pairs():
    batch, student, teacher = make_batch(), perceptron(6), perceptron(9, seed=1)
    pairs = {"layers.1": "layers.0", "layers.0": "layers.1"}
    student_logits, student_outputs, teacher_logits, teacher_outputs = LayerKD(student, teacher, layers=pairs).run_both(
        batch
    )
    for model, logits, outputs, order in (
        (student, student_logits, student_outputs, (2, 1)),
        (teacher, teacher_logits, teacher_outputs, (1, 2)),
    ):
        torch.testing.assert_close(logits, model(batch["input"]))
        for output, depth in zip(outputs, order, strict=True):
            torch.testing.assert_close(output, nn.Sequential(*model.layers[:depth])(batch["input"]))


def test_only_the_student_has_a_graph():
    distiller = LayerKD(perceptron(6), perceptron(9), layers={"layers.0": "layers.0"})
    student_logits, student_outputs, teacher_logits, teacher_outputs = distiller.run_both(make_batch())
    assert student_logits.requires_grad
    assert student_outputs[0].requires_grad
    assert not teacher_logits.requires_grad
    assert not teacher_outputs[0].requires_grad


def test_no_hook_is_left_behind():
    batch = make_batch()
    distiller = FeatureKD(perceptron(6), perceptron(9), layers={"layers.0": "layers.0"})
    distiller.dry_run(batch)
    distiller.losses(batch)
    assert not any(module._forward_hooks for module in distiller.modules())


def test_teacher_outputs_are_not_cached():
    """A cache of the logits could not replace the forward pass, whose hidden layers are needed."""
    distiller = FeatureKD(perceptron(6), perceptron(9), layers={"layers.0": "layers.0"})
    distiller.dry_run(make_batch())
    assert distiller.frozen_teacher.direct_calls > 0
    assert not distiller.frozen_teacher.is_cacheable


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, "at least one pair"),
        ({"layers.7": "layers.0"}, "student module path in layers must be one of .*layers.0.*got 'layers.7'"),
        ({"layers.0": "layer.0"}, "teacher module path in layers must be one of .*got 'layer.0'"),
        ({"": "layers.0"}, "student module path in layers must be one of .*got ''"),
    ],
)
def test_wrong_paths_are_refused(layers, message):
    with pytest.raises(ConfigError, match=message):
        LayerKD(perceptron(6), perceptron(9), layers=layers)


def test_a_layer_that_is_not_called_is_refused():
    class WithIdleLayer(MLP):
        def __init__(self) -> None:
            super().__init__(in_shape=(4,), num_classes=CLASSES, hidden=[6])
            self.idle = nn.Linear(4, 8)

    distiller = LayerKD(perceptron(6), WithIdleLayer(), layers={"head": "idle"})
    with pytest.raises(ConfigError, match="module 'idle' of WithIdleLayer was not called"):
        distiller.run_both(make_batch())
