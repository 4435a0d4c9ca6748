"""Learners: many networks as the rows of a matrix, against torch's own modules and initialisations."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from kdzoo.dataset_distillation import FullDataNetwork, InnerNetwork
from kdzoo.dataset_distillation.inner_network import HELD_OUT
from kdzoo.errors import ConfigError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 3))


LAYERS = [nn.Linear(5, 7, bias=False), nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.Conv1d(2, 3, 5, bias=False)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("init", ["xavier", "kaiming"])
def test_uniform_weights_are_those_that_torch_draws_from_the_same_random_numbers(init, layer):
    fill = getattr(nn.init, f"{init}_uniform_")
    expected = fill(torch.empty_like(layer.weight), generator=seeded())
    found = InnerNetwork(copy.deepcopy(layer), init=init).sample(1, seeded())
    torch.testing.assert_close(found[0], expected.detach().flatten())


@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(5, 7), lambda: nn.Conv2d(4, 6, 3, groups=2)], ids=["linear", "conv"]
)
def test_default_weights_and_biases_are_those_of_torchs_layers(make):
    torch.manual_seed(3)
    layer = make()
    inner_network = InnerNetwork(make(), init="default")
    torch.manual_seed(3)
    torch.testing.assert_close(inner_network.sample(1)[0], nn.utils.parameters_to_vector(layer.parameters()).detach())


def test_normal_weights_have_their_mean_and_deviation_everywhere():
    weights = InnerNetwork(network(), init="normal", mean=0.3, std=0.05).sample(4000, seeded())
    assert (weights.mean(0) - 0.3).abs().max() < 5 * 0.05 / math.sqrt(4000)
    assert (weights.std(0) / 0.05 - 1).abs().max() < 5 / math.sqrt(2 * 4000)


@pytest.mark.parametrize("init", ["xavier", "kaiming", "default"])
def test_normalisation_layers_begin_as_the_identity(init):
    inner_network = InnerNetwork(network(), init=init)
    first, second = (inner_network.state(weights) for weights in inner_network.sample(2, seeded()))
    assert (first["1.weight"] == 1).all()
    assert (first["1.bias"] == 0).all()
    assert ((first["4.bias"] == 0).all()) == (init != "default")
    assert (first["4.weight"] != second["4.weight"]).any()


def test_every_row_is_a_network_of_its_own():
    inner_network, inputs = InnerNetwork(network()), torch.randn(6, 1, 5, 5)
    weights = inner_network.sample(3, seeded())
    assert weights.shape == (3, inner_network.n_weights)
    together = inner_network.logits(weights, inputs)
    for k in range(3):
        model = network()
        model.load_state_dict(inner_network.state(weights[k]))
        torch.testing.assert_close(together[k], model(inputs))
        torch.testing.assert_close(inner_network.logits(weights[k : k + 1], inputs), together[k : k + 1])


def test_the_loss_is_the_sum_over_networks_of_their_mean_cross_entropy_with_soft_labels():
    inner_network = InnerNetwork(network().double())
    weights, images, labels = (
        inner_network.sample(3, seeded()).double(),
        torch.randn(6, 1, 5, 5).double(),
        torch.randn(6, 3).double(),
    )
    model = network().double()
    expected = sum(cross_entropy(functional_call(model, inner_network.state(one), images), labels) for one in weights)
    torch.testing.assert_close(inner_network.loss(weights, images, labels), expected)


class Branching(nn.Module):
    """A network whose path depends on its weights, which cannot be batched over them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, inputs):
        logits = self.linear(inputs)
        return logits if logits.sum() > 0 else 2 * logits


def test_a_network_that_cannot_be_batched_is_taken_one_by_one():
    inner_network, inputs = InnerNetwork(Branching()), torch.randn(5, 4)
    weights = inner_network.sample(4, seeded())
    with pytest.warns(UserWarning, match="Branching is trained one by one, more slowly"):
        found = inner_network.logits(weights, inputs)
    torch.testing.assert_close(found, torch.cat([inner_network.logits(one[None], inputs) for one in weights]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(inner_network.logits(weights, inputs), found)


def test_an_error_of_the_network_stays_what_it_is():
    inner_network = InnerNetwork(network())
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        inner_network.logits(inner_network.sample(2), torch.randn(3, 1, 9, 9))


def test_dropout_is_off():
    inner_network = InnerNetwork(nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 2)))
    weights, inputs = inner_network.sample(2), torch.randn(3, 4)
    assert torch.equal(inner_network.logits(weights, inputs), inner_network.logits(weights, inputs))


def test_held_out_weights_are_always_the_same_and_no_others():
    inner_network = InnerNetwork(network())
    assert inner_network.is_ready
    assert torch.equal(inner_network.held_out(4), inner_network.held_out(4))
    assert len(inner_network.held_out()) == HELD_OUT
    assert not torch.equal(inner_network.sample(4, seeded()), inner_network.held_out(4))
    assert torch.equal(inner_network.sample(4, seeded()), inner_network.sample(4, seeded()))
    assert not torch.equal(inner_network.sample(4), inner_network.sample(4))


def test_a_fixed_start_is_one_for_all():
    inner_network = InnerNetwork(network(), fixed=7)
    weights = inner_network.sample(3)
    assert torch.equal(weights, inner_network.sample(1))  # one row: K networks would all be the same
    assert torch.equal(inner_network.held_out(), weights[:1])
    assert not torch.equal(weights[:1], InnerNetwork(network(), fixed=8).sample(1))


def test_training_draws_from_a_pool_and_judges_hold_the_rest():
    inner_network = InnerNetwork(nn.Linear(4, 3), pool=5)
    assert not inner_network.is_ready
    with pytest.raises(ConfigError, match="pool of 5 networks is not trained"):
        inner_network.sample(1)
    inner_network.set_pool(torch.arange(5.0 + HELD_OUT)[:, None].expand(-1, inner_network.n_weights))
    assert inner_network.is_ready
    assert set(inner_network.sample(200, seeded())[:, 0].tolist()) == {0, 1, 2, 3, 4}
    assert inner_network.held_out()[:, 0].tolist() == [5 + i for i in range(HELD_OUT)]
    assert inner_network.held_out(3)[:, 0].tolist() == [5, 6, 7]


def test_the_judges_of_a_pool_are_saved_and_the_pattern_is_not():
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
        (nn.Embedding(3, 2), {"init": "default"}, "not the parameter 'weight' of a Embedding"),
    ],
)
def test_what_is_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        InnerNetwork(model, **options)


def test_the_network_of_all_data_begins_like_the_first_learner_and_can_be_trained():
    first = InnerNetwork(nn.Linear(4, 3), init="normal", mean=1.0, std=0.0)
    full = FullDataNetwork(inner_network={"a": first, "b": InnerNetwork(nn.Linear(4, 3))})
    assert all((parameter == 1).all() and parameter.requires_grad for parameter in full.parameters())
    assert full(torch.ones(2, 4)).tolist() == [[5.0] * 3] * 2
    full.network.weight.data.fill_(0)
    assert not first.model.weight.requires_grad
    assert (first.model.weight != 0).any()
