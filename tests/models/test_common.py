"""What every model of fixed-size inputs promises, on several input shapes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from kdzoo.models import MLP, ConvNet, LeNet, MPSClassifier, PatchMPS, ResNet, StackedMPS

CASES: list[tuple[Callable[..., nn.Module], tuple[int, ...], dict[str, Any]]] = [
    (MLP, (64,), {}),
    (MLP, (1, 28, 28), {"hidden": [32, 16], "activation": "tanh"}),
    (MLP, (3, 8, 8), {"hidden": []}),
    (MLP, (5, 7), {"dropout": 0.5, "input_dropout": 0.2}),
    (ConvNet, (1, 28, 28), {}),
    (ConvNet, (3, 32, 32), {"channels": [4, 8, 8], "norm": "batch", "hidden": 16, "dropout": 0.3}),
    (ConvNet, (1, 8, 11), {"channels": [4], "kernel_size": 5, "dropout": 0.3}),
    (ConvNet, (2, 4, 4), {}),
    (
        ConvNet,
        (1, 12, 15),
        {"channels": [3], "kernel_size": 5, "padding": "valid", "activation": "tanh", "pooling": "avg"},
    ),
    (ConvNet, (3, 16, 16), {"channels": [4, 4, 4], "pooling": "avg", "norm": "instance"}),
    (LeNet, (1, 28, 28), {}),
    (LeNet, (3, 12, 33), {}),
    (ResNet, (3, 32, 32), {"width": 4}),
    (ResNet, (1, 28, 28), {"width": 4, "depth": 14}),
    (ResNet, (1, 8, 9), {"width": 2}),
    (MPSClassifier, (64,), {"bond_dim": 4}),
    (MPSClassifier, (3, 4, 5), {"bond_dim": 3, "boundary": "periodic", "degree": 2, "engine": "sweep"}),
    (PatchMPS, (1, 8, 12), {"bond_dim": 4}),
    (PatchMPS, (3, 4, 4), {"bond_dim": 3, "patch": 2, "learned": 5, "probes": [2]}),
    (StackedMPS, (1, 4, 5), {}),
    (StackedMPS, (9,), {"copies": 3, "bond_dim": 3, "hidden_bond_dim": 2, "noise": 1.0}),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    build, in_shape, options = request.param
    return build(in_shape=in_shape, num_classes=7, **options), torch.randn(5, *in_shape)


def test_logits_have_one_row_per_input(case):
    model, x = case
    assert model(x).shape == (5, 7)
    assert model(x).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_one_works(case, training):
    model, x = case
    assert model.train(training)(x[:1]).shape == (1, 7)


def test_gradients_reach_every_parameter(case):
    model, x = case
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_eval_mode_is_deterministic_and_row_by_row(case):
    model, x = case
    model.eval()
    assert torch.equal(model(x), model(x))
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]))


def test_compiled_equals_eager(case):
    model, x = case
    model.eval()
    expected = model(x)
    torch._dynamo.reset()
    model.compile(backend="eager")
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


def test_weights_survive_a_state_dict_of_a_second_model(case):
    model, x = case
    twin_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    expected = model(x)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    model.load_state_dict(twin_state)
    assert torch.equal(model(x), expected)


def test_every_module_can_be_hooked(case):
    model, x = case
    seen: set[str] = set()
    named = {name: module for name, module in model.named_modules() if is_called(module)}
    for name, module in named.items():
        module.register_forward_hook(lambda *_, name=name: seen.add(name))
    model(x)
    assert seen == set(named)


def is_called(module: nn.Module) -> bool:
    """Whether a forward pass calls it: no dictionary of modules and no empty sequence."""
    return not (isinstance(module, nn.ModuleDict) or (isinstance(module, nn.Sequential) and len(module) == 0))


@pytest.mark.parametrize("build", [MLP, ConvNet, LeNet, ResNet, MPSClassifier, StackedMPS])
@pytest.mark.parametrize("num_classes", [0, -1])
def test_num_classes_is_checked(build, num_classes):
    with pytest.raises(ValueError, match=f"^num_classes must be an integer >= 1, got {num_classes}$"):
        build(in_shape=(1, 12, 12), num_classes=num_classes)


@pytest.mark.parametrize("num_classes", [2.0, True, "3", None])
def test_num_classes_of_another_type_is_refused(build_any, num_classes):
    with pytest.raises(ValueError, match=f"^num_classes must be an integer >= 1, got {num_classes!r}$"):
        build_any(in_shape=(1, 12, 12), num_classes=num_classes)


@pytest.fixture(params=[MLP, ConvNet, LeNet, ResNet, MPSClassifier, StackedMPS])
def build_any(request: pytest.FixtureRequest) -> Callable[..., nn.Module]:
    return request.param
