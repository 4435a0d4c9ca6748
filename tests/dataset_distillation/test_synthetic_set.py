"""Synthetic sets: labels, step sizes, and the trainings on them against plain torch."""

import copy

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq
from torch import nn
from torch.nn.functional import cross_entropy

from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.synthetic_set import MAX_STEP_SIZE, MIN_STEP_SIZE, initial_labels, project_onto_simplex
from kdzoo.errors import ConfigError, NonFiniteLossError

some = settings(max_examples=60, deadline=None, derandomize=True)


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def make_set(**options):
    torch.manual_seed(0)
    inner_network = options.pop("inner_network", None) or {"net": InnerNetwork(network())}
    return SyntheticSet(**{"in_shape": (2, 3), "num_classes": 3, "steps": 8, "inner_network": inner_network, **options})


# ---------------------------------------------------------------- labels


real_numbers = st.floats(-1e6, 1e6, width=64)


@some
@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=real_numbers))
def test_the_projection_onto_the_simplex_is_the_shift_that_sums_to_one(values):
    projections = project_onto_simplex(torch.from_numpy(values)).numpy()
    for row, projected in zip(values, projections, strict=True):
        threshold = brentq(lambda t, row=row: np.maximum(row - t, 0).sum() - 1, row.min() - 2, row.max(), xtol=1e-12)
        np.testing.assert_allclose(projected, np.maximum(row - threshold, 0), atol=1e-8)


@some
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 12)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_no_distribution_is_nearer_than_the_projection(values):
    projections = project_onto_simplex(torch.from_numpy(values)).double().numpy()
    assert (projections >= 0).all()
    np.testing.assert_allclose(projections.sum(1), 1, rtol=1e-5)
    residual = values.astype(np.float64) - projections
    # the variational inequality <v - p, e_i - p> <= 0 at all corners e_i
    assert (residual - (residual * projections).sum(1, keepdims=True) <= 1e-5 * (1 + np.abs(values).max())).all()


@some
@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=st.floats(0.01, 1)))
def test_distributions_are_projected_onto_themselves(values):
    distributions = torch.from_numpy(values / values.sum(1, keepdims=True))
    torch.testing.assert_close(project_onto_simplex(distributions), distributions)


@some
@given(st.integers(1, 40), st.integers(2, 12))
def test_initial_labels_are_fair_distributions_in_order_of_class(examples, num_classes):
    labels = initial_labels(examples, num_classes)
    assert labels.shape == (examples, num_classes)
    torch.testing.assert_close(labels.sum(1), torch.ones(examples))
    shared = labels > 0
    for counts in (shared.sum(0), shared.sum(1)):  # examples of a class, classes of an example
        assert 1 <= counts.min() <= counts.max() <= counts.min() + 1
    assert shared.sum(1).max() == 1 or shared.sum(0).max() == 1
    assert (labels.amax(1) * shared.sum(1)).allclose(torch.ones(examples))
    order = shared.nonzero()
    assert (order[1:, 1] >= order[:-1, 1]).all()


# ---------------------------------------------------------------- trainings


OPTIMIZERS = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=1.0),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=1.0, momentum=0.7),
    "adam": lambda weights: torch.optim.Adam(weights, lr=1.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("labels", ["own", "others"])
def test_networks_are_trained_as_by_a_loop_of_torchs_optimizers(name, labels):
    synthetic_set = make_set(optimizer=name, momentum=0.7, per_class=2).double()
    sizes = torch.linspace(0.02, 0.3, synthetic_set.steps).double()
    synthetic_set.step_sizes["net"].data.copy_(sizes)
    given = torch.randn(6, 3).double() if labels == "others" else None
    initial = synthetic_set.inner_networks["net"].sample(3).double()
    result = synthetic_set.train_networks("net", initial, labels=given)
    for start, trained in zip(initial, result, strict=True):
        model = network().double()
        model.load_state_dict(synthetic_set.inner_networks["net"].state(start))
        optimizer = OPTIMIZERS[name](model.parameters())
        for size in sizes:
            optimizer.param_groups[0]["lr"] = float(size)
            optimizer.zero_grad()
            cross_entropy(
                model(synthetic_set.images.detach()), synthetic_set.labels.detach() if given is None else given
            ).backward()
            optimizer.step()
        expected = nn.utils.parameters_to_vector(model.parameters())
        assert (expected - start).abs().max() > 0.1
        torch.testing.assert_close(trained, expected.detach(), rtol=1e-6, atol=1e-7)


def test_a_schedule_ends_early_or_repeats_its_last_size():
    synthetic_set = make_set(steps=3)
    synthetic_set.step_sizes["net"].data.copy_(torch.tensor([0.1, 0.2, 0.3]))
    assert synthetic_set.schedule("net").tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert synthetic_set.schedule("net", 2).tolist() == pytest.approx([0.1, 0.2])
    longer = synthetic_set.schedule("net", 5)
    assert longer.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3])
    longer.sum().backward()
    assert synthetic_set.step_sizes["net"].grad.tolist() == [1, 1, 3]
    shared = make_set(steps=4, step_sizes="shared", step_size=0.25)
    assert shared.step_sizes["net"].shape == (1,)
    assert shared.schedule("net").tolist() == [0.25] * 4


