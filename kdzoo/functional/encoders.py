"""Losses on what is inside transformers: directions of hidden states, attention distributions.

Every loss returns one value per row, unreduced, computed and returned in float64. The teacher is a constant: no
gradient reaches it.
"""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import cosine_similarity

from kdzoo.functional.loss_arguments import check_floating, check_same_shape


def cosine_distance(student: Float[Tensor, "n d"], teacher: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    r"""One minus the cosine of the angle between vectors.

    .. math:: 1 - \frac{s \cdot t}{\|s\| \, \|t\|}

    Args:
        student: Student vectors, shape (n, d).
        teacher: Teacher vectors, shape (n, d); gets no gradient.

    Returns:
        Float64 values in [0, 2], shape (n,); 1 where a vector is zero.

    Raises:
        ValueError: If the shapes differ or a dtype is not floating.

    Example:
        >>> import torch
        >>> cosine_distance(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [3.0, 0.0]]))
        tensor([0., 1.], dtype=torch.float64)

    Source:
        Sanh et al. 2019, "DistilBERT", section 3 (L_cos).
    """
    check_same_shape(student, teacher)
    return 1 - cosine_similarity(student.double(), teacher.detach().double(), dim=-1)


def attention_kl(
    student: Float[Tensor, "b h1 l l"], teacher: Float[Tensor, "b h2 l l"], valid: Bool[Tensor, "b l"]
) -> Float64[Tensor, " n"]:
    r"""KL(teacher || student) of the attention distributions of every token, mean over the heads.

    .. math:: \frac{1}{h} \sum_a \sum_j T_{aij} \log \frac{T_{aij}}{S_{aij}}

    With unequal numbers of heads, the means over the heads are compared.

    Args:
        student: Attention of student heads, rows of sum 1, shape (b, h1, l, l).
        teacher: Attention of teacher heads, shape (b, h2, l, l); gets no gradient.
        valid: Queries that are tokens, n of them, shape (b, l).

    Returns:
        Float64 values >= 0, shape (n,), in the order of the tokens.

    Raises:
        ValueError: If batch or length differ, or a dtype is not floating.

    Source:
        Sun et al. 2020, "MobileBERT", equation 3.
    """
    check_floating("student", student)
    check_floating("teacher", teacher)
    if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(f"batch and length must agree, got {tuple(student.shape)} and {tuple(teacher.shape)}")
    ours, theirs = student.double(), teacher.detach().double()
    if ours.shape[1] != theirs.shape[1]:
        ours, theirs = ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)
    tiny = torch.finfo(student.dtype).tiny
    ratio = theirs.clamp_min(tiny).log() - ours.clamp_min(tiny).log()
    return (theirs * ratio).sum(-1).mean(1)[valid]


def mean_by_text(values: Float64[Tensor, " n"], valid: Bool[Tensor, "b l"]) -> Float64[Tensor, " b"]:
    """Return the mean over each text's tokens of values in the order of the tokens; 0 for a text without one.

    Example:
        >>> import torch
        >>> valid = torch.tensor([[True, True], [True, False]])
        >>> mean_by_text(torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64), valid)
        tensor([2., 5.], dtype=torch.float64)
    """
    sums = values.new_zeros(len(valid)).index_add(0, valid.nonzero()[:, 0], values)
    return sums / valid.sum(1).clamp_min(1)
