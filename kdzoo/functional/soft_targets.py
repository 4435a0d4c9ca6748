"""Losses on the teacher's softened class probabilities.

Notation: student logits s, teacher logits t, temperature T, q = softmax(s / T), p = softmax(t / T), c classes. Every
loss returns one value per position, unreduced, in the widest floating-point type of the device (float64, except on
Apple's GPUs), so that sums over micro-batches or ranks agree; gradients come back in the student's dtype. The teacher
is a constant: no gradient reaches it. A class with logit -inf is masked: it has probability zero. A position that holds
NaN or +inf, or whose classes are all masked, has no distribution, and its value is NaN.
"""

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core.precision import host_may_read, widen, widest_float
from kdzoo.functional.blocks import batch_first, by_rows, with_known_signature
from kdzoo.functional.divergence import divergence, log_ratios, soften, with_exceptions
from kdzoo.functional.float_pairs import row_sums, two_difference
from kdzoo.functional.loss_arguments import check_classes, check_same_shape, check_temperature

# A divergence above this share of the largest log-probability is computed by its definition, which rounds to about
# 3e-16 of that: 1e-5 keeps ten digits, and a student that is still learning is seldom below it.
ACCURATE_ABOVE = 1e-5


def soft_target_kl(
    student: Float[Tensor, "*n c"], teacher: Float[Tensor, "*n c"], *, temperature: float | int
) -> Float[Tensor, "*n"]:
    r"""Kullback-Leibler divergence of softened distributions, per position, times the squared temperature.

    .. math:: T^2 \, \mathrm{KL}(p \,\|\, q) = T^2 \sum_i p_i \log \frac{p_i}{q_i}

    The factor T^2 keeps the gradient :math:`T (q - p)` of one size as T varies; as T grows, the loss tends to
    ``centred_mse``. For temperatures from 0.01 to 1e4 and logits up to 1e4, the relative error of the value is below
    1e-6 on every device, and near 1e-11 where there is float64, also where student and teacher almost agree or are
    almost certain. It is never negative, and zero for equal logits. Divergences below 1e-300 (1e-30 without float64)
    may flush to 0.

    Args:
        student: Student logits of any floating dtype, shape ``[..., classes]``.
        teacher: Teacher logits of any floating dtype, shape ``[..., classes]``; gets no gradient.
        temperature: Softening T > 0 of both distributions, in units of logits.

    Returns:
        Values >= 0, shape ``[...]``. A class masked in both adds nothing, one masked in the teacher only is a class
        without teacher mass, and one masked in the student only makes the value +inf.

    Raises:
        ValueError: If the shapes differ, a dtype is not floating, there is no class, or the temperature is not a finite
            positive number.

    Example:
        >>> import torch
        >>> student = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
        >>> teacher = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
        >>> soft_target_kl(student, teacher, temperature=1.0)
        tensor([0.0000, 0.4338], dtype=torch.float64)

    References:
        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    check_same_shape(student, teacher)
    check_classes(student)
    check_temperature(temperature)
    return soft_target_kl_of_pairs(student, None, teacher, float(temperature))


def soft_target_kl_of_pairs(student: Tensor, low: Tensor | None, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``soft_target_kl`` of valid arguments.

    Args:
        student: Student logits, shape ``[..., classes]``.
        low: What rounding to the widest type took from them, shape ``[..., classes]``; None: nothing.
        teacher: Teacher logits, shape ``[..., classes]``.
        temperature: T.
    """
    wants_gradient = torch.is_grad_enabled() and student.requires_grad
    value, _ = _SoftTargetKL.apply(student, teacher.detach(), low, temperature, wants_gradient)
    return value


