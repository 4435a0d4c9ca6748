"""Losses on the features of a hidden layer: hints (FitNets) and attention transfer.

Every loss returns one value per sample, unreduced and in the widest floating-point type of the device (float64, except
on Apple's GPUs), so that sums over micro-batches or ranks agree. Gradients come back in the student's dtype. The
teacher is a constant: it gets no gradient.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from kdzoo.core.precision import widen
from kdzoo.functional.loss_arguments import check_floating, check_same_batch, check_same_shape


def hint_mse(student: Float[Tensor, " b *d"], teacher: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
    r"""Mean squared difference of the student's features and the teacher's hint, per sample.

    .. math:: \frac{1}{d} \sum_{j=1}^{d} (s_j - t_j)^2

    A student layer of another width needs a regressor first, whose output is then passed as ``student``. The paper
    takes half of the sum, which is d / 2 times this value; a loss weight can restore it.

    Args:
        student: Student features s, ``[batch, ...]`` with d numbers per sample.
        teacher: Teacher features t, of the same shape; they get no gradient.

    Returns:
        Values >= 0, ``[batch]``.

    Raises:
        ValueError: If the shapes differ, a dtype is not a floating-point one, or a sample has no features.

    Example:
        >>> import torch
        >>> hint_mse(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2))
        tensor([5., 0.], dtype=torch.float64)

    References:
        Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", equation 3.
    """
    check_same_shape(student, teacher)
    if student.ndim < 2 or math.prod(student.shape[1:]) == 0:
        raise ValueError(f"student must have shape (b, *d) with d >= 1, got {tuple(student.shape)}")
    return (widen(student) - widen(teacher.detach())).square().flatten(1).mean(1)


def attention_map(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b hw"]:
    r"""Map of where a convolutional layer is active: squared activations summed over channels, of Euclidean norm 1.

    .. math:: A_j = \sum_k f_{kj}^2, \qquad \mathrm{map}_j = A_j / \|A\|_2

    with channels k and pixels j.

    Args:
        features: Activations f, ``[batch, channels, height, width]``.

    Returns:
        Values >= 0, ``[batch, height * width]``, whose rows have norm 1; a row is 0 if all activations are 0.

    Raises:
        ValueError: If the features are not ``[batch, channels, height, width]`` with at least one number per sample,
            or the dtype is not a floating-point one.

    Example:
        >>> import torch
        >>> attention_map(torch.tensor([[[[3.0**0.5, 2.0]]]]))
        tensor([[0.6000, 0.8000]], dtype=torch.float64)

    References:
        Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", section 3.1, the map F_sum^2.
    """
    _check_feature_maps("features", features)
    f = widen(features)
    # The map does not depend on the scale of the features, so a constant scale leaves its gradient unchanged,
    # and neither tiny nor huge activations leave the range of float64 when squared.
    scale = f.detach().abs().amax((1, 2, 3), keepdim=True)
    energy = (f / torch.where(scale > 0, scale, 1.0)).square().sum(1).flatten(1)
    total = energy.square().sum(1, keepdim=True)
    # ``where`` before ``sqrt``: the derivative of the root at 0 is infinite, and infinity times 0 would be NaN.
    return energy / torch.where(total > 0, total, 1.0).sqrt()


def attention_transfer(
    student: Float[Tensor, "b c1 h1 w1"], teacher: Float[Tensor, "b c2 h2 w2"]
) -> Float[Tensor, " b"]:
    r"""Mean squared difference of the attention maps of student and teacher, per sample.

    .. math:: \frac{1}{h w} \Bigl\| \frac{A_S}{\|A_S\|_2} - \frac{A_T}{\|A_T\|_2} \Bigr\|_2^2

    The numbers of channels may differ. If the spatial sizes differ, the features of both are brought to the smaller
    height and the smaller width by adaptive average pooling, which leaves features of that size unchanged.

    Args:
        student: Student activations, ``[batch, student channels, height, width]``.
        teacher: Teacher activations, ``[batch, teacher channels, height, width]``; they get no gradient.

    Returns:
        Values in [0, 2 / (h * w)], ``[batch]``, with h and w of the compared maps.

    Raises:
        ValueError: If one of the two is not ``[batch, channels, height, width]`` with at least one number per sample,
            a dtype is not a floating-point one, or the batch sizes differ.

    Example:
        >>> import torch
        >>> student = torch.tensor([[[[1.0, 0.0]]]])
        >>> attention_transfer(student, 5 * student.flip(-1)), attention_transfer(student, -7 * student)
        (tensor([1.], dtype=torch.float64), tensor([0.], dtype=torch.float64))

    References:
        Zagoruyko and Komodakis 2017, equation 2 with p = 2, as the mean of squares of their published code.
    """
    _check_feature_maps("student", student)
    _check_feature_maps("teacher", teacher)
    check_same_batch(student, teacher)
    s, t = widen(student), widen(teacher.detach())
    if s.shape[2:] != t.shape[2:]:
        size = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))
        s, t = adaptive_avg_pool2d(s, size), adaptive_avg_pool2d(t, size)
    return (attention_map(s) - attention_map(t)).square().mean(1)


def _check_feature_maps(name: str, features: Tensor) -> None:
    """Reject what is not a batch of feature maps, such as the output ``[batch, width]`` of a linear layer."""
    check_floating(name, features)
    if features.ndim != 4 or math.prod(features.shape[1:]) == 0:
        raise ValueError(f"{name} must be non-empty feature maps of shape (b, c, h, w), got {tuple(features.shape)}")