def test_every_inner_network_has_its_own_step_sizes():
    synthetic_set = make_set(
        inner_network={"a": InnerNetwork(network()), "b": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)))}
    )
    synthetic_set.step_sizes["b"].data.fill_(0.5)
    initial = synthetic_set.inner_networks["b"].sample(2)
    slow = copy.deepcopy(synthetic_set)
    slow.step_sizes["b"].data.fill_(0.05)
    assert (synthetic_set.train_networks("b", initial) - slow.train_networks("b", initial)).abs().max() > 0.1
    synthetic_set.train_networks("b", initial).square().sum().backward()
    assert synthetic_set.step_sizes["a"].grad is None
    assert all(
        (grad != 0).all()
        for grad in (synthetic_set.step_sizes["b"].grad, synthetic_set.images.grad, synthetic_set.labels.grad)
    )


@pytest.mark.parametrize(
    ("labels", "sizes", "learned"),
    [
        ("free", "per_step", {"images", "labels", "step_sizes.net"}),
        ("simplex", "shared", {"images", "labels", "step_sizes.net"}),
        ("fixed", "fixed", {"images"}),
    ],
)
def test_learned_parameters(labels, sizes, learned):
    synthetic_set = make_set(labels=labels, step_sizes=sizes)
    assert {name for name, parameter in synthetic_set.named_parameters() if parameter.requires_grad} == learned
    assert set(synthetic_set.state_dict()) == {"images", "labels", "step_sizes.net"}


@pytest.mark.parametrize("labels", ["free", "simplex"])
def test_the_projection_changes_only_what_is_out_of_its_range(labels):
    synthetic_set = make_set(labels=labels, steps=3)
    moved = torch.tensor([[2.0, 0.0, 0.0], [0.2, 0.3, 0.5], [-1.0, 0.6, 0.6]])
    synthetic_set.step_sizes["net"].data.copy_(torch.tensor([-1.0, 0.5, 7.0]))
    synthetic_set.labels.data.copy_(moved)
    images = synthetic_set.images.detach().clone()
    synthetic_set.project_()
    assert synthetic_set.step_sizes["net"].tolist() == pytest.approx([MIN_STEP_SIZE, 0.5, MAX_STEP_SIZE])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.0, 0.5, 0.5]])
    torch.testing.assert_close(synthetic_set.labels.detach(), expected if labels == "simplex" else moved)
    assert torch.equal(synthetic_set.images, images)
    assert synthetic_set.labels.requires_grad


def test_a_call_returns_the_logits_of_a_network_trained_on_the_set():
    synthetic_set, inputs = make_set(step_size=0.5), torch.randn(5, 2, 3)
    inner_network = synthetic_set.inner_networks["net"]
    expected = inner_network.logits(synthetic_set.train_networks("net", inner_network.held_out(1)), inputs)[0].detach()
    logits = synthetic_set(inputs)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, expected)


def test_sizes_and_classes():
    synthetic_set = make_set(per_class=4)
    assert (synthetic_set.size, synthetic_set.images.shape, synthetic_set.labels.shape) == (12, (12, 2, 3), (12, 3))
    synthetic_set.labels.data[5] = torch.tensor([0.1, 0.2, 0.9])
    assert synthetic_set.classes().tolist() == [0] * 4 + [1, 2, 1, 1] + [2] * 4
    assert make_set(examples=2, labels="simplex").labels.tolist() == [[0.5, 0.5, 0], [0, 0, 1]]


