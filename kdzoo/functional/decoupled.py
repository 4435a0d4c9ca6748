"""The decoupled soft-target loss. See ``soft_targets`` for the conventions that all losses on logits share.

Notation: label y, the other classes o, g = z_y / T - log sum_o exp(z_i / T): sigmoid(g) is the probability of y.
"""

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import logsigmoid

from kdzoo.core.precision import host_may_read, widen, widest_float
from kdzoo.functional import float_pairs
from kdzoo.functional.blocks import batch_first, by_rows, with_known_signature
from kdzoo.functional.divergence import Softened, divergence, exp_of_quotient, log_ratios, soften, with_exceptions
from kdzoo.functional.float_pairs import two_difference
from kdzoo.functional.loss_arguments import check_classes, check_labels, check_same_shape, check_temperature

# Above these shares of the largest log-probability the definitions keep the promised six digits: they round to about
# 3e-16 of it, and for two classes to that times the teacher's probability of the label, which is at most 1.
TARGET_ACCURATE_ABOVE, OTHERS_ACCURATE_ABOVE = 1e-9, 1e-8
# Log-odds are compared by the ratios of the logits, with an error of half a rounding of the squared ratios, or by their
# logarithms, with an error of about 1e-12 in float32: below this the former is smaller.
NEAR = 3e-3
# Sums of exponentials that are smaller have lost digits to the end of the range of float64 (2e-308).
LEAST_TOTAL = 1e-280


def decoupled_kl(
    student: Float[Tensor, "*n c"],
    teacher: Float[Tensor, "*n c"],
    target: Int64[Tensor, "*n"],
    *,
    temperature: float | int,
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    r"""Target-class and non-target-class part of the soft-target loss, per position, each times T^2.

    With the label y, :math:`b(p) = (p_y, 1 - p_y)` and :math:`\hat p = p` without y, scaled to sum to 1:

    .. math:: \mathrm{TCKD} = T^2 \, \mathrm{KL}(b(p) \,\|\, b(q)), \qquad
              \mathrm{NCKD} = T^2 \, \mathrm{KL}(\hat p \,\|\, \hat q)

    ``soft_target_kl`` equals TCKD + (1 - p_y) NCKD; the decoupled loss weights the two freely. The relative error of
    both is below 1e-6 in the range that ``soft_target_kl`` names.

    Args:
        student: Student logits, shape ``[..., classes]`` with at least two classes.
        teacher: Teacher logits, shape ``[..., classes]``; gets no gradient.
        target: Labels in [0, classes), int64, shape ``[...]``.
        temperature: Softening T > 0 of both distributions, in units of logits.

    Returns:
        TCKD and NCKD, values >= 0, shape ``[...]`` each. NCKD is NaN where every class but y is masked. On an
        accelerator both are NaN where a label is outside the classes.

    Raises:
        ValueError: If a shape or dtype is wrong, there are fewer than two classes, a label on the CPU is outside
            [0, classes), or the temperature is not a finite positive number.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 3.0]])
        >>> decoupled_kl(student, teacher, torch.tensor([0]), temperature=1.0)
        (tensor([0.4681], dtype=torch.float64), tensor([0.5023], dtype=torch.float64))

    References:
        Zhao et al. 2022, "Decoupled Knowledge Distillation", equations 6 and 7.
    """
    check_same_shape(student, teacher)
    check_classes(student, least=2)
    outside = check_labels(target, student)
    check_temperature(temperature)
    if outside is not None:
        target = torch.where(outside, 0, target)
    of_target, of_others, *_ = _DecoupledKL.apply(student, teacher.detach(), target, float(temperature))
    if outside is not None:
        of_target, of_others = (torch.where(outside, math.nan, value) for value in (of_target, of_others))
    return of_target, of_others


@with_known_signature
class _DecoupledKL(torch.autograd.Function):
    """TCKD, NCKD, and what their gradients need, in the student's dtype: T (q_y - p_y), q^ and T (q^ - p^)."""

    @staticmethod
    def forward(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, ...]:
        return by_rows(partial(_values_and_slopes, temperature=temperature), student, teacher, target)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.temperature = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*tensors, *output[2:])

    @staticmethod
    def backward(ctx: Any, grad_target: Tensor, grad_others: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None]:
        student, teacher, target, slope_target, q_others, slope_others = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of the gradient is wanted: it depends on the student
            slope_target, q_others, slope_others = _slopes(widen(student), widen(teacher), target, ctx.temperature)
        own = (grad_target.to(slope_target.dtype) * slope_target).unsqueeze(-1)
        grad = slope_others * grad_others.to(slope_others.dtype).unsqueeze(-1) - q_others * own
        return grad.scatter_add(-1, target.unsqueeze(-1), own).to(student.dtype), None, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, student: Tensor, teacher: Tensor, target: Tensor, temperature: float
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        arguments = batch_first(info, in_dims, student, teacher, target)
        return _DecoupledKL.apply(*arguments, temperature), (0,) * 5


