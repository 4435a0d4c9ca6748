"""Losses on the directions of hidden states and on the attention distributions of transformers.

Every loss returns one value per vector or token, unreduced and in the widest floating-point type of the device
(float64, except on Apple's GPUs). The teacher is a constant: it gets no gradient.
"""

import torch
from jaxtyping import Float, Int
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


def attention_kl(student: Float[Tensor, "b h1 l l"], teacher: Float[Tensor, "b h2 l l"]) -> Float[Tensor, "b l"]:
    r"""KL(teacher || student) of the attention distributions of every token, averaged over the heads.

    .. math:: \frac{1}{h} \sum_{a=1}^{h} \sum_j T_{aij} \log \frac{T_{aij}}{S_{aij}}

    with :math:`T_{aij}` the attention weight of the teacher's head a from token i to token j. If the numbers of heads
    differ, heads cannot be paired: the attention is averaged over the heads on both sides before it is compared.

    Args:
        student: Attention probabilities S of the student, ``[batch, student heads, query, key]``; sums over the keys
            are 1.
        teacher: Attention probabilities T of the teacher, ``[batch, teacher heads, query, key]``; no gradient.

    Returns:
        Values >= 0, ``[batch, query]``; those of padding are undefined.

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
    return (teacher_probs * log_ratio).sum(-1).mean(1)


def mean_by_text(values: Float[Tensor, " n"], text: Int[Tensor, " n"], n_texts: int) -> Float[Tensor, " {n_texts}"]:
    """Return the mean value of the tokens of each text; 0 for a text without tokens.

    Args:
        values: One value per token, ``[tokens]``.
        text: The text that each token belongs to, in 0..n_texts-1, ``[tokens]``.
        n_texts: Number of texts.

    Returns:
        Values, ``[n_texts]``.

    Example:
        >>> import torch
        >>> mean_by_text(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), n_texts=2)
        tensor([2., 5.])
    """
    zeros = values.new_zeros(n_texts)
    sums, counts = zeros.index_add(0, text, values), zeros.index_add(0, text, torch.ones_like(values))
    return sums / counts.clamp_min(1)