def test_a_diverging_training_is_refused():
    synthetic_set = make_set(
        step_size=1.0, inner_network={"net": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)))}
    )
    synthetic_set.images.data.fill_(1e30)
    with pytest.raises(NonFiniteLossError, match="inner step"):
        synthetic_set.train_networks("net", synthetic_set.inner_networks["net"].sample(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes must be an integer >= 2"),
        ({"steps": 0}, "steps must be an integer >= 1"),
        ({"per_class": 0}, "per_class must be"),
        ({"examples": 0}, "examples must be"),
        ({"examples": 2, "labels": "fixed"}, "an example of each of 3 classes, got examples=2"),
        ({"labels": "soft"}, "labels must be one of free, simplex, fixed"),
        ({"step_sizes": "each"}, "step_sizes must be one of per_step, shared, fixed"),
        ({"step_size": 2.0}, r"step_size must be a finite number in \[1e-05, 1\]"),
        ({"optimizer": "lion"}, "optimizer must be one of sgd, momentum, adam"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"in_shape": (0,)}, r"in_shape\[0\] must be"),
        (
            {"inner_network": {"net": network()}},
            "inner_network.net must be a kdzoo.dataset_distillation.InnerNetwork, got Sequential",
        ),
    ],
)
def test_invalid_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_set(**options)


def test_an_inner_network_is_needed():
    with pytest.raises(ConfigError, match="inner_network must name at least one network"):
        SyntheticSet(in_shape=(2,), num_classes=2)


def test_learning_a_set_by_gradients_through_the_training_raises_the_accuracy():
    """A set of random images, moved along gradients through the training, trains networks that recognise digits."""
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    inputs, targets = torch.from_numpy(pixels / 16).float(), torch.from_numpy(targets)
    torch.manual_seed(0)
    synthetic_set = SyntheticSet(
        in_shape=(64,), num_classes=10, inner_network={"linear": InnerNetwork(nn.Linear(64, 10))}, step_size=0.5
    )
    inner_network, optimizer = (
        synthetic_set.inner_networks["linear"],
        torch.optim.Adam(synthetic_set.parameters(), lr=0.02),
    )

    def evaluate(rows, weights):
        logits = inner_network.logits(synthetic_set.train_networks("linear", weights), inputs[rows])
        return logits, targets[rows].repeat(len(weights))

    for _ in range(80):
        logits, expected = evaluate(torch.randint(1200, (256,)), inner_network.sample(2))
        loss = cross_entropy(logits.flatten(0, 1), expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        synthetic_set.project_()
    logits, expected = evaluate(slice(1200, None), inner_network.held_out(5))
    assert (logits.flatten(0, 1).argmax(1) == expected).double().mean() > 0.75


def test_images_start_as_noise_of_the_given_deviation():
    inner_network = {"linear": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(400, 2)))}
    synthetic_set = SyntheticSet(in_shape=(20, 20), num_classes=2, inner_network=inner_network, per_class=20, noise=0.1)
    assert float(synthetic_set.images.detach().std()) == pytest.approx(0.1, rel=0.05)
    with pytest.raises(ConfigError, match=r"noise must be a finite number >= 0, got -1\.0"):
        SyntheticSet(in_shape=(20, 20), num_classes=2, inner_network=inner_network, noise=-1.0)


def test_pixels_are_projected_onto_their_range():
    inner_network = {"linear": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))}
    synthetic_set = SyntheticSet(in_shape=(2, 2), num_classes=2, inner_network=inner_network, pixel_range=[0.0, 1.0])
    synthetic_set.images.data = torch.tensor([[[-1.0, 0.5], [2.0, 1.0]]] * 2)
    synthetic_set.after_step()
    assert synthetic_set.images.tolist() == [[[0, 0.5], [1, 1]]] * 2
    with pytest.raises(ConfigError, match=r"pixel_range must be \[least, most\] with least <= most"):
        SyntheticSet(in_shape=(2, 2), num_classes=2, inner_network=inner_network, pixel_range=[1.0, 0.0])
