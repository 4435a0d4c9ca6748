"""Pools of trained networks, from which a synthetic set's own training then starts."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdzoo.dataset_distillation.inner_network import HELD_OUT, InnerNetwork

NETWORKS_AT_ONCE = 10
"""Networks that are trained as one."""
BATCH = 128


def train_pools(inner_networks: Mapping[str, InnerNetwork], inputs: Tensor, targets: Tensor, *, seed: int) -> None:
    """Train the pools of the inner_networks that want one and have none yet, on real data, in place.

    Args:
        inner_networks: by name.
        inputs: [n, ...].
        targets: classes [n].
        seed: of initial weights and the order of the data, >= 0.
    """
    for inner_network in inner_networks.values():
        if inner_network.pool_size and inner_network.pool is None:
            inner_network.set_pool(train_pool(inner_network, inputs, targets, seed=seed))


def train_pool(inner_network: InnerNetwork, inputs: Tensor, targets: Tensor, *, seed: int) -> Tensor:
    """Return the weights [pool_size + HELD_OUT, P] of networks trained by Adam (rate 0.001, batches of 128)."""
    generator = torch.Generator().manual_seed(seed)
    begin = inner_network.initial.sample(inner_network.pool_size + HELD_OUT, generator).to(inputs)
    return torch.cat(
        [
            _trained(inner_network, few, inputs, targets, inner_network.pool_steps, generator)
            for few in begin.split(NETWORKS_AT_ONCE)
        ]
    )


def _trained(
    inner_network: InnerNetwork, begin: Tensor, inputs: Tensor, targets: Tensor, steps: int, generator: torch.Generator
) -> Tensor:
    """Return networks [k, P] after ``steps`` steps from ``begin`` on the same random batches."""
    with torch.enable_grad():
        weights = begin.clone().requires_grad_()
        optimizer = torch.optim.Adam([weights])
        for _ in range(steps):
            rows = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=generator).to(inputs.device)
            logits = inner_network.logits(weights, inputs[rows])
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets[rows].repeat(len(weights)), reduction="sum"
            )
            optimizer.zero_grad()
            (loss / len(rows)).backward()
            optimizer.step()
    return weights.detach()
