"""Coresets: real examples, or averages of them, as a synthetic set with the best constant step size."""

import copy

import torch
from torch import Tensor

from kdzoo.core.progress import track
from kdzoo.dataset_distillation import evaluation_networks
from kdzoo.dataset_distillation.initial_images import set_real_images
from kdzoo.dataset_distillation.synthetic_set import MAX_STEP_SIZE, MIN_STEP_SIZE, SyntheticSet

# Real images have no learned step size. A logarithmic grid with a factor of about 3 covers the range that a learned
# step size may take in practice, so that a badly chosen step size is not why a coreset is worse.
CANDIDATE_STEP_SIZES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# Training samples on which the candidates are compared: with 2,000 the standard error of an accuracy is about one
# point, which is small compared with the differences between candidates that are a factor of 3 apart.
EVALUATION_SAMPLES = 2000
# Networks whose accuracies are averaged for each candidate. They are trained as one batch, see NETWORKS_AT_ONCE.
EVALUATION_NETWORKS = 5


def coreset(synthetic_set: SyntheticSet, selection: str, inputs: Tensor, targets: Tensor, *, seed: int) -> SyntheticSet:
    """Return a copy of a synthetic set that holds a selection of real images with one-hot labels.

    The constant step size of each inner network is the one of ``CANDIDATE_STEP_SIZES`` after which newly initialised
    networks have the highest accuracy on ``EVALUATION_SAMPLES`` training samples.

    Args:
        synthetic_set: The set whose sizes, inner networks and number of steps are copied; it is not changed.
        selection: One of ``kdzoo.dataset_distillation.selection.SELECTIONS``.
        inputs: Real training images ``[n, *in_shape]``.
        targets: Their classes ``[n]``.
        seed: Seed of the selection and of the samples on which step sizes are compared, >= 0.

    Returns:
        A new set with its own parameters.

    Raises:
        DataError: A class has fewer samples than the set has examples of it.
    """
    result = copy.deepcopy(synthetic_set)
    set_real_images(result, selection, inputs, targets, seed=seed)
    rows = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))[:EVALUATION_SAMPLES]
    for name in result.inner_networks:
        sizes = track(CANDIDATE_STEP_SIZES, f"choosing the step size of {name}", unit="step sizes")
        accuracies = [_accuracy(result, name, size, inputs[rows], targets[rows]) for size in sizes]
        _set_step_size(result, name, CANDIDATE_STEP_SIZES[accuracies.index(max(accuracies))])
    return result


def _set_step_size(synthetic_set: SyntheticSet, name: str, size: float) -> None:
    with torch.no_grad():
        synthetic_set.step_sizes[name].fill_(min(max(size, MIN_STEP_SIZE), MAX_STEP_SIZE))


def _accuracy(synthetic_set: SyntheticSet, name: str, size: float, inputs: Tensor, targets: Tensor) -> float:
    """Return the mean accuracy after training with a constant step size; diverged networks count as guessing."""
    _set_step_size(synthetic_set, name, size)
    inner_network = synthetic_set.inner_networks[name]
    # The same initial weights for every candidate: the comparison is paired, which removes most of its noise.
    initial = inner_network.sample(EVALUATION_NETWORKS, torch.Generator().manual_seed(0))
    weights = evaluation_networks.train_on_set(synthetic_set, inner_network, initial, synthetic_set.schedule(name))
    logits = evaluation_networks.predict_logits(inner_network, weights, inputs)
    return float(evaluation_networks.accuracy(logits, targets.cpu()).mean())