def _values_and_slopes(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, ...]:
    """Return the five outputs of ``_DecoupledKL``: by the definitions where the host can see that they are accurate."""
    if not host_may_read(student) or widest_float(student.device) != torch.float64:
        return _exact(student, teacher, target, temperature)
    *results, doubtful = _by_definition(student, teacher, target, temperature)
    if doubtful.any():
        exact = _exact(student[doubtful], teacher[doubtful], target[doubtful], temperature)
        for result, value in zip(results, exact, strict=True):
            result[doubtful] = value
    return tuple(results)


def _by_definition(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, ...]:
    """Return the five outputs by their definitions, and the positions whose values may have lost digits."""
    index = target.unsqueeze(-1)
    z = torch.stack((student, teacher)).double()  # one operation for both: for few logits its start is what costs
    z.sub_(z.amax(-1, keepdim=True)).div_(temperature)
    size = 1 - z.amin(-1).sum(0)
    index = index.expand(2, *index.shape)
    own = z.gather(-1, index).squeeze(-1)
    probabilities = z.exp().scatter_(-1, index, 0.0)  # of the other classes
    totals = probabilities.sum(-1, keepdim=True)
    underflow = (totals < LEAST_TOTAL).any(0).squeeze(-1)
    (q, p), logs = probabilities.div_(totals), totals.log_().squeeze(-1)
    (s, t), (q_log, p_log) = z, logs
    others = t.sub_(s).mul_(p).sum(-1).add_(q_log).sub_(p_log)

    odds = own.sub_(logs)
    logs = logsigmoid(torch.stack([odds, -odds]))
    binary = logs.exp()
    of_target = (binary[:, 1] * (logs[:, 1] - logs[:, 0])).sum(0)
    doubtful = underflow | ~((of_target > TARGET_ACCURATE_ABOVE * size) & (others > OTHERS_ACCURATE_ABOVE * size))
    slope = (binary[0, 0] - binary[0, 1]).mul_(temperature).to(student.dtype)
    q_others = q.to(student.dtype, copy=True)
    slope_others = q.sub_(p).mul_(temperature).to(student.dtype)
    return of_target * temperature**2, others.mul_(temperature**2), slope, q_others, slope_others, doubtful


def _exact(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, ...]:
    """Return the five outputs without loss of digits, by the formulas of ``divergence``."""
    index = target.unsqueeze(-1)
    s, t = widen(student), widen(teacher)
    others_s, others_t = s.scatter(-1, index, -math.inf), t.scatter(-1, index, -math.inf)
    p, q = soften(others_t, temperature), soften(others_s, temperature)
    ratio = log_ratios(s, t, temperature, others_t.argmax(-1, keepdim=True))
    kl = divergence(p, q, ratio, others_t.isneginf())
    own_ratio = _own_ratio(s, t, others_t, index, temperature) - kl.value

    odds_s, odds_t = _Odds(s, others_s, q, index, temperature), _Odds(t, others_t, p, index, temperature)
    spread = ratio.gather(-1, index).squeeze(-1).abs() + kl.mean.abs() + kl.value
    gap = torch.where(spread < NEAR, own_ratio, odds_s.minus(odds_t))

    b_q, b_p = odds_s.binary(), odds_t.binary()
    massless = torch.stack([t.gather(-1, index).squeeze(-1).isneginf(), others_t.isneginf().all(-1)], -1)
    # Relative to the likelier of the two, as the ratios of ``divergence`` have to be.
    label_likelier = b_p.weights[..., :1] >= b_p.weights[..., 1:]
    gap = gap.unsqueeze(-1)
    gaps = torch.where(label_likelier, torch.cat([0.0 * gap, -gap], -1), torch.cat([gap, 0.0 * gap], -1))
    gaps = torch.where(massless.any(-1, keepdim=True), 0.0, gaps)
    binary = divergence(b_p, b_q, gaps, massless)

    infinite = (s.isneginf() & ~t.isneginf()).gather(-1, index).squeeze(-1)
    infinite = infinite | (others_s.isneginf().all(-1) & ~massless[..., 1])
    invalid = (s + t).amax(-1)  # NaN is handed on, and +inf with -inf makes one
    of_target = torch.where(infinite, math.inf, binary.value)
    of_target = torch.where(invalid.isnan() | invalid.isposinf(), math.nan, of_target)
    of_others = with_exceptions(kl.value, others_s, others_t)
    slopes = (temperature * binary.slope[..., 0], q.probabilities, temperature * kl.slope)
    return temperature**2 * of_target, temperature**2 * of_others, *(slope.to(student.dtype) for slope in slopes)


