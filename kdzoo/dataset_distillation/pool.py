"""Pools of trained networks, from which networks start when a synthetic set is learned for trained networks."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kdzoo.dataset_distillation.inner_network import HELD_OUT, InnerNetwork

# Networks that are trained as one batch: their activations on BATCH_SIZE images must fit into memory together.
NETWORKS_AT_ONCE = 10
# Real samples in each step, and Adam's learning rate (torch's own default): common values that train small networks
# well in the few hundred steps of ``pool_steps``.
BATCH_SIZE = 128
LEARNING_RATE = 1e-3


def train_pools(inner_networks: Mapping[str, InnerNetwork], inputs: Tensor, targets: Tensor, *, seed: int) -> None:
    """Train on real data the pools of those inner networks that need one and have none yet, in place.

    Args:
        inner_networks: Inner networks by name.
        inputs: Real inputs ``[n, *in_shape]``.
        targets: Their classes ``[n]``.
        seed: Seed of initial weights and of the order of the data, >= 0.
    """
    for inner_network in inner_networks.values():
        if inner_network.pool_size and inner_network.pool is None:
            inner_network.set_pool(train_pool(inner_network, inputs, targets, seed=seed))


def train_pool(inner_network: InnerNetwork, inputs: Tensor, targets: Tensor, *, seed: int) -> Tensor:
    """Return networks that were trained by ``inner_network.pool_steps`` steps of Adam on real data.

    Args:
        inner_network: The architecture and its distribution of initial weights.
        inputs: Real inputs ``[n, *in_shape]``.
        targets: Their classes ``[n]``.
        seed: Seed of initial weights and of the order of the data, >= 0.

    Returns:
        Weights ``[pool_size + HELD_OUT, P]``.
    """
    generator = torch.Generator().manual_seed(seed)
    initial = inner_network.initial.sample(inner_network.pool_size + HELD_OUT, generator).to(inputs)
    return torch.cat(
        [
            _train(inner_network, weights, inputs, targets, inner_network.pool_steps, generator)
            for weights in initial.split(NETWORKS_AT_ONCE)
        ]
    )


def _train(
    inner_network: InnerNetwork,
    initial: Tensor,
    inputs: Tensor,
    targets: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return networks ``[k, P]`` after a number of steps from ``initial`` on the same random batches."""
    with torch.enable_grad():
        weights = initial.clone().requires_grad_()
        # Adam acts on each weight by itself, so that one optimizer for the matrix is one for each network.
        optimizer = torch.optim.Adam([weights], lr=LEARNING_RATE)
        for _ in range(steps):
            rows = torch.randint(len(inputs), (min(BATCH_SIZE, len(inputs)),), generator=generator).to(inputs.device)
            logits = inner_network.logits(weights, inputs[rows])
            loss = cross_entropy(logits.flatten(0, 1), targets[rows].repeat(len(weights)), reduction="sum")
            optimizer.zero_grad()
            # The mean over the samples, but the sum over the networks: each has the gradient that it has alone.
            (loss / len(rows)).backward()
            optimizer.step()
    return weights.detach()
