"""Losses on the relations between the samples of a batch: their distances, and the angles that they form.

Every loss returns one value per sample in the widest floating-point type of the device (float64, except on Apple's
GPUs): the mean over the pairs or triples that the sample is part of, so that the mean over the samples is the mean over
all pairs or triples. The widths of student and teacher may differ, since only relations are compared. The teacher is a
constant: it gets no gradient.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from kdzoo.core.precision import widen
from kdzoo.functional.loss_arguments import check_floating, check_same_batch


def distance_relation(student: Float[Tensor, " b *d1"], teacher: Float[Tensor, " b *d2"]) -> Float[Tensor, " b"]:
    r"""Huber loss between the pairwise distances of student and teacher, averaged over the pairs of a sample.

    .. math:: \psi(t_i, t_j) = \frac{\|t_i - t_j\|_2}{\mu}, \qquad
        \frac{1}{b - 1} \sum_{j \neq i} l_\delta(\psi(s_i, s_j), \psi(t_i, t_j))

    :math:`\mu` is the mean distance of the pairs of the batch, computed for student and teacher separately, and
    :math:`l_\delta` is Huber's loss with :math:`\delta = 1`.

    Args:
        student: Student features, ``[batch, ...]``.
        teacher: Teacher features, ``[batch, ...]``; they get no gradient.

    Returns:
        Values >= 0, ``[batch]``; 0 for a batch of one sample, which has no pairs.

    Raises:
        ValueError: If the batch sizes differ, a dtype is not a floating-point one, or a sample has no features.

    Example:
        >>> import torch
        >>> line = torch.tensor([[0.0], [1.0], [3.0]])
        >>> distance_relation(5 * line, line), distance_relation(line, line.flip(0)).sum() > 0
        (tensor([0., 0., 0.], dtype=torch.float64), tensor(True))

    References:
        Park et al. 2019, "Relational Knowledge Distillation", equations 4 to 7.
    """
    s, t = _points(student, teacher)
    pairs_per_sample = max(len(s) - 1, 1)
    # With its default ``beta=1``, smooth L1 is Huber's loss with delta 1. The pairs (i, i) add 0.
    loss = smooth_l1_loss(_relative(_distances(s)), _relative(_distances(t)), reduction="none")
    return loss.sum(1) / pairs_per_sample


def angle_relation(student: Float[Tensor, " b *d1"], teacher: Float[Tensor, " b *d2"]) -> Float[Tensor, " b"]:
    r"""Huber loss between the angles of student and teacher, averaged over the pairs of samples seen from a vertex.

    .. math:: \psi(t_i, t_j, t_k) = \cos \angle t_i t_j t_k, \qquad
        \frac{1}{(b - 1)(b - 2)} \sum_{i \neq k;\; i, k \neq j} l_\delta(\psi(s_i, s_j, s_k), \psi(t_i, t_j, t_k))

    for each vertex j, with :math:`\delta = 1`. An angle with a side of length 0 has cosine 0. The memory is several
    times batch^3 numbers.

    Args:
        student: Student features, ``[batch, ...]``.
        teacher: Teacher features, ``[batch, ...]``; they get no gradient.

    Returns:
        Values in [0, 1.5], ``[batch]``, one per vertex; 0 for a batch of fewer than three samples.

    Raises:
        ValueError: If the batch sizes differ, a dtype is not a floating-point one, or a sample has no features.

    Example:
        >>> import torch
        >>> right_angle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> angle_relation(right_angle, torch.tensor([[0.0], [1.0], [-1.0]]))[0]
        tensor(0.5000, dtype=torch.float64)

    References:
        Park et al. 2019, "Relational Knowledge Distillation", equations 8 and 9.
    """
    s, t = _points(student, teacher)
    pairs_per_vertex = max((len(s) - 1) * (len(s) - 2), 1)
    loss = smooth_l1_loss(_cosines(s), _cosines(t), reduction="none")
    different = 1 - torch.eye(len(s), dtype=s.dtype, device=s.device)  # the two ends of an angle are different samples
    return (loss * different).sum((1, 2)) / pairs_per_vertex


def _points(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as points in the widest type, ``[batch, width]``."""
    for name, value in (("student", student), ("teacher", teacher)):
        check_floating(name, value)
        if value.ndim < 2 or math.prod(value.shape[1:]) == 0:
            raise ValueError(f"{name} must have shape (b, *d) with d >= 1, got {tuple(value.shape)}")
    check_same_batch(student, teacher)
    return widen(student.flatten(1)), widen(teacher.detach().flatten(1))


def _distances(points: Tensor) -> Tensor:
    """Return the distances of points, ``[batch, batch]``; their gradient is 0 where points coincide."""
    # The faster |a|^2 - 2 ab + |b|^2 cancels: coinciding points would get a distance of rounding size, and a gradient.
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def _relative(distances: Tensor) -> Tensor:
    """Divide distances by their mean over the pairs of different samples."""
    mean = distances.sum() / max(len(distances) * (len(distances) - 1), 1)
    # If all samples coincide, there is no scale, and all relative distances are 0.
    return distances / torch.where(mean > 0, mean, 1.0)


def _cosines(points: Tensor) -> Tensor:
    """Return the cosine of the angle at j between i and k, ``[j, i, k]``; 0 where a side has no length."""
    # Angles do not depend on the origin. Centred points keep more digits in the differences of products below.
    points = points - points.detach().mean(0)
    products, distances = points @ points.T, _distances(points)
    # <x_i - x_j, x_k - x_j> expanded, which takes no array [batch, batch, width] of difference vectors.
    sides = products - products[:, :, None] - products[:, None, :] + products.diagonal()[:, None, None]
    apart = distances > 0
    # The inner ``where`` keeps the reciprocal, and with it the gradient, finite where the outer one discards it.
    inverse = torch.where(apart, torch.where(apart, distances, 1.0).reciprocal(), 0.0)
    return sides * inverse[:, :, None] * inverse[:, None, :]
