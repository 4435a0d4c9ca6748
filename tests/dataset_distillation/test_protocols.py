"""The matrix of protocols and networks, against plain torch and against the set's own trainings."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet, evaluation_networks
from kdzoo.dataset_distillation.inner_network import HELD_OUT
from kdzoo.dataset_distillation.protocols import PROTOCOLS, ProtocolMatrix, protocol_matrix
from kdzoo.errors import ConfigError, DataError

CLASSES = 3
SIZES = {"in_shape": (2, 3), "num_classes": CLASSES, "steps": 4, "per_class": 2, "optimizer": "momentum"}


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, CLASSES))


def deep():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES))


@pytest.fixture
def synthetic_set():
    torch.manual_seed(0)
    inner_networks = {"linear": InnerNetwork(linear()), "deep": InnerNetwork(deep())}
    synthetic_set = SyntheticSet(**SIZES, inner_network=inner_networks)
    synthetic_set.labels.data.copy_((2 * synthetic_set.labels + torch.randn(6, CLASSES)).softmax(1))
    synthetic_set.step_sizes["linear"].data.copy_(torch.tensor([0.1, 0.4, 0.2, 0.3]))
    synthetic_set.step_sizes["deep"].data.copy_(torch.tensor([0.8, 0.1, 0.6, 0.5]))
    return synthetic_set


@pytest.fixture
def data():
    torch.manual_seed(1)
    return torch.randn(50, 2, 3), torch.randint(CLASSES, (50,))


def accuracies(inner_network, weights, inputs, targets):
    """Return the accuracy of each network, one at a time."""
    every = [inner_network.logits(row[None], inputs)[0].argmax(1) for row in weights]
    return [float((predicted == targets).double().mean()) for predicted in every]


def test_the_own_schedule_with_soft_and_with_hard_labels(synthetic_set, data):
    matrix = protocol_matrix(synthetic_set, synthetic_set.inner_networks, *data, protocols=["hard", "own"], inits=7)
    assert matrix.names == (("hard", "own"), ("linear", "deep"))
    hard = one_hot(synthetic_set.classes(), CLASSES).float()
    for p, labels in enumerate((hard, None)):
        for column, (name, inner_network) in enumerate(synthetic_set.inner_networks.items()):
            trained = synthetic_set.train_networks(name, inner_network.held_out(7), labels=labels).detach()
            assert matrix.accuracy[p, column].tolist() == accuracies(inner_network, trained, *data)
    assert not torch.equal(matrix.accuracy[0], matrix.accuracy[1])
    assert not matrix.accuracy.requires_grad


OPTIMIZERS = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.3),
    "adam_1e-3": lambda weights: torch.optim.Adam(weights, lr=1e-3),
    "adam_1e-2": lambda weights: torch.optim.Adam(weights, lr=1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_constant_step_sizes_are_300_steps_of_torchs_optimizers(name, synthetic_set, data):
    inner_network = synthetic_set.inner_networks["deep"]
    matrix = protocol_matrix(synthetic_set, {"deep": inner_network}, *data, protocols=[name], inits=2, sgd_rate=0.3)
    trained = []
    for initial in inner_network.held_out(2):
        weights = initial.clone().requires_grad_()
        optimizer = OPTIMIZERS[name]([weights])
        for _ in range(300):
            optimizer.zero_grad()
            cross_entropy(
                inner_network.logits(weights[None], synthetic_set.images.detach())[0], synthetic_set.labels.detach()
            ).backward()
            optimizer.step()
        trained.append(weights.detach())
    assert matrix.accuracy[0, 0].tolist() == accuracies(inner_network, trained, *data)


def test_an_unknown_network_follows_the_mean_of_the_schedules(synthetic_set, data):
    inner_networks = {
        "wide": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, CLASSES)))
    }
    matrix = protocol_matrix(synthetic_set, inner_networks, *data, protocols=["own"], inits=5)
    alike = SyntheticSet(**SIZES, inner_network=inner_networks)
    alike.images.data, alike.labels.data = synthetic_set.images.data, synthetic_set.labels.data
    alike.step_sizes["wide"].data = torch.tensor([0.45, 0.25, 0.4, 0.4])
    assert torch.equal(
        protocol_matrix(alike, inner_networks, *data, protocols=["own"], inits=5).accuracy, matrix.accuracy
    )


def test_the_sizes_of_batches_have_no_effect(synthetic_set, data, monkeypatch):
    options = {"protocols": ["own", "hard"], "inits": 7}
    expected = protocol_matrix(synthetic_set, synthetic_set.inner_networks, *data, **options)
    monkeypatch.setattr(evaluation_networks, "NETWORKS_AT_ONCE", 2)
    monkeypatch.setattr(evaluation_networks, "INPUTS_AT_ONCE", 16)
    assert torch.equal(
        protocol_matrix(synthetic_set, synthetic_set.inner_networks, *data, **options).accuracy, expected.accuracy
    )


def test_a_diverged_network_counts_as_guessing_and_does_not_affect_others(synthetic_set, data):
    pooled = InnerNetwork(linear(), pool=1)
    with pytest.raises(ConfigError, match="pool of 1 are not trained"):
        protocol_matrix(synthetic_set, {"linear": pooled}, *data, protocols=["own"], inits=6)
    pooled.set_pool(pooled.initial.sample(1 + HELD_OUT))
    expected = protocol_matrix(synthetic_set, {"linear": pooled}, *data, protocols=["own"], inits=6)
    assert not expected.diverged.any()
    pooled.evaluation_weights[[1, 5]] = 3e38
    matrix = protocol_matrix(synthetic_set, {"linear": pooled}, *data, protocols=["own"], inits=6)
    diverged = torch.tensor([False, True, False, False, False, True])
    assert torch.equal(matrix.diverged[0, 0], diverged)
    assert torch.equal(matrix.accuracy[0, 0, ~diverged], expected.accuracy[0, 0, ~diverged])
    assert matrix.accuracy[0, 0, diverged].tolist() == pytest.approx([1 / CLASSES] * 2)
    assert "2 of 6 diverged)" in matrix.to_markdown()


def test_a_fixed_start_is_trained_once(synthetic_set, data):
    fixed = InnerNetwork(linear(), fixed=3)
    matrix = protocol_matrix(synthetic_set, {"linear": fixed}, *data, protocols=["own"], inits=4)
    assert matrix.accuracy.shape == (1, 1, 4)
    assert float(matrix.std()) == 0
    expected = accuracies(fixed, synthetic_set.train_networks("linear", fixed.sample(1)).detach(), *data)
    assert matrix.accuracy[0, 0].tolist() == expected * 4


def test_all_protocols_by_default(synthetic_set, data):
    matrix = protocol_matrix(synthetic_set, {"linear": synthetic_set.inner_networks["linear"]}, *data, inits=1)
    assert matrix.protocols == tuple(PROTOCOLS) == ("own", "sgd", "adam_1e-3", "adam_1e-2", "hard")
    assert matrix.accuracy.shape == (5, 1, 1)


def test_the_table_of_a_matrix():
    accuracy = torch.tensor([[[0.5, 0.7], [0.25, 0.25]], [[1.0, 1.0], [0.0, 0.9]]])
    diverged = torch.zeros(2, 2, 2, dtype=torch.bool)
    diverged[0, 1] = True
    matrix = ProtocolMatrix(("own", "hard"), ("linear", "deep"), accuracy, diverged)
    assert matrix.mean().tolist() == [pytest.approx([0.6, 0.25]), pytest.approx([1, 0.45])]
    assert matrix.std().tolist() == [pytest.approx([0.1, 0]), pytest.approx([0, 0.45])]
    assert matrix.worst().tolist() == [pytest.approx([0.5, 0.25]), pytest.approx([1, 0])]
    assert matrix.to_markdown().splitlines() == [
        "| protocol | linear | deep |",
        "|---|---|---|",
        "| own | 60.0 ± 10.0 (worst 50.0) | 25.0 ± 0.0 (worst 25.0, 2 of 2 diverged) |",
        "| hard | 100.0 ± 0.0 (worst 100.0) | 45.0 ± 45.0 (worst 0.0) |",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"protocols": ["own", "lion"]},
            r"protocols\[1\] must be one of own, sgd, .*, got 'lion'",
        ),
        ({"protocols": []}, "must not be empty"),
        ({"inner_networks": {}}, "must not be empty"),
        ({"inits": 0}, "inits must be an integer >= 1"),
        ({"sgd_rate": 0.0}, "sgd_rate must be finite and > 0"),
    ],
)
def test_invalid_arguments_are_refused(options, message, synthetic_set, data):
    inner_networks = options.pop("inner_networks", synthetic_set.inner_networks)
    with pytest.raises(ConfigError, match=message):
        protocol_matrix(synthetic_set, inner_networks, *data, **options)


def test_a_pool_with_too_few_held_out_networks_is_refused(synthetic_set, data):
    pooled = InnerNetwork(linear(), pool=1)
    pooled.set_pool(torch.ones(1 + HELD_OUT, pooled.n_weights))
    with pytest.raises(
        ConfigError, match=r"inner_network\.linear has 20 held-out initial weights, inits=21 needs as many"
    ):
        protocol_matrix(synthetic_set, {"linear": pooled}, *data, inits=21)


def test_inputs_and_targets_must_fit(synthetic_set, data):
    with pytest.raises(DataError, match=r"got \(50, 2, 3\), \(49,\)"):
        protocol_matrix(synthetic_set, synthetic_set.inner_networks, data[0], data[1][:-1])
    with pytest.raises(DataError, match="must fit"):
        protocol_matrix(synthetic_set, synthetic_set.inner_networks, data[0][:0], data[1][:0])
