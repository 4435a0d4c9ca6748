"""Pools of trained networks, against a plain training by torch's Adam."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdzoo.dataset_distillation import InnerNetwork, pool
from kdzoo.dataset_distillation.inner_network import HELD_OUT
from kdzoo.dataset_distillation.pool import train_pool, train_pools


def network():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.fixture
def data():
    torch.manual_seed(0)
    inputs = torch.randn(300, 4)
    return inputs, (inputs @ torch.randn(4, 3)).argmax(1)


def test_each_network_is_trained_as_by_adam_alone_on_the_batches_of_its_group(data, monkeypatch):
    inputs, targets = data
    monkeypatch.setattr(pool, "NETWORKS_AT_ONCE", 2)
    inner_network = InnerNetwork(network(), pool=2, pool_steps=20)
    weights = train_pool(inner_network, inputs, targets, seed=3)
    assert weights.shape == (2 + HELD_OUT, inner_network.n_weights)
    generator = torch.Generator().manual_seed(3)
    initial = inner_network.initial.sample(2 + HELD_OUT, generator)
    batches = [torch.randint(300, (128,), generator=generator) for _ in range(20)]  # of the first group
    for k in range(2):
        model = network()
        model.load_state_dict(inner_network.state(initial[k]))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for rows in batches:
            optimizer.zero_grad()
            cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
        expected = nn.utils.parameters_to_vector(model.parameters()).detach()
        assert (expected - initial[k]).abs().max() > 0.01
        torch.testing.assert_close(weights[k], expected, rtol=1e-4, atol=1e-5)


def test_networks_recognise_the_data_and_depend_on_the_seed_alone(data):
    inner_network = InnerNetwork(network(), pool=1, pool_steps=500)
    weights = train_pool(inner_network, *data, seed=0)
    accuracy = (inner_network.logits(weights, data[0]).argmax(-1) == data[1]).double().mean()
    assert accuracy > 0.85
    torch.rand(1)
    assert torch.equal(train_pool(inner_network, *data, seed=0), weights)
    assert not torch.equal(train_pool(inner_network, *data, seed=1), weights)


def test_only_pools_that_are_missing_are_trained(data):
    plain, pooled = InnerNetwork(network()), InnerNetwork(network(), pool=3, pool_steps=1)
    train_pools({"plain": plain, "pooled": pooled}, *data, seed=0)
    assert plain.pool is None
    assert len(pooled.pool) == 3
    weights = torch.cat([pooled.pool, pooled.evaluation_weights])
    assert torch.equal(weights, train_pool(pooled, *data, seed=0))
    train_pools({"pooled": pooled}, *data, seed=1)
    assert torch.equal(pooled.pool, weights[:3])


def test_fewer_samples_than_a_batch_and_a_surrounding_no_grad_are_no_problem(data):
    inner_network = InnerNetwork(network(), pool=1, pool_steps=2)
    with torch.no_grad():
        weights = train_pool(inner_network, data[0][:5], data[1][:5], seed=0)
    assert weights.isfinite().all()
    initial = inner_network.initial.sample(1 + HELD_OUT, torch.Generator().manual_seed(0))
    # Adam's first steps have the length of its learning rate, here two of 0.001.
    assert (weights - initial).abs().max() == pytest.approx(0.002, rel=0.1)
