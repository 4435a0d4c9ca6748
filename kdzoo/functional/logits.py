"""Losses on class logits: soft targets, of all classes or of few, hard targets, centred squares, the decoupled loss.

Notation: student logits s, teacher logits t, temperature T, q = softmax(s / T), p = softmax(t / T), c
classes. Every loss returns one value per position, unreduced, computed and returned in float64, so that sums
over micro-batches or ranks agree exactly; gradients come back in the student's dtype. The teacher is a
constant: no gradient reaches it. A class with logit -inf is masked: it has probability zero. A position that
holds NaN or +inf, or whose classes are all masked, has no distribution, and its value is NaN.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import softplus

from kdzoo.functional.loss_arguments import (
    check_classes,
    check_floating,
    check_labels,
    check_same_shape,
    check_temperature,
)

BLOCK = 1 << 16  # logits that are worked on at once on a CPU
ACCURATE_ABOVE = 1e-3  # a divergence by its definition, as a share of the largest log-probability
SERIES_BELOW = 0.01  # where the Taylor series is more accurate than the difference it replaces
PHI_SERIES = (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720)  # (e^x - 1 - x) / x^2
PSI_SERIES = (1 / 2, -1 / 3, 1 / 4, -1 / 5, 1 / 6, -1 / 7, 1 / 8)  # (x - log(1 + x)) / x^2


def soft_target_kl(
    student: Float[Tensor, "*n c"], teacher: Float[Tensor, "*n c"], *, temperature: float | int
) -> Float64[Tensor, "*n"]:
    r"""Kullback-Leibler divergence of softened distributions, per position, times the squared temperature.

    .. math:: T^2 \, \mathrm{KL}(p \,\|\, q) = T^2 \sum_i p_i \log \frac{p_i}{q_i}

    The factor T^2 keeps the gradient :math:`T (q - p)` of one size as T varies; as T grows, the loss tends to
    `centred_mse`. The value is accurate to about 1e-12 of itself also where student and teacher almost agree
    or are almost certain; it is never negative, and zero for equal logits. Divergences below 1e-300 may flush
    to 0.

    Args:
        student: Student logits, shape (*n, c), any floating dtype.
        teacher: Teacher logits, shape (*n, c), any floating dtype; gets no gradient.
        temperature: Softening T > 0 of both distributions, in units of logits.

    Returns:
        Float64 values >= 0, shape (*n,). A class masked in both adds nothing, one masked in the teacher only
        is a class without teacher mass, and one masked in the student only makes the value +inf.

    Raises:
        ValueError: If the shapes differ, a dtype is not floating, there is no class, or the temperature is
            not a finite positive number.

    Example:
        >>> import torch
        >>> student = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
        >>> teacher = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
        >>> soft_target_kl(student, teacher, temperature=1.0)
        tensor([0.0000, 0.4338], dtype=torch.float64)

    Source:
        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    check_same_shape(student, teacher)
    check_classes(student)
    check_temperature(temperature)
    value: Tensor = _SoftTargetKL.apply(student, teacher.detach(), float(temperature))
    return value