def centred_mse(student: Float[Tensor, "*n c"], teacher: Float[Tensor, "*n c"]) -> Float[Tensor, "*n"]:
    r"""Half the mean squared difference of centred logits, per position: ``soft_target_kl`` as T goes to infinity.

    .. math:: \frac{1}{2 c} \sum_i \bigl((s_i - \bar s) - (t_i - \bar t)\bigr)^2

    Args:
        student: Student logits, shape ``[..., classes]``.
        teacher: Teacher logits, shape ``[..., classes]``; gets no gradient.

    Returns:
        Values >= 0, shape ``[...]``. Classes masked in both are left out of sums and means; a class masked in one only
        makes the value +inf.

    Raises:
        ValueError: If the shapes differ, a dtype is not floating or there is no class.

    Example:
        >>> import torch
        >>> centred_mse(torch.tensor([[3.0, 1.0]]), torch.tensor([[7.0, 7.0]]))
        tensor([0.5000], dtype=torch.float64)

    References:
        Hinton, Vinyals and Dean 2015, section 2.1, equation 4.
    """
    check_same_shape(student, teacher)
    check_classes(student)
    s, t = widen(student), widen(teacher.detach())
    masked_s, masked_t = s.isneginf(), t.isneginf()
    kept = ~(masked_s | masked_t)
    count = kept.sum(-1, keepdim=True)
    s, t = torch.where(kept, s, 0.0), torch.where(kept, t, 0.0)
    # The rounding error of s - t, a constant for autograd, counts where the mean takes nearly all of s - t off.
    difference, rest = s - t, two_difference(s.detach(), t)[1]
    mean = row_sums(difference)[0].unsqueeze(-1) / count
    centred = torch.where(kept, (difference - mean) + rest, 0.0)
    # The mean itself is rounded, by more than what is left if student and teacher differ by little but a constant.
    centred = torch.where(kept, centred - row_sums(centred)[0].unsqueeze(-1) / count, 0.0)
    value = 0.5 * row_sums(centred.square())[0] / count.squeeze(-1)
    unlike = (masked_s != masked_t).any(-1) & ~value.isnan()
    return torch.where(unlike, math.inf, value)


@with_known_signature
class _SoftTargetKL(torch.autograd.Function):
    """T^2 KL(p || q), and its gradient T (q - p) by s in closed form; that is itself differentiable by s."""

    @staticmethod
    def forward(
        student: Tensor, teacher: Tensor, low: Tensor | None, temperature: float, with_slope: bool
    ) -> tuple[Tensor, Tensor]:
        function = partial(_value_and_slope, temperature=temperature, with_slope=with_slope)
        value, slope = by_rows(function, student, teacher, *(() if low is None else (low,)))
        return value, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        student, teacher, _, ctx.temperature, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(student, teacher, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
        student, teacher, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of the gradient is wanted: it depends on the student
            q, p = ((widen(logits) / ctx.temperature).softmax(-1) for logits in (student, teacher))
            slope = ctx.temperature * (q - p)
        return (grad.to(slope.dtype).unsqueeze(-1) * slope).to(student.dtype), None, None, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, student: Tensor, teacher: Tensor, low: Tensor | None, *options: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        s, t = batch_first(info, in_dims[:2], student, teacher)
        pairs = None if low is None else batch_first(info, in_dims[2:3], low)[0]
        return _SoftTargetKL.apply(s, t, pairs, *options), (0, 0)


def _value_and_slope(
    student: Tensor, teacher: Tensor, low: Tensor | None = None, *, temperature: float, with_slope: bool
) -> tuple[Tensor, Tensor]:
    """Return T^2 KL(p || q) and, if wanted, T (q - p) in the student's dtype.

    Where the host can read the values, positions for which the definition is accurate use it, since it costs less.
    """
    if not host_may_read(student) or widest_float(student.device) != torch.float64:
        value, slope = _exact(student, teacher, temperature, low)
        return value, slope if with_slope else slope[..., :0]
    value, slope, doubtful = _by_definition(student, teacher, temperature, with_slope)
    if doubtful.any():
        value[doubtful] = _exact(student[doubtful], teacher[doubtful], temperature)[0]
    return value, slope


def _by_definition(
    student: Tensor, teacher: Tensor, temperature: float, with_slope: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return value and slope by their definitions, and the positions whose value may have lost digits."""
    z = torch.stack((student, teacher)).double()  # one operation for both: for few logits its start is what costs
    z.sub_(z.amax(-1, keepdim=True)).div_(temperature)
    probabilities = z.exp()
    totals = probabilities.sum(-1, keepdim=True)
    (q, p), (q_log, p_log) = probabilities.div_(totals), totals.log_().squeeze(-1)
    s, t = z
    doubtful_below = z.amin(-1).sum(0).sub_(1).mul_(-ACCURATE_ABOVE)
    value = t.sub_(s).mul_(p).sum(-1).add_(q_log).sub_(p_log)
    slope = (q.sub_(p).mul_(temperature) if with_slope else q[..., :0]).to(student.dtype)
    doubtful = ~(value > doubtful_below)
    return value.mul_(temperature**2), slope, doubtful


def _exact(student: Tensor, teacher: Tensor, temperature: float, low: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return value and slope without loss of digits, by the formulas of ``divergence``."""
    s, t = widen(student), widen(teacher)
    ratio = log_ratios(s, t, temperature, t.argmax(-1, keepdim=True), low)
    kl = divergence(soften(t, temperature), soften(s, temperature, low), ratio, t.isneginf())
    value = with_exceptions(temperature**2 * kl.value, s, t)
    return value, (temperature * kl.slope).to(student.dtype)
