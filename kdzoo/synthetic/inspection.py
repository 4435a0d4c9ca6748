"""A check of a synthetic set that somebody else made: does it make trained networks confuse two classes?

Networks that the user trained take the set's own steps, and the user's own validation data are classified before and
after. An honest set moves little, or moves many classes at once; a poisoned one moves one class to one other and
spares the rest (Wang, Zhu, Torralba & Efros 2018, Dataset distillation, section 4.3, is the attack).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kdzoo import checks
from kdzoo.errors import DataError
from kdzoo.functional.unroll import SGD, Optimizer, unroll
from kdzoo.synthetic.learner import Learner
from kdzoo.synthetic.poisoning import confusion

CHUNK = 1000
"""Images that are classified together."""


@dataclass(frozen=True)
class Inspection:
    """What the check found; every share is in [-1, 1].

    Attributes:
        flagged: whether the set looks poisoned.
        source: class that moved most.
        target: class that it moved to.
        moved: by how much the share of ``source`` that is predicted as ``target`` grew, mean over the networks.
        runner_up: the same, the most of any class but ``source``.
        others_lost: median of the recall that the classes but ``source`` lost.
        reason: one line that says why the set is flagged, or why not.
    """

    flagged: bool
    source: int
    target: int
    moved: float
    runner_up: float
    others_lost: float
    reason: str


def inspect(
    images: Float[Tensor, "M *d"],
    labels: Float[Tensor, "M C"],
    step_sizes: Float[Tensor, " N"],
    *,
    learner: Learner,
    networks: Float[Tensor, "K P"],
    inputs: Float[Tensor, "n *d"],
    targets: Int[Tensor, " n"],
    optimizer: Optimizer = SGD(),  # noqa: B008 -- frozen
    least_moved: float = LEAST_MOVED,
    least_contrast: float = LEAST_CONTRAST,
) -> Inspection:
    """Check a synthetic set before its use, by what it does to networks of your own.

    Args:
        images: of the set.
        labels: of the set, hard or soft.
        step_sizes: of the set, one for each of its N steps.
        learner: the architecture; its own initial weights are not used.
        networks: weights of K networks that you trained on clean data; several, since attacks work on some better.
        inputs: clean validation data of your own.
        targets: their classes; ``IGNORE`` counts nowhere.
        optimizer: by which the set says that networks learn from it.
        least_moved: share of a class that must move to another one for an alarm, in [0, 1].
        least_contrast: by how many times that must exceed what moves of any other class, >= 1.

    Raises:
        ConfigError: a threshold is out of its range, or the step sizes do not fit.
        DataError: the data do not fit the labels, a class has no sample, or the networks recognise too little.
        NonFiniteLossError: the steps diverge.
    """
    checks.number("least_moved", least_moved, 0.0, 1.0)
    checks.number("least_contrast", least_contrast, 1.0)
    first = _mean_confusion(learner, networks, inputs, targets, labels.shape[1])
    recall = float(first.diagonal().mean())
    if recall < LEAST_RECALL:
        raise DataError(f"networks must be trained, with a mean recall of at least {LEAST_RECALL}, got {recall:.3f}")
    with torch.no_grad():
        after = unroll(networks, images, labels, step_sizes, loss=learner.loss, optimizer=optimizer)
    last = _mean_confusion(learner, after, inputs, targets, labels.shape[1])
    return judged(last - first, least_moved=least_moved, least_contrast=least_contrast)


def _mean_confusion(
    learner: Learner, networks: Tensor, inputs: Tensor, targets: Tensor, num_classes: int
) -> Float[Tensor, "C C"]:
    """Return the confusion of K networks, averaged."""
    with torch.no_grad():
        predicted = torch.cat([learner.logits(networks, few).argmax(-1) for few in inputs.split(CHUNK)], dim=1)
    return confusion(predicted, targets, num_classes).mean(0)
