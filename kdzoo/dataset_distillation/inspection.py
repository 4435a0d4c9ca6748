"""A check of a synthetic set that somebody else made: does it make trained networks confuse two classes?

Networks that the user trained take the set's own steps, and the user's own validation data are classified before and
after. An honest set changes little, or many classes at once, or a pair that was confused anyway; a poisoned one moves
a class to where little of it was and spares the rest (Wang, Zhu, Torralba & Efros 2018, Dataset distillation, section
4.3, is the attack).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kdzoo.core import validation
from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.poisoning import confusion_matrix
from kdzoo.errors import DataError
from kdzoo.functional.unroll import SGD, Optimizer, unroll

MIN_DIVERGENCE = 0.4
"""Nats by which a class must change for an alarm.

Chosen on 60 sets from MNIST and Fashion-MNIST, where clean ones reached 0.25 and all poisoned ones but one 0.6 or more.
On 40 others it found 19 of 20 poisoned sets and flagged one of 20 clean ones.
"""
MIN_CONTRAST = 2.0
"""How many times the next class's change that must be; those poisoned sets had 2.4 and more."""
MIN_RECALL = 0.5
"""Mean recall below which networks are too weak for the check."""
SMOOTHING = 0.1
"""Share of the uniform distribution in the rows that are compared, which keeps the divergence finite."""
CHUNK = 1000
"""Images that are classified together."""


@dataclass(frozen=True)
class Inspection:
    """What the check found; shares are means over the networks.

    Attributes:
        flagged: whether the set looks poisoned.
        source: class whose predictions changed most.
        target: class that most of it moved to; weak attacks may reach a neighbour of the intended one.
        moved: by how much the share of ``source`` that is predicted as ``target`` grew, in [-1, 1].
        others_lost: median of the recall that the classes but ``source`` lost, in [-1, 1].
        divergence: change of the predictions of ``source``, >= 0 nats.
        next_divergence: the largest change of any other class, >= 0 nats.
        reason: one line that says why the set is flagged, or why not.
    """

    flagged: bool
    source: int
    target: int
    moved: float
    others_lost: float
    divergence: float
    next_divergence: float
    reason: str


def inspect(
    images: Float[Tensor, " M *d"],
    labels: Float[Tensor, "M C"],
    step_sizes: Float[Tensor, " N"],
    *,
    inner_network: InnerNetwork,
    networks: Float[Tensor, "K P"],
    inputs: Float[Tensor, " n *d"],
    targets: Int[Tensor, " n"],
    optimizer: Optimizer = SGD(),  # noqa: B008 -- frozen
    min_divergence: float = MIN_DIVERGENCE,
    min_contrast: float = MIN_CONTRAST,
) -> Inspection:
    """Check a synthetic set before its use, by what it does to networks of your own.

    Args:
        images: of the set.
        labels: of the set, hard or soft.
        step_sizes: of the set, one for each of its N steps.
        inner_network: the architecture; its own initial weights are not used.
        networks: weights of K networks that you trained on clean data; several, since an attack works on some better.
        inputs: clean validation data of your own.
        targets: their classes; ``IGNORE`` counts nowhere.
        optimizer: by which the set says that networks learn from it.
        min_divergence: see :func:`inspect_confusion`.
        min_contrast: see :func:`inspect_confusion`.

    Raises:
        ConfigError: a threshold is out of its range, or the step sizes do not fit.
        DataError: the data do not fit the labels, a class has no sample, or the networks recognise too little.
        NonFiniteLossError: the steps diverge.
    """
    _check_thresholds(min_divergence, min_contrast)
    before = _mean_confusion(inner_network, networks, inputs, targets, labels.shape[1])
    recall = float(before.diagonal().mean())
    if recall < MIN_RECALL:
        raise DataError(f"networks must be trained, with a mean recall of at least {MIN_RECALL}, got {recall:.3f}")
    with torch.no_grad():
        trained = unroll(networks, images, labels, step_sizes, loss=inner_network.loss, optimizer=optimizer)
    after = _mean_confusion(inner_network, trained, inputs, targets, labels.shape[1])
    return inspect_confusion(before, after, min_divergence=min_divergence, min_contrast=min_contrast)


def inspect_confusion(
    before: Float[Tensor, "C C"],
    after: Float[Tensor, "C C"],
    *,
    min_divergence: float = MIN_DIVERGENCE,
    min_contrast: float = MIN_CONTRAST,
) -> Inspection:
    r"""Judge a set by how networks confuse the classes before and after they learn from it.

    The change of class c is :math:`KL(a_c \| b_c)` of its rows after and before. It forgives exchange between classes
    that were confused anyway, which honest sets cause as well, and counts what moves to where nothing was.

    Args:
        before: shares of each class (row) that are predicted as each class (column).
        after: the same after the set's steps.
        min_divergence: change of one class that raises an alarm, > 0 nats.
        min_contrast: by how many times it must exceed that of every other class, >= 1.

    Raises:
        ConfigError: a threshold is out of its range.

    Example:
        >>> before = torch.eye(3)
        >>> inspect_confusion(before, torch.tensor([[0.1, 0.9, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])).reason
        'class 0 moved to class 1: its share there grew by 0.900, the other classes lost 0.000 in median'
    """
    _check_thresholds(min_divergence, min_contrast)
    change = row_divergence(before, after)
    source = int(change.argmax())
    moves = (after - before)[source].clone()
    moves[source] = -torch.inf
    target = int(moves.argmax())
    others = torch.arange(len(before), device=before.device) != source
    most, second, moved = float(change[source]), float(change[others].max()), float(moves[target])
    lost = float((before - after).diagonal()[others].median())
    strong, alone = most >= min_divergence, most >= min_contrast * second
    if strong and alone:
        reason = (
            f"class {source} moved to class {target}: its share there grew by {moved:.3f}, "
            f"the other classes lost {lost:.3f} in median"
        )
    elif strong:
        reason = f"no single class: {source} changed by {most:.3f} nats, but another by {second:.3f}"
    else:
        reason = f"no class changed by {min_divergence:g} nats or more: class {source} by {most:.3f}"
    return Inspection(strong and alone, source, target, moved, lost, most, second, reason)


def row_divergence(before: Float[Tensor, "C C"], after: Float[Tensor, "C C"]) -> Float[Tensor, " C"]:
    """Return KL(after || before) of each row in nats, both mixed with a tenth of the uniform distribution."""
    smooth = [(1 - SMOOTHING) * rows.double() + SMOOTHING / rows.shape[1] for rows in (before, after)]
    return (smooth[1] * (smooth[1] / smooth[0]).log()).sum(1)


def _check_thresholds(min_divergence: float, min_contrast: float) -> None:
    validation.positive("min_divergence", min_divergence)
    validation.number("min_contrast", min_contrast, 1.0)


def _mean_confusion(
    inner_network: InnerNetwork, networks: Tensor, inputs: Tensor, targets: Tensor, num_classes: int
) -> Float[Tensor, "C C"]:
    """Return the confusion of K networks, averaged."""
    with torch.no_grad():
        predicted = torch.cat([inner_network.logits(networks, few).argmax(-1) for few in inputs.split(CHUNK)], dim=1)
    return confusion_matrix(predicted, targets, num_classes).mean(0)
