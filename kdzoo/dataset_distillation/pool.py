"""Pools of networks that were trained on real data, as initial networks for learning a synthetic set.

A synthetic set that is learned from a pool improves networks that are already trained, not freshly initialised ones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kdzoo.dataset_distillation.inner_network import HELD_OUT, InnerNetwork

# Number of networks that are trained as one batch. Their activations on BATCH_SIZE images must fit into memory.
NETWORKS_AT_ONCE = 10
# Real samples in each step, and the learning rate of Adam (the default of torch): common values that train small
# networks well in the few hundred steps of ``pool_steps``.
BATCH_SIZE = 128
LEARNING_RATE = 1e-3


def train_pools(inner_networks: Mapping[str, InnerNetwork], inputs: Tensor, targets: Tensor, *, seed: int) -> None:
    """Train a pool on real data for every inner network that needs one and does not have it yet, in place.

    Args:
        inner_networks: Inner networks by name.
        inputs: Real inputs ``[n, *in_shape]``.
        targets: Their classes, int64 ``[n]``.
        seed: Seed of the initial weights and of the random batches, >= 0; all inner networks use the same.
    """
    for inner_network in inner_networks.values():
        if inner_network.pool_size and inner_network.pool is None:
            inner_network.set_pool(train_pool(inner_network, inputs, targets, seed=seed))


def train_pool(inner_network: InnerNetwork, inputs: Tensor, targets: Tensor, *, seed: int) -> Tensor:
    """Return networks that were trained by ``inner_network.pool_steps`` steps of Adam on real data.

    Args:
        inner_network: The architecture and its distribution of initial weights.
        inputs: Real inputs ``[n, *in_shape]``.
        targets: Their classes, int64 ``[n]``.
        seed: Seed of the initial weights and of the random batches, >= 0.

    Returns:
        Weights ``[pool_size + HELD_OUT, P]``; the last ``HELD_OUT`` networks are used for evaluation only.
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
        # Adam updates each weight independently, so that one optimizer for the matrix equals one for each network.
        optimizer = torch.optim.Adam([weights], lr=LEARNING_RATE)
        for _ in range(steps):
            rows = torch.randint(len(inputs), (min(BATCH_SIZE, len(inputs)),), generator=generator).to(inputs.device)
            logits = inner_network.logits(weights, inputs[rows])
            loss = cross_entropy(logits.flatten(0, 1), targets[rows].repeat(len(weights)), reduction="sum")
            optimizer.zero_grad()
            # The mean over the samples, but the sum over the networks, so that each network gets the same gradient as
            # if it were trained alone.
            (loss / len(rows)).backward()
            optimizer.step()
    return weights.detach()
