"""The multilayer perceptron: sizes, formula, dropout and refusals."""

import math
import re

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from kdzoo.errors import ConfigError
from kdzoo.models import MLP


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ([], 784 * 10 + 10),
        ([800, 800], 784 * 800 + 800 + 800 * 800 + 800 + 800 * 10 + 10),  # 1.28M, Hinton's student
        ([1200, 1200], 784 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 10 + 10),  # 2.4M, his teacher
    ],
)
def test_parameter_count(hidden, expected):
    assert count(MLP(in_shape=(1, 28, 28), num_classes=10, hidden=hidden)) == expected


def test_forward_is_the_formula():
    model = MLP(in_shape=(2, 3), num_classes=4, hidden=[5, 6]).double()
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    w = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    h = x.numpy().reshape(3, 6)
    for i in (0, 1):
        h = np.maximum(h @ w[f"layers.{i}.linear.weight"].T + w[f"layers.{i}.linear.bias"], 0)
    expected = h @ w["head.weight"].T + w["head.bias"]
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("relu", lambda x: max(x, 0.0)),
        ("leaky_relu", lambda x: max(x, 0.01 * x)),
        ("elu", lambda x: x if x > 0 else math.expm1(x)),
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("tanh", math.tanh),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
    ],
)
@pytest.mark.parametrize("x", [-1.5, 0.7])
def test_activation_by_name(activation, formula, x):
    model = MLP(in_shape=(1,), num_classes=1, hidden=[1], activation=activation)
    activate = model.get_submodule("layers.0.activation")
    assert activate(torch.tensor(x)).item() == pytest.approx(formula(x), rel=1e-5)


def test_dropout_acts_in_training_only_and_at_its_rate():
    model = MLP(in_shape=(1000,), num_classes=1, hidden=[1000], dropout=0.3, input_dropout=0.6)
    shares = {}
    for name in ("input_dropout", "layers.0.dropout"):
        model.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: shares.update({name: ((out == 0) & (args[0] != 0)).sum().item()})
        )
    torch.manual_seed(0)
    model(torch.ones(1, 1000))
    assert 540 < shares["input_dropout"] < 660
    alive = model.layers[0].linear.out_features // 2
    assert 0.2 * alive < shares["layers.0.dropout"] < 0.4 * alive
    model.eval()(torch.ones(1, 1000))
    assert shares == {"input_dropout": 0, "layers.0.dropout": 0}


def test_dropout_does_not_rename_weights():
    without = MLP(in_shape=(4,), num_classes=2)
    dropped = MLP(in_shape=(4,), num_classes=2, dropout=0.5)
    assert without.state_dict().keys() == dropped.state_dict().keys()


def test_hooks_see_values_that_later_layers_do_not_overwrite():
    model, seen = MLP(in_shape=(4,), num_classes=2, hidden=[64]), []
    model.layers[0].linear.register_forward_hook(lambda _m, _i, out: seen.append(out))
    model(torch.randn(2, 4))
    assert (seen[0] < 0).any()  # an in-place ReLU would have erased them


def test_lists_of_omegaconf_and_torch_sizes_are_taken():
    model = MLP(in_shape=torch.Size([1, 4]), num_classes=2, hidden=OmegaConf.create([3, 5]))
    assert [layer.linear.out_features for layer in model.layers] == [3, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": [8, 0]}, "hidden[1] must be an integer >= 1, got 0"),
        ({"hidden": [2.5]}, "hidden[0] must be an integer >= 1, got 2.5"),
        ({"hidden": 8}, "hidden must be a list of integers >= 1, got 8"),
        ({"hidden": "88"}, "hidden must be a list of integers >= 1, got '88'"),
        ({"in_shape": []}, "in_shape must be a list of integers >= 1, got []"),
        ({"in_shape": [0, 3]}, "in_shape[0] must be an integer >= 1, got 0"),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        ({"dropout": -0.1}, "dropout must be in [0, 1), got -0.1"),
        ({"dropout": float("nan")}, "dropout must be in [0, 1), got nan"),
        ({"dropout": [0.1]}, "dropout must be in [0, 1), got [0.1]"),
        ({"input_dropout": 1.5}, "input_dropout must be in [0, 1), got 1.5"),
        ({"input_dropout": True}, "input_dropout must be in [0, 1), got True"),
        (
            {"activation": "relux"},
            "activation must be one of relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, got 'relux'",
        ),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        MLP(**{"in_shape": (4,), "num_classes": 2, **options})
