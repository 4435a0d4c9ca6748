"""A check whether a synthetic set that somebody else made causes trained networks to confuse two classes.

Networks that the user trained are trained further on the set by its own schedule, and classify the user's validation
data before and after. A clean set changes the predictions little, or those of many classes at once, or those of a pair
of classes that was confused before. A poisoned set moves the predictions of one class to a class that it was rarely
confused with, and leaves the other classes as they are. The attack is that of Wang, Zhu, Torralba & Efros 2018, Dataset
distillation, section 4.3.
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

# Nats by which the predictions of a class must change for an alarm. Chosen on 60 sets from MNIST and Fashion-MNIST,
# where clean ones reached 0.25 and all poisoned ones but one 0.6 or more. On 40 others it found 19 of 20 poisoned sets
# and flagged one of 20 clean ones.
MIN_DIVERGENCE = 0.4
# How many times the change of the next class this must be; the poisoned sets among those 60 had 2.4 and more.
MIN_CONTRAST = 2.0
# Mean recall below which networks are too weak for the check: a class that was hardly recognised before cannot be seen
# to move.
MIN_RECALL = 0.5
# Share of the uniform distribution that is mixed into the rows before they are compared. It keeps the divergence finite
# where no sample was predicted as a class before; a smaller share would let single samples decide.
SMOOTHING = 0.1
# Images that are classified in one call, which bounds the memory of the activations.
IMAGES_AT_ONCE = 1000


@dataclass(frozen=True)
class Inspection:
    """The result of the check; shares are means over the networks.

    Attributes:
        flagged: Whether the set looks poisoned.
        source: Class whose predictions changed most.
        target: Class whose share among the predictions of ``source`` grew most; with a weak attack it may be another
            class than the intended one.
        moved: Growth of the share of ``source`` that is predicted as ``target``, in [-1, 1].
        others_lost: Median over the other classes of the recall that they lost, in [-1, 1].
        divergence: Change of the predictions of ``source``, >= 0 nats.
        next_divergence: The largest change of the predictions of any other class, >= 0 nats.
        reason: One line that says why the set is flagged, or why not.
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
    """Check a synthetic set before its use, by its effect on networks that the user trained.

    Args:
        images: Images of the set ``[M, *in_shape]``.
        labels: Labels of the set ``[M, C]``, hard or soft.
        step_sizes: Step sizes of the set ``[N]``, one for each of its N steps.
        inner_network: The architecture; its distribution of initial weights is not used.
        networks: Weights ``[K, P]`` of K networks that the user trained on clean data. Use several, since an attack
            has a different effect on each.
        inputs: Clean validation data of the user ``[n, *in_shape]``.
        targets: Their classes ``[n]``; samples with ``IGNORE`` are left out.
        optimizer: The optimizer that the set was made for.
        min_divergence: See :func:`inspect_confusion`.
        min_contrast: See :func:`inspect_confusion`.

    Returns:
        The result, with ``flagged`` and the classes of the attack that was found.

    Raises:
        ConfigError: A threshold is out of its range, or the step sizes do not fit.
        DataError: The data do not fit the labels, a class has no sample, or the mean recall of the networks is below
            ``MIN_RECALL``.
        NonFiniteLossError: The training on the set diverges.
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
    r"""Check a set by how networks confuse the classes before and after they are trained on it.

    The change of class c is :math:`KL(a_c \| b_c)` of its rows after and before. A share that moves to a class that
    class c was confused with before contributes little, since clean sets cause that as well; a share that moves to a
    class that it was not confused with contributes much.

    Args:
        before: Shares of each class (row) that are predicted as each class (column), ``[C, C]``.
        after: The same after the training on the set.
        min_divergence: Change of one class that raises an alarm, > 0 nats.
        min_contrast: Factor by which it must exceed the change of every other class, >= 1.

    Raises:
        ConfigError: A threshold is out of its range.

    Example:
        >>> before = torch.eye(3)
        >>> inspect_confusion(before, torch.tensor([[0.1, 0.9, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])).reason
        'class 0 moved to class 1: its share there grew by 0.900, the other classes lost 0.000 in median'
    """
    _check_thresholds(min_divergence, min_contrast)
    change = row_divergence(before, after)
    source = int(change.argmax())
    moves = (after - before)[source].clone()
    moves[source] = -torch.inf  # the target is another class, also where the recall of the source grew
    target = int(moves.argmax())
    others = torch.arange(len(before), device=before.device) != source
    most, second, moved = float(change[source]), float(change[others].max()), float(moves[target])
    lost = float((before - after).diagonal()[others].median())
    is_large, is_single_class = most >= min_divergence, most >= min_contrast * second
    if is_large and is_single_class:
        reason = (
            f"class {source} moved to class {target}: its share there grew by {moved:.3f}, "
            f"the other classes lost {lost:.3f} in median"
        )
    elif is_large:  # the training breaks several classes: a poor set or step sizes that are too large
        reason = f"no single class: {source} changed by {most:.3f} nats, but another by {second:.3f}"
    else:
        reason = f"no class changed by {min_divergence:g} nats or more: class {source} by {most:.3f}"
    return Inspection(is_large and is_single_class, source, target, moved, lost, most, second, reason)


def row_divergence(before: Float[Tensor, "C C"], after: Float[Tensor, "C C"]) -> Float[Tensor, " C"]:
    """Return KL(after || before) of each row in nats, both smoothed by ``SMOOTHING`` of the uniform distribution."""
    smooth_before, smooth_after = (
        (1 - SMOOTHING) * rows.double() + SMOOTHING / rows.shape[1] for rows in (before, after)
    )
    return (smooth_after * (smooth_after / smooth_before).log()).sum(1)


def _check_thresholds(min_divergence: float, min_contrast: float) -> None:
    validation.positive("min_divergence", min_divergence)
    validation.number("min_contrast", min_contrast, 1.0)


def _mean_confusion(
    inner_network: InnerNetwork, networks: Tensor, inputs: Tensor, targets: Tensor, num_classes: int
) -> Float[Tensor, "C C"]:
    """Return the mean of the confusion matrices of K networks."""
    with torch.no_grad():
        predicted = torch.cat(
            [inner_network.logits(networks, batch).argmax(-1) for batch in inputs.split(IMAGES_AT_ONCE)], dim=1
        )
    return confusion_matrix(predicted, targets, num_classes).mean(0)
