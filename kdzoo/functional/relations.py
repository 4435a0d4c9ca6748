"""Losses on the relations between the samples of a batch: their distances, and the angles between them.

Every loss returns one value per sample, the mean over the pairs or triples that the sample is in, computed and
returned in float64; the mean over the samples is then the mean over all pairs or triples. The teacher is a constant:
no gradient reaches it. Widths may differ, since only relations are compared.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from kdzoo.functional.loss_arguments import check_floating


def distance_relation(student: Float[Tensor, " b *d1"], teacher: Float[Tensor, " b *d2"]) -> Float64[Tensor, " b"]:
    r"""Huber loss between the distances of samples in the student and in the teacher, mean over a sample's pairs.

    .. math:: \psi(t_i, t_j) = \frac{\|t_i - t_j\|_2}{\mu}, \qquad
        \frac{1}{b - 1} \sum_{j \neq i} l_\delta(\psi(s_i, s_j), \psi(t_i, t_j))

    :math:`\mu` is the mean distance of the pairs of the batch, on each side its own, and :math:`\delta = 1`.

    Args:
        student: Student features, shape (b, *d1).
        teacher: Teacher features, shape (b, *d2); gets no gradient.

    Returns:
        Float64 values >= 0, shape (b,); zeros where there are no pairs (b = 1).

    Raises:
        ValueError: If the batch sizes differ, a dtype is not floating, or a sample has no features.

    Example:
        >>> import torch
        >>> line = torch.tensor([[0.0], [1.0], [3.0]])
        >>> distance_relation(5 * line, line), distance_relation(line, line.flip(0)).sum() > 0
        (tensor([0., 0., 0.], dtype=torch.float64), tensor(True))

    Source:
        Park et al. 2019, "Relational Knowledge Distillation", equations 4 to 7.
    """
    s, t = _points(student, teacher)
    others = max(len(s) - 1, 1)
    gaps = smooth_l1_loss(_relative(_distances(s)), _relative(_distances(t)), reduction="none")
    return gaps.sum(1) / others


def angle_relation(student: Float[Tensor, " b *d1"], teacher: Float[Tensor, " b *d2"]) -> Float64[Tensor, " b"]:
    r"""Huber loss between the angles that samples form in the student and in the teacher, mean over a vertex's pairs.

    .. math:: \psi(t_i, t_j, t_k) = \cos \angle t_i t_j t_k, \qquad
        \frac{1}{(b - 1)(b - 2)} \sum_{i \neq k;\; i, k \neq j} l_\delta(\psi(s_i, s_j, s_k), \psi(t_i, t_j, t_k))

    with :math:`\delta = 1`. An angle with a side of length 0 has cosine 0. Needs several b^3 numbers of memory.

    Args:
        student: Student features, shape (b, *d1).
        teacher: Teacher features, shape (b, *d2); gets no gradient.

    Returns:
        Float64 values in [0, 1.5], shape (b,), one for each vertex; zeros where there are no triples (b < 3).

    Raises:
        ValueError: If the batch sizes differ, a dtype is not floating, or a sample has no features.

    Example:
        >>> import torch
        >>> right_angle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> angle_relation(right_angle, torch.tensor([[0.0], [1.0], [-1.0]]))[0]
        tensor(0.5000, dtype=torch.float64)

    Source:
        Park et al. 2019, "Relational Knowledge Distillation", equations 8 and 9.
    """
    s, t = _points(student, teacher)
    pairs = max((len(s) - 1) * (len(s) - 2), 1)
    gaps = smooth_l1_loss(_cosines(s), _cosines(t), reduction="none")
    ends = 1 - torch.eye(len(s), dtype=s.dtype, device=s.device)  # both ends of an angle are different samples
    return (gaps * ends).sum((1, 2)) / pairs


def _points(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as points (b, d) in float64."""
    for name, value in (("student", student), ("teacher", teacher)):
        check_floating(name, value)
        if value.ndim < 2 or math.prod(value.shape[1:]) == 0:
            raise ValueError(f"{name} must have shape (b, *d) with d >= 1, got {tuple(value.shape)}")
    if len(student) != len(teacher):
        raise ValueError(
            f"student and teacher must have the same batch size, "
            f"got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
        )
    return student.flatten(1).double(), teacher.detach().flatten(1).double()


def _distances(points: Tensor) -> Tensor:
    """Return the distances (b, b) of points (b, d), whose gradient is 0 where points coincide."""
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def _relative(distances: Tensor) -> Tensor:
    """Divide distances (b, b) by their mean over pairs of different samples."""
    mean = distances.sum() / max(len(distances) * (len(distances) - 1), 1)
    return distances / torch.where(mean > 0, mean, 1.0)


def _cosines(points: Tensor) -> Tensor:
    """Return the cosine of the angle at j between i and k, as (j, i, k); 0 where a side has no length."""
    points = points - points.detach().mean(0)
    products, distances = points @ points.T, _distances(points)
    sides = products - products[:, :, None] - products[:, None, :] + products.diagonal()[:, None, None]
    apart = distances > 0
    inverse = torch.where(apart, torch.where(apart, distances, 1.0).reciprocal(), 0.0)
    return sides * inverse[:, :, None] * inverse[:, None, :]
