"""The training of networks while a set is learned: what is drawn, from where, how long, and what is refused."""

import math

import pytest
import torch
from torch import nn

from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.inner_network import HELD_OUT
from kdzoo.dataset_distillation.inner_training import InnerTraining
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional.unroll import ENGINES, Adam

OPTIONS = {
    "inits": 3,
    "lengths": None,
    "adam_share": 0.0,
    "adam_rates": (0.001, 0.03),
    "window": None,
    "engine": "full",
    "seed": 0,
}


def make_set(inner_network=None, **options):
    torch.manual_seed(0)
    inner_network = inner_network or {"a": InnerNetwork(nn.Linear(4, 3)), "b": InnerNetwork(nn.Linear(4, 3))}
    return SyntheticSet(**{"in_shape": (4,), "num_classes": 3, "steps": 4, "inner_network": inner_network, **options})


def make(synthetic_set=None, **options):
    return InnerTraining(synthetic_set or make_set(), **{**OPTIONS, "notes": {}, **options})


@pytest.fixture
def calls(monkeypatch):
    """The arguments of every training, in order."""
    recorded = []
    train = SyntheticSet.train_networks

    def record(self, name, weights, steps=None, **options):
        recorded.append({"name": name, "weights": weights, "steps": steps, **options})
        return train(self, name, weights, steps, **options)

    monkeypatch.setattr(SyntheticSet, "train_networks", record)
    return recorded


def test_sampled_networks_are_trained_on_the_set_with_its_gradient(calls):
    training = make()
    weights = training.train_sampled(0)
    assert {name: tuple(value.shape) for name, value in weights.items()} == {"a": (3, 15), "b": (3, 15)}
    for call in list(calls):  # training again records more calls
        expected = training.synthetic_set.train_networks(call["name"], call["weights"], 4)
        torch.testing.assert_close(weights[call["name"]], expected)
    weights["b"].sum().backward()
    assert training.synthetic_set.images.grad.abs().sum() > 0
    assert training.synthetic_set.step_sizes["a"].grad is None


def test_draws_are_a_function_of_seed_and_step():
    options = {"lengths": [2, 9], "adam_share": 0.5}
    first, again, other_seed = make(**options), make(**options), make(**options, seed=1)
    torch.rand(1)
    for step in range(4):
        expected = first.train_sampled(step)
        assert all(torch.equal(again.train_sampled(step)[name], value) for name, value in expected.items())
        assert not torch.equal(other_seed.train_sampled(step)["a"], expected["a"])
    assert not torch.equal(first.train_sampled(0)["a"], first.train_sampled(1)["a"])


def test_lengths_are_drawn_uniformly_with_both_ends_and_shared_by_the_inner_networks(calls):
    training = make(lengths=[2, 5], inits=1)
    for step in range(200):
        training.train_sampled(step)
    by_network = {name: [call["steps"] for call in calls if call["name"] == name] for name in ("a", "b")}
    assert by_network["a"] == by_network["b"]
    counts = [by_network["a"].count(length) for length in range(2, 6)]
    assert sum(counts) == 200
    assert all(abs(count - 50) < 5 * math.sqrt(200 * 0.25 * 0.75) for count in counts)


def test_adam_has_its_share_of_the_draws_at_log_uniform_rates(calls):
    training = make(adam_share=0.4, adam_rates=[0.01, 1.0], inits=1)
    for step in range(300):
        training.train_sampled(step)
    rates = [float(call["step_sizes"][0]) for call in calls if call["name"] == "a" and "step_sizes" in call]
    assert abs(len(rates) - 120) < 5 * math.sqrt(300 * 0.4 * 0.6)
    assert all(0.01 <= rate <= 1.0 for rate in rates)
    # The logarithm to base 10 is uniform on [-2, 0]: mean -1, deviation 1 / sqrt(3).
    assert abs(sum(math.log10(rate) for rate in rates) / len(rates) + 1) < 5 / math.sqrt(3 * len(rates))
    adam = [call for call in calls if "step_sizes" in call]
    assert all(isinstance(call["optimizer"], Adam) and len(call["step_sizes"]) == 4 for call in adam)
    assert all(len(set(call["step_sizes"].tolist())) == 1 for call in adam)


