"""The arithmetic of softened divergences, KL(p || q) of p = softmax(t / T) and q = softmax(s / T), without loss.

The definition sum_i p_i log(p_i / q_i) is a small difference of large numbers where student and teacher almost agree.
Here differences are taken before anything is rounded, and sums have terms of one sign. With r_i = (s_i - t_i) / T up to
a constant, whose mean under p is m, and e_i = r_i - m,

    KL = log sum_i p_i exp(e_i) = log(1 + sum_i p_i phi(e_i)),    phi(x) = exp(x) - 1 - x >= 0,

since sum_i p_i e_i = 0; an error of m changes this by its square only. In a class that is "far", with a large e_i or
without teacher mass, exp(e_i) may overflow before the product with the tiny p_i. There p_i exp(e_i) = q_i exp(KL), so

    KL = log(1 + sum_close p_i phi(e_i) - sum_far p_i (1 + e_i)) - log(1 - sum_far q_i).

The same formulas are used in float64 and, with exponents as pairs of numbers, in float32 on devices without float64.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kdzoo.functional import float_pairs
from kdzoo.functional.float_pairs import row_sums, two_difference

FAR = 2.0  # above it p (1 + e) is less than half of p exp(e); below it exp(e) stays accurate if e is rounded
# phi(x) / x^2 by its Taylor series up to a bound on |x|, from where the definition of phi has as many digits
PHI_SERIES = {
    torch.float64: (0.01, (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720)),
    torch.float32: (1.0, (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320, 1 / 362880, 1 / 3628800)),
}
# If the classes that are not far have less student mass, the divergence is above 40, and its definition is accurate.
LITTLE = 1e-18


class Softened(NamedTuple):
    """A softmax in parts.

    Attributes:
        exponents: (z - max z) / T, shape [..., classes]; -inf where a class is masked.
        weights: Their exponentials, which are accurate also where they are tiny.
        total: The sum of the weights, shape [..., 1].
    """

    exponents: Tensor
    weights: Tensor
    total: Tensor

    @property
    def probabilities(self) -> Tensor:
        """The softened probabilities, shape [..., classes]."""
        return self.weights / self.total

    @property
    def log_probabilities(self) -> Tensor:
        """Their logarithms, with an absolute error of a few roundings of themselves."""
        return self.exponents - self.total.log()


class Divergence(NamedTuple):
    """KL(p || q) of distributions with known ratios: log(q_i / p_i) = ratio_i - mean - value.

    Attributes:
        value: KL(p || q), shape [...].
        mean: The mean of the ratios under p, shape [...].
        slope: q - p, the gradient by the softened logits of q, shape [..., classes].
    """

    value: Tensor
    mean: Tensor
    slope: Tensor


def soften(logits: Tensor, temperature: float, low: Tensor | None = None) -> Softened:
    """Return the softmax of logits / T in parts, in the dtype of the logits (float64 or float32).

    Args:
        logits: Shape [..., classes].
        temperature: T.
        low: What rounding took from the logits, if they are pairs.
    """
    top = logits.amax(-1, keepdim=True)
    exponents = (logits - top) / temperature
    if logits.dtype == torch.float64:
        weights = exponents.exp()
    else:
        high, rest = two_difference(logits, top)
        if low is not None:
            rest = rest + (low - low.gather(-1, logits.argmax(-1, keepdim=True)))
        weights = exp_of_quotient(high, rest, temperature)
    return Softened(exponents, weights, row_sums(weights)[0].unsqueeze(-1))


def exp_of_quotient(high: Tensor, low: Tensor, temperature: float) -> Tensor:
    """Return exp((high + low) / T) for float32 numbers <= 0, with an error of two roundings of itself.

    Rounding an exponent near -80 would change its exponential by as many roundings, hence the pairs. What is below the
    range of float32 is 0, and so is a class that is masked.
    """
    high, low = float_pairs.times_constant(high, low, 1 / temperature)
    value = high.exp()
    return torch.where(high > float_pairs.VANISHES, value + value * low, 0.0)


def log_ratios(
    student: Tensor, teacher: Tensor, temperature: float, reference: Tensor, student_low: Tensor | None = None
) -> Tensor:
    """Return (s_i - t_i) / T less that of the reference class [..., 1]; 0 where the teacher's class is masked.

    The rounding error of s_i - t_i is added again after the reference's difference is taken off, which may be large.
    """
    gap, rest = two_difference(student, teacher)
    if student_low is not None:
        rest = rest + student_low
    ratio = ((gap - gap.gather(-1, reference)) + (rest - rest.gather(-1, reference))) / temperature
    return torch.where(teacher.isneginf(), 0.0, ratio)


def divergence(p: Softened, q: Softened, ratio: Tensor, massless: Tensor) -> Divergence:
    """Return KL(p || q), never negative.

    Args:
        p: The teacher's distribution.
        q: The student's distribution.
        ratio: log(q_i / p_i) plus any constant, small for the likeliest classes of p, shape [..., classes].
        massless: The classes that are masked in p, bool, shape [..., classes].
    """
    p_, q_ = p.probabilities, q.probabilities
    mean = row_sums(p_ * ratio)[0].unsqueeze(-1)
    e = ratio - mean
    far = massless | (e > FAR)
    excess, left, q_far, q_close, by_definition = row_sums(
        torch.where(far, -p_ * (1 + e), p_ * _phi(e)),
        torch.where(far, 0.0, p_ * e.exp()),
        torch.where(far, q_, 0.0),
        torch.where(far, 0.0, q_),
        torch.where(p_ > 0, p_ * (p.log_probabilities - q.log_probabilities), 0.0),
    )
    # Where the far classes take almost everything from the sum, what is left is added up itself.
    inner = torch.where(excess < -0.5, left.log(), excess.log1p())
    outer = torch.where(q_far < 0.5, (-q_far).log1p(), q_close.log())
    value = torch.where(q_close > LITTLE, inner - outer, by_definition).clamp_min(0.0)
    slope = torch.where(far | e.isnan(), q_ - p_, p_ * (e - value.unsqueeze(-1)).expm1())
    return Divergence(value, mean.squeeze(-1), slope)


def _phi(x: Tensor) -> Tensor:
    """Return exp(x) - 1 - x with its leading digits, also for small x."""
    bound, coefficients = PHI_SERIES[x.dtype]
    series = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        series = coefficient + x * series
    return torch.where(x.abs() < bound, x * x * series, x.expm1() - x)


def rows_without_value(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions whose value is infinite, for a mask of the student alone, and those without a distribution.

    A position has no distribution if it holds NaN or +inf, or if all its classes are masked.
    """
    infinite = (student.isneginf() & ~teacher.isneginf()).any(-1)
    tops = torch.stack([student.amax(-1), teacher.amax(-1)])  # amax hands NaN on
    return infinite, (tops.isnan() | tops.isposinf()).any(0) | tops[1].isneginf()


def with_exceptions(value: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """Return values with inf where the student alone masks a class, and NaN where there is no distribution."""
    infinite, invalid = rows_without_value(student, teacher)
    return torch.where(invalid, torch.nan, torch.where(infinite, torch.inf, value))
