"""Networks that are trained on a synthetic set to evaluate it: their training, their logits and their accuracy."""

import torch
from torch import Tensor

from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet
from kdzoo.errors import NonFiniteLossError
from kdzoo.functional.unroll import Optimizer, unroll

# Networks that are trained as one batch: four at once were measured to be 1.4 to 1.6 times as fast as a loop. A batch
# in which one network diverges is trained again one network at a time, which a larger batch would make more expensive.
NETWORKS_AT_ONCE = 5
# Inputs that one network classifies in one call: bounds the memory of the activations on large test sets.
INPUTS_AT_ONCE = 1024


def train_on_set(
    synthetic_set: SyntheticSet,
    inner_network: InnerNetwork,
    initial: Tensor,
    step_sizes: Tensor,
    *,
    labels: Tensor | None = None,
    optimizer: Optimizer | None = None,
) -> Tensor:
    """Train networks on a synthetic set without gradients with respect to the set.

    Args:
        synthetic_set: The set.
        inner_network: The architecture; it need not be one that the set was learned for.
        initial: Initial weights ``[K, P]`` of K networks.
        step_sizes: Step sizes ``[N]``, one for each step.
        labels: Labels ``[M, C]`` to train on; None takes those of the set.
        optimizer: The optimizer; None takes that of the set.

    Returns:
        Weights ``[K, P]`` after N steps. All weights of a network that diverged are NaN.
    """
    labels, optimizer = synthetic_set.labels if labels is None else labels, optimizer or synthetic_set.optimizer

    def train(weights: Tensor) -> Tensor:
        try:
            return unroll(
                weights, synthetic_set.images, labels, step_sizes, loss=inner_network.loss, optimizer=optimizer
            )
        except NonFiniteLossError:
            # The error says that one network of the batch diverged, not which one: train them one at a time, so that
            # one diverged network does not cost the results of the others.
            if len(weights) == 1:
                return torch.full_like(weights, torch.nan)
            return torch.cat([train(single) for single in weights.split(1)])

    with torch.no_grad():
        return torch.cat([train(batch) for batch in initial.to(synthetic_set.images).split(NETWORKS_AT_ONCE)])


def predict_logits(inner_network: InnerNetwork, weights: Tensor, inputs: Tensor) -> Tensor:
    """Return the logits of K networks on the CPU, in float32.

    Args:
        inner_network: The architecture.
        weights: Weights ``[K, P]``; a row may be NaN.
        inputs: Inputs ``[n, *in_shape]``.

    Returns:
        Logits ``[K, n, C]``; those of a network whose weights are NaN are 0, which :func:`accuracy` counts as guessing.
    """
    with torch.no_grad():
        parts = [
            [inner_network.logits(network, batch.to(network)) for batch in inputs.split(INPUTS_AT_ONCE)]
            for network in weights.split(1)
        ]
    logits = torch.cat([torch.cat(batches, 1) for batches in parts])
    return logits.where(weights.isfinite().all(-1)[:, None, None], 0.0).float().cpu()


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the accuracy of each network; among equal largest logits the network guesses.

    A network that returns equal logits for every class, as a diverged one does, so has accuracy 1 / C instead of the
    share of class 0, which ``argmax`` would give.

    Args:
        logits: Logits ``[K, n, C]`` of K networks.
        targets: Classes ``[n]``.

    Returns:
        Expected accuracies ``[K]`` in float64, in [0, 1].

    Example:
        >>> accuracy(torch.tensor([[[2.0, 1.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]), torch.tensor([0, 1]))
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    is_top = logits == logits.amax(-1, keepdim=True)
    of_target = is_top.gather(-1, targets.expand(len(logits), -1)[..., None])[..., 0]
    return (of_target.double() / is_top.sum(-1)).mean(-1)