def _own_ratio(s: Tensor, t: Tensor, others_t: Tensor, index: Tensor, temperature: float) -> Tensor:
    """Return (s_y - t_y) / T less the mean of (s_i - t_i) / T under p^, rounded once: the two may nearly be equal."""
    top, reference = others_t.max(-1, keepdim=True)
    gap, rest = two_difference(s, t)
    gap, error = two_difference(gap, gap.gather(-1, reference))
    rest = error + (rest - rest.gather(-1, reference))
    if s.dtype == torch.float64:
        ratio = torch.where(t.isneginf(), 0.0, (gap + rest) / temperature)
        p = ((others_t - top) / temperature).softmax(-1)
        return ratio.gather(-1, index).squeeze(-1) - (p * ratio).sum(-1)
    ratio, low = (
        torch.where(t.isneginf(), 0.0, part)
        for part in float_pairs.times_constant(*float_pairs.two_sum_sorted(gap, rest), 1 / temperature)
    )
    exponents = float_pairs.times_constant(*two_difference(others_t, top), 1 / temperature)
    mean, mean_low = float_pairs.weighted_mean_pair(float_pairs.weights_pair(*exponents), (ratio, low))
    own, own_low = (part.gather(-1, index).squeeze(-1) for part in (ratio, low))
    value, error = two_difference(own, mean)
    return value + (error + (own_low - mean_low))


class _Odds:
    """The log-odds g of the label, as a pair, with the probabilities of label and others.

    Args:
        logits: Of all classes.
        others: The same with the label masked.
        softened: Their softmax.
        index: The label, shape ``[..., 1]``.
        temperature: T.
    """

    def __init__(self, logits: Tensor, others: Tensor, softened: Softened, index: Tensor, temperature: float) -> None:
        top, own = others.amax(-1, keepdim=True), logits.gather(-1, index)
        alone = top.isneginf()
        top = torch.where(alone, own, top)
        gap, rest = (part.squeeze(-1) for part in two_difference(own, top))
        self.total = torch.where(alone, 0.0, softened.total).squeeze(-1)
        if logits.dtype == torch.float64:
            self.gap, self.gap_low = gap / temperature, torch.zeros_like(gap)
            self.log_total, self.log_low = self.total.log(), self.gap_low
            self.factors = self.gap.clamp_max(0.0).exp(), (-self.gap).clamp_max(0.0).exp()
        else:
            self.gap, self.gap_low = float_pairs.times_constant(gap, rest, 1 / temperature)
            pairs = float_pairs.times_constant(*two_difference(others, top), 1 / temperature)
            self.log_total, self.log_low = float_pairs.log_sum_exp_pair(*pairs)
            self.factors = (
                torch.where(gap <= 0, exp_of_quotient(gap, rest, temperature), 1.0),
                torch.where(gap > 0, exp_of_quotient(-gap, -rest, temperature), 1.0),
            )

    def minus(self, other: "_Odds") -> Tensor:
        """Return the difference of the log-odds, rounded once."""
        gap, gap_rest = two_difference(self.gap, other.gap)
        logs, logs_rest = two_difference(self.log_total, other.log_total)
        value, rest = two_difference(gap, logs)
        low = (self.gap_low - other.gap_low) - (self.log_low - other.log_low)
        return value + (rest + (gap_rest - logs_rest + low))

    def binary(self) -> Softened:
        """Return the distribution over the label and the others, shape ``[..., 2]``."""
        own, others = self.factors  # relative to the likelier of the label and the likeliest other class
        weights = torch.stack([own, others * self.total], -1)
        exponents = torch.stack([self.gap.clamp_max(0.0), (-self.gap).clamp_max(0.0) + self.log_total], -1)
        return Softened(exponents, weights, weights.sum(-1, keepdim=True))


def _slopes(s: Tensor, t: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return T (q_y - p_y), q^ and T (q^ - p^) as functions that autograd can differentiate by s."""
    index = target.unsqueeze(-1)
    q_own, p_own = ((z / temperature).softmax(-1).gather(-1, index).squeeze(-1) for z in (s, t))
    q, p = ((z.scatter(-1, index, -math.inf) / temperature).softmax(-1) for z in (s, t))
    return temperature * (q_own - p_own), q, temperature * (q - p)
