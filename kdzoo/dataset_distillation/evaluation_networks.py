"""Networks that are trained on a synthetic set to judge it: what they say of real inputs, how often they are right."""

import torch
from torch import Tensor

from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet
from kdzoo.errors import NonFiniteLossError
from kdzoo.functional.unroll import Optimizer, unroll

NETWORKS_AT_ONCE = 5
"""Networks that are trained as one."""
INPUTS_AT_ONCE = 1024
"""Inputs that they label at once."""


def train_on_set(
    few: SyntheticSet,
    inner_network: InnerNetwork,
    begin: Tensor,
    step_sizes: Tensor,
    *,
    labels: Tensor | None = None,
    optimizer: Optimizer | None = None,
) -> Tensor:
    """Return networks [K, P] after their steps on a set; the weights of those that diverged are NaN.

    Args:
        few: the set.
        inner_network: what the networks are; it need not be one that the set was learned for.
        begin: their weights [K, P] at the start.
        step_sizes: [N].
        labels: [M, C], other labels than the set's own.
        optimizer: another one than the set's own.
    """
    labels, optimizer = few.labels if labels is None else labels, optimizer or few.optimizer

    def after(weights: Tensor) -> Tensor:
        try:
            return unroll(weights, few.images, labels, step_sizes, loss=inner_network.loss, optimizer=optimizer)
        except NonFiniteLossError:
            if len(weights) == 1:
                return torch.full_like(weights, torch.nan)
            return torch.cat([after(one) for one in weights.split(1)])

    with torch.no_grad():
        return torch.cat([after(some) for some in begin.to(few.images).split(NETWORKS_AT_ONCE)])


def predict_logits(inner_network: InnerNetwork, weights: Tensor, inputs: Tensor) -> Tensor:
    """Return the logits [K, n, C] of networks [K, P] for inputs [n, ...], on the CPU; 0 for weights that are NaN."""
    with torch.no_grad():
        parts = [[inner_network.logits(one, part.to(one)) for part in inputs.split(INPUTS_AT_ONCE)] for one in weights.split(1)]
    logits = torch.cat([torch.cat(of_one, 1) for of_one in parts])
    return logits.where(weights.isfinite().all(-1)[:, None, None], 0.0).float().cpu()


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how often networks are right [K], by logits [K, n, C] and classes [n]; among equal logits they guess.

    Example:
        >>> accuracy(torch.tensor([[[2.0, 1.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]), torch.tensor([0, 1]))
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    is_top = logits == logits.amax(-1, keepdim=True)
    of_target = is_top.gather(-1, targets.expand(len(logits), -1)[..., None])[..., 0]
    return (of_target.double() / is_top.sum(-1)).mean(-1)