def hard_target_ce(student: Float[Tensor, "*n c"], target: Int64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    r"""Cross-entropy with class labels y, per position.

    .. math:: -\log \mathrm{softmax}(s)_y = \log\bigl(1 + \textstyle\sum_{i \ne y} e^{s_i - s_y}\bigr)

    The form on the right stays accurate for tiny values, where 1 - softmax(s)_y would round to zero. There is
    no label that means "ignore": select the labelled positions first.

    Args:
        student: Student logits, shape (*n, c).
        target: Labels in [0, c), int64, shape (*n,).

    Returns:
        Float64 values >= 0, shape (*n,); +inf where the label's class is masked.

    Raises:
        ValueError: If a dtype or shape is wrong, there is no class, or a label is outside [0, c).

    Example:
        >>> import torch
        >>> hard_target_ce(torch.tensor([[0.0, 0.0], [50.0, 0.0]]), torch.tensor([1, 0]))
        tensor([6.9315e-01, 1.9287e-22], dtype=torch.float64)

    Source:
        Hinton, Vinyals and Dean 2015, section 2, the second objective (temperature 1).
    """
    check_floating("student", student)
    check_classes(student)
    check_labels(target, student)
    chosen, others = _split_label(student.double(), target)
    return softplus(_logsumexp(others) - chosen, threshold=40.0)


def centred_mse(student: Float[Tensor, "*n c"], teacher: Float[Tensor, "*n c"]) -> Float64[Tensor, "*n"]:
    r"""Half the mean squared difference of centred logits, per position: `soft_target_kl` as T goes to
    infinity.

    .. math:: \frac{1}{2 c} \sum_i \bigl((s_i - \bar s) - (t_i - \bar t)\bigr)^2

    Args:
        student: Student logits, shape (*n, c).
        teacher: Teacher logits, shape (*n, c); gets no gradient.

    Returns:
        Float64 values >= 0, shape (*n,). Classes masked in both are left out of sums and means; a class
        masked in one only makes the value +inf.

    Raises:
        ValueError: If the shapes differ, a dtype is not floating or there is no class.

    Example:
        >>> import torch
        >>> centred_mse(torch.tensor([[3.0, 1.0]]), torch.tensor([[7.0, 7.0]]))
        tensor([0.5000], dtype=torch.float64)

    Source:
        Hinton, Vinyals and Dean 2015, section 2.1, equation 4.
    """
    check_same_shape(student, teacher)
    check_classes(student)
    s, t = student.double(), teacher.detach().double()
    kept = ~(s.isneginf() | t.isneginf())
    count = kept.sum(-1)
    difference = torch.where(kept, s, 0.0) - torch.where(kept, t, 0.0)
    centred = torch.where(kept, difference - (difference.sum(-1) / count).unsqueeze(-1), 0.0)
    value = 0.5 * centred.square().sum(-1) / count
    unlike = (s.isneginf() != t.isneginf()).any(-1) & ~value.isnan()
    return torch.where(unlike, math.inf, value)


def decoupled_kl(
    student: Float[Tensor, "*n c"],
    teacher: Float[Tensor, "*n c"],
    target: Int64[Tensor, "*n"],
    *,
    temperature: float | int,
) -> tuple[Float64[Tensor, "*n"], Float64[Tensor, "*n"]]:
    r"""Target-class and non-target-class part of the soft-target loss, per position, each times T^2.

    With the label y, :math:`b(p) = (p_y, 1 - p_y)` and :math:`\hat p = p` without y, scaled to sum to 1:

    .. math:: \mathrm{TCKD} = T^2 \, \mathrm{KL}(b(p) \,\|\, b(q)), \qquad
              \mathrm{NCKD} = T^2 \, \mathrm{KL}(\hat p \,\|\, \hat q)

    `soft_target_kl` equals TCKD + (1 - p_y) NCKD; the decoupled loss weights the two freely.

    Args:
        student: Student logits, shape (*n, c), c >= 2.
        teacher: Teacher logits, shape (*n, c); gets no gradient.
        target: Labels in [0, c), int64, shape (*n,).
        temperature: Softening T > 0 of both distributions, in units of logits.

    Returns:
        TCKD and NCKD, float64 values >= 0, shape (*n,) each. NCKD is NaN where every class but y is masked.

    Raises:
        ValueError: If a shape or dtype is wrong, there are fewer than two classes, a label is outside [0, c),
            or the temperature is not a finite positive number.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 3.0]])
        >>> target_class, other_classes = decoupled_kl(student, teacher, torch.tensor([0]), temperature=1.0)
        >>> target_class, other_classes
        (tensor([0.4681], dtype=torch.float64), tensor([0.5023], dtype=torch.float64))

    Source:
        Zhao et al. 2022, "Decoupled Knowledge Distillation", equations 6 and 7.
    """
    check_same_shape(student, teacher)
    check_classes(student, least=2)
    check_labels(target, student)
    check_temperature(temperature)
    own_s, others_s = _split_label(student.double(), target)
    own_t, others_t = _split_label(teacher.detach().double(), target)
    rest_s = temperature * _logsumexp(others_s / temperature)
    rest_t = temperature * _logsumexp(others_t / temperature)
    target_class = soft_target_kl(
        torch.stack([own_s, rest_s], -1), torch.stack([own_t, rest_t], -1), temperature=temperature
    )
    return target_class, soft_target_kl(others_s, others_t, temperature=temperature)


def most_likely(
    teacher: Float[Tensor, "*n c"], k: int, *, temperature: float | int
) -> tuple[Float[Tensor, "*n k_and_rest"], Int64[Tensor, "*n k"]]:
    r"""Return a teacher's logits of its k most likely classes and of all others as one class, and which they are.

    The logit of the others, :math:`T \log \sum_{i > k} e^{t_i / T}`, leaves their softened probability as it is.

    Args:
        teacher: Teacher logits, shape (*n, c).
        k: Number of classes to name, in 1..c-1.
        temperature: Softening T > 0, in units of logits.

    Returns:
        Logits (*n, k + 1) in the teacher's dtype, the last those of the others, and the classes (*n, k).

    Raises:
        ValueError: If the dtype is not floating, k is outside 1..c-1, or the temperature is not finite and positive.

    Example:
        >>> import torch
        >>> most_likely(torch.tensor([[0.0, 3.0, 0.0, 1.0]]), 2, temperature=1.0)
        (tensor([[3.0000, 1.0000, 0.6931]]), tensor([[1, 3]]))
    """
    check_floating("teacher", teacher)
    check_classes(teacher, least=2)
    check_temperature(temperature)
    if not 1 <= k < teacher.shape[-1]:
        raise ValueError(f"k must be in 1..{teacher.shape[-1] - 1}, for {teacher.shape[-1]} classes, got {k}")
    chosen = teacher.detach().topk(k, -1).indices
    return _named_and_rest(teacher.detach(), chosen, temperature).to(teacher.dtype), chosen


def top_k_kl(
    student: Float[Tensor, "*n c"],
    teacher: Float[Tensor, "*n k_and_rest"],
    classes: Int64[Tensor, "*n k"],
    *,
    temperature: float | int,
) -> Float64[Tensor, "*n"]:
    r"""`soft_target_kl` between distributions over k named classes and all others as one, per position.

    It is `soft_target_kl` of all classes less :math:`T^2 p_r\, \mathrm{KL}(p_{|r} \,\|\, q_{|r})`, where r are the
    others and :math:`p_r` is their probability under the teacher: never more, and equal if no mass is left.

    Args:
        student: Student logits, shape (*n, c).
        teacher: Teacher logits of the named classes and the others, shape (*n, k + 1), from `most_likely` at the same
            temperature; gets no gradient.
        classes: The named classes, int64, shape (*n, k).
        temperature: Softening T > 0 of both distributions, in units of logits.

    Returns:
        Float64 values >= 0, shape (*n,).

    Raises:
        ValueError: If shapes or dtypes do not fit, or the temperature is not a finite positive number.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
        >>> top_k_kl(student, *most_likely(teacher, 1, temperature=1.0), temperature=1.0)
        tensor([0.0989], dtype=torch.float64)
    """
    check_floating("student", student)
    check_temperature(temperature)
    named = (*student.shape[:-1], teacher.shape[-1] - 1)
    if classes.dtype != torch.int64 or tuple(classes.shape) != named or not 1 <= named[-1] < student.shape[-1]:
        raise ValueError(
            f"classes must be int64 of shape {named}, one fewer than the teacher's logits and fewer than the student's "
            f"{student.shape[-1]}, got {classes.dtype} {tuple(classes.shape)}"
        )
    return soft_target_kl(_named_and_rest(student, classes, temperature), teacher.double(), temperature=temperature)


def _named_and_rest(logits: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Return the logits of the named classes, then that of all others together, in float64."""
    rest: Tensor = _Rest.apply(logits, classes, float(temperature))
    return torch.cat([logits.gather(-1, classes).double(), rest.unsqueeze(-1)], -1)


class _Rest(torch.autograd.Function):
    """T log sum exp(s_i / T) over the classes that are not named, block by block, in float64."""

    @staticmethod
    def forward(logits: Tensor, classes: Tensor, temperature: float) -> Tensor:
        return temperature * _by_rows(lambda s, named: _others(s, named, temperature).logsumexp(-1), logits, classes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:  # noqa: ARG004
        logits, classes, ctx.temperature = inputs
        ctx.save_for_backward(logits, classes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, classes = ctx.saved_tensors
        slope = _by_rows(lambda s, named: _others(s, named, ctx.temperature).softmax(-1), logits, classes)
        return (grad.unsqueeze(-1) * slope).to(logits.dtype), None, None


def _others(logits: Tensor, named: Tensor, temperature: float) -> Tensor:
    return (logits.double() / temperature).scatter(-1, named, -math.inf)


class _SoftTargetKL(torch.autograd.Function):
    """T^2 KL(p || q) with its gradient T (q - p) in closed form, itself differentiable by the student."""

    @staticmethod
    def forward(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        exact = partial(_soft_target_kl_value, temperature=temperature)
        if torch.compiler.is_compiling():
            return exact(student, teacher)
        return _by_rows(partial(_by_size, exact=exact, temperature=temperature), student, teacher)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:  # noqa: ARG004
        student, teacher, ctx.temperature = inputs
        ctx.save_for_backward(student, teacher)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        student, teacher = ctx.saved_tensors
        slope = _by_rows(partial(_soft_target_kl_slope, temperature=ctx.temperature), student, teacher)
        return (grad.unsqueeze(-1) * slope).to(student.dtype), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, int]:
        s, t = (
            one.expand(info.batch_size, *one.shape) if dim is None else one.movedim(dim, 0)
            for one, dim in zip((student, teacher), in_dims, strict=False)
        )
        return _SoftTargetKL.apply(s, t, temperature), 0


def _by_rows(function: Callable[[Tensor, Tensor], Tensor], student: Tensor, other: Tensor) -> Tensor:
    """Apply a function of logits to blocks of positions whose float64 temporaries stay in a CPU's cache."""
    classes = student.shape[-1]
    rows = max(1, BLOCK // classes)
    if student.device.type != "cpu" or torch.compiler.is_compiling() or student.numel() <= rows * classes:
        return function(student, other)
    pair = student.reshape(-1, classes), other.reshape(-1, other.shape[-1])
    blocks = zip(*(one.split(rows) for one in pair), strict=True)
    result = torch.cat([function(s, t) for s, t in blocks])
    return result.reshape(student.shape[:-1] + result.shape[1:])


def _by_size(student: Tensor, teacher: Tensor, exact: Callable[[Tensor, Tensor], Tensor], temperature: float) -> Tensor:
    """The value of `soft_target_kl`: by its definition where that is accurate, else by ``exact``, which costs more.

    The definition loses what is rounded in the log-probabilities, about their size times 1e-16; a divergence that is
    larger than 1e-3 times that size keeps 12 digits.
    """
    s, t = student.double() / temperature, teacher.double() / temperature
    s, t = s - s.amax(-1, keepdim=True), t - t.amax(-1, keepdim=True)
    p = t.exp()
    mass, log_z = p.sum(-1), s.exp().sum(-1).log()
    value = (p.mul_(t - s)).sum(-1) / mass - mass.log() + log_z
    size = 1 - s.amin(-1) - t.amin(-1)
    doubtful = ~(value > ACCURATE_ABOVE * size)
    value *= temperature**2
    if doubtful.any():
        value[doubtful] = exact(student[doubtful], teacher[doubtful])
    return value


def _soft_target_kl_slope(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The gradient T (q - p) of `soft_target_kl` by the student's logits, in float64."""
    q = (student.double() / temperature).softmax(-1)
    p = (teacher.double() / temperature).softmax(-1)
    return temperature * (q - p)


def _soft_target_kl_value(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The value of `soft_target_kl`, in float64.

    Let m be the teacher's most likely class and e_i = ((s_i - t_i) - (s_m - t_m)) / T, so that q_i / q_m is
    p_i / p_m times exp(e_i). With A = sum_i p_i (exp(e_i) - 1),
        KL = log(1 + A) - sum_i p_i e_i = sum_i p_i phi(e_i) - psi(A),
    phi(x) = exp(x) - 1 - x >= 0, psi(x) = x - log(1 + x) >= 0. As e_m = 0 and p_m >= 1 / c, the last
    difference loses at most a factor c to cancellation; for A > 1 the first form is the accurate one.
    """
    s, t = student.double(), teacher.double()
    top_t, m = t.max(-1, keepdim=True)
    th, sh = (t - top_t) / temperature, (s - s.gather(-1, m)) / temperature
    log_z = th.logsumexp(-1, keepdim=True)
    p = (th - log_z).exp()

    gap, rounding = _two_difference(s, t)
    e = ((gap - gap.gather(-1, m)) + (rounding - rounding.gather(-1, m))) / temperature
    massless = t.isneginf()
    e = torch.where(massless, 0.0, e)

    # p_i (exp(e_i) - 1), through sh where exp(e_i) could overflow before the tiny p_i brings it back
    growth = torch.where(massless | (e > 1), (sh - log_z).exp() - p, p * e.expm1())
    series = (e.abs() < SERIES_BELOW) & ~massless
    excess = torch.where(series, p * _series_from_square(e, PHI_SERIES), growth - p * e)
    A = growth.sum(-1)
    psi = torch.where(A.abs() < SERIES_BELOW, _series_from_square(A, PSI_SERIES), A - A.log1p())
    close = excess.sum(-1) - psi
    far = sh.logsumexp(-1) - log_z.squeeze(-1) - (p * e).sum(-1)
    value = temperature**2 * torch.where(A > 1, far, close).clamp_min(0.0)

    value = torch.where((s.isneginf() & ~massless).any(-1), math.inf, value)
    top_s = s.amax(-1)  # amax hands NaN on
    invalid = top_s.isnan() | top_s.isposinf() | ~top_t.squeeze(-1).isfinite()
    return torch.where(invalid, math.nan, value)


def _two_difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The rounded difference a - b and its rounding error, which add up to a - b exactly (Knuth's TwoSum)."""
    difference = a - b
    b_part = difference - a
    return difference, (a - (difference - b_part)) - (b + b_part)


def _series_from_square(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """x^2 (c_0 + c_1 x + c_2 x^2 + ...)."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = coefficient + x * total
    return x * x * total


def _split_label(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The label's logit, shape (*n,), and the logits with the label's class masked, shape (*n, c)."""
    index = target.unsqueeze(-1)
    return logits.gather(-1, index).squeeze(-1), logits.scatter(-1, index, -math.inf)


def _logsumexp(logits: Tensor) -> Tensor:
    """Logsumexp over the last dimension whose gradient is 0, not NaN, where every class is masked."""
    masked = logits.isneginf().all(-1)
    return torch.where(masked, -math.inf, torch.where(masked.unsqueeze(-1), 0.0, logits).logsumexp(-1))
