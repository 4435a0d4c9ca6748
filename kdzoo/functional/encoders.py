"""Losses on the inside of transformers: directions of hidden states and attention distributions.

Every loss returns one value per vector or token, unreduced and in the widest floating-point type of the device
(float64, except on Apple's GPUs). The teacher is a constant: it gets no gradient.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from kdzoo.core.precision import widen
from kdzoo.functional.loss_arguments import check_floating, check_same_shape


def cosine_distance(student: Float[Tensor, "n d"], teacher: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    r"""One minus the cosine of the angle between each student vector and its teacher vector.

    .. math:: 1 - \frac{s \cdot t}{\|s\| \, \|t\|}

    Args:
        student: Student vectors s, ``[n, width]``.
        teacher: Teacher vectors t, ``[n, width]``; they get no gradient.

    Returns:
        Values in [0, 2], ``[n]``; 1 where a vector is zero.

    Raises:
        ValueError: If the shapes differ or a dtype is not a floating-point one.

    Example:
        >>> import torch
        >>> cosine_distance(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [3.0, 0.0]]))
        tensor([0., 1.], dtype=torch.float64)

    References:
        Sanh et al. 2019, "DistilBERT", section 3 (L_cos).
    """
    check_same_shape(student, teacher)
    return 1 - cosine_similarity(widen(student), widen(teacher.detach()), dim=-1)


def attention_kl(
    student: Float[Tensor, "b h1 l l"], teacher: Float[Tensor, "b h2 l l"], valid: Bool[Tensor, "b l"]
) -> Float[Tensor, " n"]:
    r"""KL(teacher || student) of the attention distributions of every token, averaged over the heads.

    .. math:: \frac{1}{h} \sum_{a=1}^{h} \sum_j T_{aij} \log \frac{T_{aij}}{S_{aij}}

    with :math:`T_{aij}` the attention that head a of the teacher pays from token i to token j. If the numbers of heads
    differ, heads cannot be paired: the attention is averaged over the heads on both sides before it is compared.

    Args:
        student: Attention probabilities S of the student, ``[batch, student heads, query, key]``; sums over the keys
            are 1.
        teacher: Attention probabilities T of the teacher, ``[batch, teacher heads, query, key]``; no gradient.
        valid: Which queries are tokens and not padding, ``[batch, query]``.

    Returns:
        Values >= 0, ``[tokens]``, in the order of ``valid.nonzero()``.

    Raises:
        ValueError: If batch size or length differ, or a dtype is not a floating-point one.

    References:
        Sun et al. 2020, "MobileBERT", equation 3.
    """
    check_floating("student", student)
    check_floating("teacher", teacher)
    if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(f"batch and length must agree, got {tuple(student.shape)} and {tuple(teacher.shape)}")
    student_probs, teacher_probs = widen(student), widen(teacher.detach())
    if student_probs.shape[1] != teacher_probs.shape[1]:
        student_probs, teacher_probs = student_probs.mean(1, keepdim=True), teacher_probs.mean(1, keepdim=True)
    # Masked keys have probability 0 on both sides. The smallest number of the input's dtype in its place makes their
    # term 0 instead of NaN, and bounds the loss where the student's softmax has underflowed.
    tiny = torch.finfo(student.dtype).tiny
    log_ratio = teacher_probs.clamp_min(tiny).log() - student_probs.clamp_min(tiny).log()
    return (teacher_probs * log_ratio).sum(-1).mean(1)[valid]


def mean_by_text(values: Float[Tensor, " n"], valid: Bool[Tensor, "b l"]) -> Float[Tensor, " b"]:
    """Return the mean value of the tokens of each text; 0 for a text without tokens.

    Args:
        values: One value per token, ``[tokens]``, in the order of ``valid.nonzero()``.
        valid: Which positions are tokens, ``[batch, length]``.

    Returns:
        Values, ``[batch]``.

    Example:
        >>> import torch
        >>> valid = torch.tensor([[True, True], [True, False]])
        >>> mean_by_text(torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64), valid)
        tensor([2., 5.], dtype=torch.float64)
    """
    text_of_token = valid.nonzero()[:, 0]
    sums = values.new_zeros(len(valid)).index_add(0, text_of_token, values)
    return sums / valid.sum(1).clamp_min(1)