def test_held_out_networks_are_trained_once_for_each_state_of_the_set(calls):
    training = make()
    synthetic_set = training.synthetic_set
    first = training.train_held_out(0, 5)
    assert training.train_held_out(0, 5) is first
    assert len(calls) == 2
    expected = synthetic_set.train_networks("a", synthetic_set.inner_networks["a"].held_out(5, validation=True))
    torch.testing.assert_close(first["a"], expected)
    with torch.no_grad():
        synthetic_set.images.mul_(2)
    changed = training.train_held_out(0, 5)
    assert not torch.equal(changed["a"], first["a"])
    assert training.train_held_out(1, 5) is not changed


def test_a_dry_run_does_without_trained_pools():
    training = make(make_set({"pooled": InnerNetwork(nn.Linear(4, 3), pool=2)}))
    with pytest.raises(ConfigError, match="held-out networks of a pool of 2 are not trained"):
        training.train_held_out(0, 5)
    assert training.train_held_out(0, 5, dry_run=True)["pooled"].shape == (1, 15)
    pooled = training.synthetic_set.inner_networks["pooled"]
    pooled.set_pool(torch.rand(2 + HELD_OUT, 15))
    assert training.train_held_out(1, 5, dry_run=True)["pooled"].shape == (5, 15)


class Opaque(nn.Linear):
    """A layer whose gradient cannot be differentiated again."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, inputs, weight):
            ctx.save_for_backward(inputs, weight)
            return inputs @ weight.T

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            inputs, weight = ctx.saved_tensors
            return gradient @ weight, gradient.T @ inputs

    def forward(self, input):
        return self.Function.apply(input, self.weight) + self.bias


def test_a_loss_that_is_not_twice_differentiable_is_refused():
    with torch.no_grad():
        make().check_twice_differentiable()
        with pytest.raises(ConfigError, match="twice"):
            make(make_set({"opaque": InnerNetwork(Opaque(4, 3))})).check_twice_differentiable()


def test_the_automatic_choice_of_an_engine_is_made_once_and_noted():
    training = make(engine="auto")
    weights = training.synthetic_set.inner_networks["a"].sample(3)
    engine = training.engine_for("a", weights)
    assert engine in ENGINES
    assert set(training.notes) == {"engine of a"}
    training.notes.clear()
    assert training.engine_for("a", weights) == engine
    assert training.notes == {}
    assert make(engine="jvp").engine_for("a", weights) == "jvp"


def test_an_error_names_the_inner_network_that_diverged():
    synthetic_set = make_set(step_size=1.0)
    synthetic_set.images.data.fill_(1e30)
    with pytest.raises(NonFiniteLossError, match=r"^inner_network\.a: "):
        make(synthetic_set).train_sampled(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inits": 0}, "inits must be an integer >= 1"),
        ({"lengths": [0, 3]}, r"lengths\[0\] must be an integer >= 1"),
        ({"lengths": [5, 3]}, r"lengths must be \[least, most\] with least <= most"),
        ({"adam_share": 1.0}, r"adam_share must be in \[0, 1\)"),
        ({"adam_rates": [0.0, 1.0]}, r"adam_rates\[0\] must be finite and > 0"),
        ({"window": 0}, "window must be an integer >= 1"),
        ({"window": 5}, "window must be at most the smallest number of inner steps, 4, got 5"),
        ({"window": 4, "lengths": [3, 9]}, "at most the smallest number of inner steps, 3, got 4"),
        ({"engine": "fast"}, "engine must be one of auto, full"),
        ({"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_invalid_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
