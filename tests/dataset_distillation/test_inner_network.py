"""Inner networks: many networks as the rows of a matrix, against torch's own modules; and those of the package."""

import math
import warnings

import pytest
import torch
import yaml
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from kdzoo import config
from kdzoo.dataset_distillation import InnerNetwork
from kdzoo.dataset_distillation.inner_network import HELD_OUT
from kdzoo.errors import ConfigError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 3))


def test_each_row_of_weights_is_one_network():
    inner_network, inputs = InnerNetwork(network()), torch.randn(6, 1, 5, 5)
    weights = inner_network.sample(3, seeded())
    assert weights.shape == (3, inner_network.n_weights)
    batched = inner_network.logits(weights, inputs)
    for k in range(3):
        model = network()
        model.load_state_dict(inner_network.state(weights[k]))
        torch.testing.assert_close(batched[k], model(inputs))
        torch.testing.assert_close(inner_network.logits(weights[k : k + 1], inputs), batched[k : k + 1])


def test_the_loss_is_the_sum_over_networks_of_their_mean_cross_entropy_with_soft_labels():
    inner_network = InnerNetwork(network().double())
    weights, images, labels = (
        inner_network.sample(3, seeded()).double(),
        torch.randn(6, 1, 5, 5).double(),
        torch.randn(6, 3).double(),
    )
    model = network().double()
    expected = sum(cross_entropy(functional_call(model, inner_network.state(row), images), labels) for row in weights)
    torch.testing.assert_close(inner_network.loss(weights, images, labels), expected)


