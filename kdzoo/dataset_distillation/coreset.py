"""Coresets: real examples, or averages of them, as a synthetic set with the constant step size that suits it best."""

import copy

import torch
from torch import Tensor

from kdzoo.dataset_distillation import evaluation_networks
from kdzoo.dataset_distillation.initial_images import set_real_images
from kdzoo.dataset_distillation.synthetic_set import MAX_STEP_SIZE, MIN_STEP_SIZE, SyntheticSet

STEPS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Step sizes that compete."""
JUDGES = 2000
"""Real training samples by which the step size is chosen."""
NETWORKS = 5


def coreset(few: SyntheticSet, selection: str, inputs: Tensor, targets: Tensor, *, seed: int) -> SyntheticSet:
    """Return a set like ``few`` that holds a selection of real images with one-hot labels.

    The constant step size of each inner network is the one in ``STEPS`` after which new networks label the most of
    2,000 training samples rightly.

    Args:
        few: gives sizes, inner_networks and the number of steps; it stays as it is.
        selection: one of ``kdzoo.dataset_distillation.selection.SELECTIONS``.
        inputs: real training images [n, ...].
        targets: their classes [n].
        seed: of the selection and of the samples that judge.
    """
    chosen = copy.deepcopy(few)
    set_real_images(chosen, selection, inputs, targets, seed=seed)
    judges = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))[:JUDGES]
    for name in chosen.inner_networks:
        accuracies = [_accuracy(chosen, name, size, inputs[judges], targets[judges]) for size in STEPS]
        _set_step(chosen, name, STEPS[accuracies.index(max(accuracies))])
    return chosen


def _set_step(few: SyntheticSet, name: str, size: float) -> None:
    with torch.no_grad():
        few.step_sizes[name].fill_(min(max(size, MIN_STEP_SIZE), MAX_STEP_SIZE))


def _accuracy(few: SyntheticSet, name: str, size: float, inputs: Tensor, targets: Tensor) -> float:
    """Return the accuracy of networks trained with a constant step size; those that diverge guess."""
    _set_step(few, name, size)
    inner_network = few.inner_networks[name]
    begin = inner_network.sample(NETWORKS, torch.Generator().manual_seed(0))
    networks = evaluation_networks.train_on_set(few, inner_network, begin, few.schedule(name))
    return float(
        evaluation_networks.accuracy(evaluation_networks.predict_logits(inner_network, networks, inputs), targets.cpu()).mean()
    )
