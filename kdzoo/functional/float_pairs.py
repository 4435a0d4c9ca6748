"""Numbers as unevaluated sums of two float32 numbers, for devices without a wider type.

A pair (high, low) represents high + low, where low is the rounding error of high: about 48 bits, where float32 alone
has 24. Only what the losses need is here. Each function is a few elementwise operations, and none makes the host wait.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

VELTKAMP = 4097.0  # 2^12 + 1: splits a float32 of 24 bits into two halves of 12 bits, whose products are exact
VANISHES = -87.0  # e^-87 is just above the smallest normal float32, and next to a weight of 1 it is nothing
LN2_HIGH = 355 / 512  # ln 2 to 9 bits: its product with the exponent of any float32 is exact (Cody and Waite)
LN2_MIDDLE = round((math.log(2) - LN2_HIGH) * 2**27) / 2**27  # the next 15 bits, exact for the same reason
LN2_LOW = math.log(2) - LN2_HIGH - LN2_MIDDLE
STEPS = 128  # in [1/2, 2], e^r is within 1/256 of a multiple of 1/128, from where a series of five terms is enough


def two_difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded difference a - b and its rounding error, which add up to a - b exactly (Knuth's TwoSum)."""
    difference = a - b
    b_part = difference - a
    return difference, (a - (difference - b_part)) - (b + b_part)


def two_sum_sorted(large: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded sum and its rounding error, for ``|large| >= |small|`` (Dekker's FastTwoSum)."""
    total = large + small
    return total, small - (total - large)


def halves(value: Tensor) -> tuple[Tensor, Tensor]:
    """Split float32 values below 1e34 into two parts of at most 12 bits each."""
    scaled = value * VELTKAMP
    first = scaled - (scaled - value)
    return first, value - first


def times_constant(high: Tensor, low: Tensor, constant: float) -> tuple[Tensor, Tensor]:
    """Return a pair times a float64 constant, as a pair; the relative error is about 2^-46."""
    first = _leading_bits(constant)
    second = _leading_bits(constant - first)
    a, b = halves(high)
    # The products of halves with halves are exact; the two of middle size are added with their rounding error.
    middle, error = two_difference(a * second, b * -first)
    product, rest = two_sum_sorted(a * first, middle)
    rest = rest + (error + (b * second + high * (constant - first - second)) + low * constant)
    return two_sum_sorted(product, rest)


def exp_pair(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Return e^(high + low) as a pair, to about 1e-13 of itself, for exponents in [-87, 87].

    The exponent is k ln 2 + log c + f, where c is a multiple of 1/128: 2^k and c are exact, and f is so small that the
    series of e^f needs pairs for its first two terms only.
    """
    k = (high / math.log(2)).round()
    f, rest = two_difference(high - k * LN2_HIGH, k * LN2_MIDDLE)
    rest = rest + (low - k * LN2_LOW)
    step = (f.exp() * STEPS).round()
    log_high, log_low = (table[step.to(torch.int64)] for table in _logarithms(high.device))
    f, error = two_difference(f, log_high)
    f, rest = two_sum_sorted(f, rest + (error - log_low))
    a, b = halves(f)
    c = step / STEPS
    value, error = two_sum_sorted(c, c * a)
    error = error + c * (b + (rest + f * (rest + f * (1 / 2 + f * (1 / 6 + f * (1 / 24))))))
    scale = ((k.to(torch.int32) + 127) << 23).view(torch.float32)  # 2^k by its bits; a power function may round
    return value * scale, error * scale


def row_sums(*values: Tensor) -> list[Tensor]:
    """Return the sums over the last dimension of tensors of one shape and type.

    In float32 halves are added to halves. A running sum would lose a rounding at every one of a thousand small terms
    after a large one; so it is ten at most.
    """
    if values[0].dtype == torch.float64:
        return [value.sum(-1) for value in values]
    stacked = torch.stack(values)
    classes = stacked.shape[-1]
    stacked = pad(stacked, (0, (1 << (classes - 1).bit_length()) - classes))
    while stacked.shape[-1] > 1:
        first, second = stacked.chunk(2, -1)
        stacked = first + second
    return list(stacked.squeeze(-1))


def sum_pair(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over the last dimension of pairs in [0, 1], as a pair.

    It is taken in fixed point, where addition does not round: in int64, with as many bits after the point as leave room
    for the sum.
    """
    scale = 2.0 ** (62 - high.shape[-1].bit_length())
    total = ((high * scale).to(torch.int64) + (low * scale).to(torch.int64)).sum(-1)
    rounded = total.to(torch.float32)
    rest = (total - rounded.to(torch.int64)).to(torch.float32)
    return rounded / scale, rest / scale


def weighted_mean_pair(weights: tuple[Tensor, Tensor], values: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return sum w x / sum w over the last dimension, as a pair, for pairs w in [0, 1] of which one is about 1."""
    (w, w_low), (x, x_low) = weights, values
    # Fixed point needs values in [-1, 1]: they are divided by a power of two, made from the bits of the largest.
    exponent = (x.abs().amax(-1, keepdim=True).view(torch.int32) >> 23).clamp(1, 252)
    down, up = ((bits << 23).view(torch.float32) for bits in (253 - exponent, exponent + 1))
    x, x_low = x * down, x_low * down
    (a, b), (c, d) = halves(w), halves(x)
    product = w * x
    error = ((a * c - product) + (a * d + b * c)) + b * d + (w * x_low + w_low * x)
    (top, top_low), (total, total_low) = sum_pair(product, error), sum_pair(w, w_low)
    mean = top / total
    (a, b), (c, d) = halves(mean), halves(total)
    back = mean * total
    rest = ((top - back) - (((a * c - back) + (a * d + b * c)) + b * d) + top_low - mean * total_low) / total
    return mean * up.squeeze(-1), rest * up.squeeze(-1)


def log_pair(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of a pair > 0, as a pair: the rounded one, corrected by one step of Newton's method."""
    value = high.log()
    back, error = exp_pair(value, torch.zeros_like(value))
    return two_sum_sorted(value, ((high - back) + (low - error)) / back)


def log_sum_exp_pair(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Return log sum exp over the last dimension of pairs <= 0 of which the largest is about 0, as a pair."""
    return log_pair(*sum_pair(*weights_pair(high, low)))


def weights_pair(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exponentials of pairs <= 0 as pairs, 0 where they vanish."""
    counts = high > VANISHES
    weights = exp_pair(torch.where(counts, high, 0.0), torch.where(counts, low, 0.0))
    high, low = (torch.where(counts, part, 0.0) for part in weights)
    return high, low


def _leading_bits(constant: float) -> float:
    """Return a constant rounded to 12 bits."""
    mantissa, exponent = math.frexp(constant)
    return math.ldexp(round(mantissa * 4096), exponent - 12)


@cache
def _logarithms(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return log(i / 128) for i up to 2 * 128, as a pair on a device; it is copied there once."""
    exact = [math.log(max(i, 1) / STEPS) for i in range(2 * STEPS + 1)]
    high = torch.tensor(exact, dtype=torch.float32)
    low = torch.tensor([x - y for x, y in zip(exact, high.tolist(), strict=True)], dtype=torch.float32)
    return high.to(device), low.to(device)