class Branching(nn.Module):
    """A network whose path depends on its weights, which cannot be batched over them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, inputs):
        logits = self.linear(inputs)
        return logits if logits.sum() > 0 else 2 * logits


def test_a_network_that_cannot_be_batched_is_computed_one_by_one_after_a_warning():
    inner_network, inputs = InnerNetwork(Branching()), torch.randn(5, 4)
    weights = inner_network.sample(4, seeded())
    with pytest.warns(UserWarning, match="Branching is trained one by one, more slowly"):
        logits = inner_network.logits(weights, inputs)
    torch.testing.assert_close(logits, torch.cat([inner_network.logits(row[None], inputs) for row in weights]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(inner_network.logits(weights, inputs), logits)


def test_an_error_of_the_model_itself_is_raised_unchanged():
    inner_network = InnerNetwork(network())
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        inner_network.logits(inner_network.sample(2), torch.randn(3, 1, 9, 9))


def test_dropout_is_off():
    inner_network = InnerNetwork(nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 2)))
    weights, inputs = inner_network.sample(2), torch.randn(3, 4)
    assert torch.equal(inner_network.logits(weights, inputs), inner_network.logits(weights, inputs))


def test_held_out_weights_are_the_same_at_every_call_and_unlike_sampled_ones():
    inner_network = InnerNetwork(network())
    assert inner_network.is_ready
    assert torch.equal(inner_network.held_out(4), inner_network.held_out(4))
    assert len(inner_network.held_out()) == HELD_OUT
    assert not torch.equal(inner_network.sample(4, seeded()), inner_network.held_out(4))
    assert torch.equal(inner_network.sample(4, seeded()), inner_network.sample(4, seeded()))
    assert not torch.equal(inner_network.sample(4), inner_network.sample(4))
    assert not torch.equal(inner_network.held_out(4, validation=True), inner_network.held_out(4))


def test_a_fixed_start_is_the_same_for_all_networks():
    inner_network = InnerNetwork(network(), fixed=7)
    weights = inner_network.sample(3)
    assert torch.equal(weights, inner_network.sample(1))  # one row: K networks would all be the same
    assert torch.equal(inner_network.held_out(), weights[:1])
    assert not torch.equal(weights[:1], InnerNetwork(network(), fixed=8).sample(1))


def test_networks_are_sampled_from_the_pool_and_held_out_ones_are_never_sampled():
    inner_network = InnerNetwork(nn.Linear(4, 3), pool=5)
    assert not inner_network.is_ready
    with pytest.raises(ConfigError, match="pool of 5 networks is not trained"):
        inner_network.sample(1)
    with pytest.raises(ConfigError, match="held-out networks of a pool of 5 are not trained"):
        inner_network.held_out()
    inner_network.set_pool(torch.arange(5.0 + HELD_OUT)[:, None].expand(-1, inner_network.n_weights))
    assert inner_network.is_ready
    assert set(inner_network.sample(200, seeded())[:, 0].tolist()) == {0, 1, 2, 3, 4}
    assert inner_network.held_out()[:, 0].tolist() == [5 + i for i in range(HELD_OUT)]
    assert inner_network.held_out(3)[:, 0].tolist() == [5, 6, 7]


def test_the_held_out_weights_of_a_pool_are_saved_and_the_model_is_not():
    inner_network, other = (InnerNetwork(nn.Linear(4, 3), pool=5) for _ in range(2))
    inner_network.set_pool(torch.rand(5 + HELD_OUT, inner_network.n_weights))
    assert set(inner_network.state_dict()) == {"evaluation_weights"}
    other.load_state_dict(inner_network.state_dict())
    assert torch.equal(other.held_out(), inner_network.held_out())
    assert other.is_ready
    assert list(InnerNetwork(nn.Linear(4, 3)).state_dict()) == list(inner_network.parameters()) == []


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear(2, 2), {"init": "zeros"}, "init must be one of xavier, kaiming, normal, default, got 'zeros'"),
        (nn.Linear(2, 2), {"std": -1.0}, "std must be a finite number >= 0"),
        (nn.Linear(2, 2), {"mean": math.nan}, "mean must be a finite number"),
        (nn.Linear(2, 2), {"fixed": -1}, "fixed must be an integer >= 0"),
        (nn.Linear(2, 2), {"pool": -1}, "pool must be an integer >= 0"),
        (nn.Linear(2, 2), {"pool_steps": 0}, "pool_steps must be an integer >= 1"),
        (nn.Linear(2, 2), {"fixed": 0, "pool": 3}, "fixed=0 and pool=3 exclude each other"),
        (nn.Flatten(), {}, "Flatten has no parameters"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), {}, "BatchNorm1d at '1', whose statistics"),
        (nn.Sequential(nn.Linear(2, 2), nn.InstanceNorm1d(2, track_running_stats=True)), {}, "InstanceNorm1d at '1'"),
        (nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)), {}, "BatchNorm1d at '0'"),
    ],
)
def test_invalid_arguments_are_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        InnerNetwork(model, **options)


# ---------------------------------------------------------------- the packaged inner networks


WEIGHTS = {
    "logistic": 784 * 10 + 10,
    "mlp": (784 * 100 + 100) + (100 * 10 + 10),
    "convnet_8": 74_650,
    "lenet": 61_706,
    "convnet_3x128": (128 * 9 + 256) + 2 * (128 * 128 * 9 + 256) + (128 * 3 * 3 * 10 + 10),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_packaged_file_has_one_inner_network_of_its_published_size(name):
    ((key, node),) = yaml.safe_load((config.packaged_folder() / "inner_network" / f"{name}.yaml").read_text()).items()
    model = {**node["model"], "in_shape": (1, 28, 28), "num_classes": 10}
    inner_network = config.instantiate({**node, "model": model}, allow={node["_target_"], model["_target_"]})
    assert key == name
    assert isinstance(inner_network, InnerNetwork)
    assert inner_network.n_weights == WEIGHTS[name]
    weights = inner_network.sample(2, torch.Generator().manual_seed(0))
    assert inner_network.logits(weights, torch.zeros(3, 1, 28, 28)).shape == (2, 3, 10)


def test_several_packaged_inner_networks_are_selected_by_name():
    selected = config.compose("inner_network=[logistic,convnet_3x128]").inner_network
    assert list(selected) == ["logistic", "convnet_3x128"]


def test_an_error_in_an_inner_network_names_its_key():
    linear = {"_target_": "kdzoo.models.MLP", "in_shape": (2, 2), "num_classes": 3, "hidden": []}
    node = {
        "_target_": "kdzoo.dataset_distillation.SyntheticSet",
        "in_shape": (2, 2),
        "num_classes": 3,
        "inner_network": {
            "linear": {"_target_": "kdzoo.dataset_distillation.InnerNetwork", "model": linear, "std": -1.0}
        },
    }
    with pytest.raises(ConfigError, match=r"^inner_network\.linear: std must be a finite number >= 0, got -1.0$"):
        config.instantiate(node, allow=config.packaged_targets())
