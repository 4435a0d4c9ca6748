"""The soft-target loss between a few named classes and all others as one: what a cache of likely classes can give.

See ``soft_targets`` for the conventions that all losses on logits share.
"""

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kdzoo.core.precision import widen
from kdzoo.functional import float_pairs
from kdzoo.functional.blocks import by_rows, with_known_signature
from kdzoo.functional.float_pairs import two_difference
from kdzoo.functional.loss_arguments import check_classes, check_floating, check_temperature
from kdzoo.functional.soft_targets import soft_target_kl_of_pairs


def most_likely(
    teacher: Float[Tensor, "*n c"], k: int, *, temperature: float | int
) -> tuple[Float[Tensor, "*n k_and_rest"], Int64[Tensor, "*n k"]]:
    r"""Return a teacher's logits of its k most likely classes and of all others as one class, and which they are.

    The logit of the others, :math:`T \log \sum_{i > k} e^{t_i / T}`, leaves their softened probability as it is.

    Args:
        teacher: Teacher logits, shape ``[..., classes]``.
        k: Number of classes to name, from 1 to classes - 1.
        temperature: Softening T > 0, in units of logits.

    Returns:
        Logits ``[..., k + 1]`` in the teacher's dtype, the last those of the others, and the classes ``[..., k]``.

    Raises:
        ValueError: If the dtype is not floating, k is outside its range, or the temperature is not finite and positive.

    Example:
        >>> import torch
        >>> most_likely(torch.tensor([[0.0, 3.0, 0.0, 1.0]]), 2, temperature=1.0)
        (tensor([[3.0000, 1.0000, 0.6931]]), tensor([[1, 3]]))
    """
    check_floating("teacher", teacher)
    check_classes(teacher, least=2)
    check_temperature(temperature)
    if not 1 <= k < teacher.shape[-1]:  # with k = classes there would be no others to sum up
        raise ValueError(f"k must be in 1..{teacher.shape[-1] - 1}, for {teacher.shape[-1]} classes, got {k}")
    teacher = teacher.detach()
    chosen = teacher.topk(k, -1).indices
    rest, _ = _Rest.apply(teacher, chosen, float(temperature))
    return torch.cat([teacher.gather(-1, chosen), rest.unsqueeze(-1).to(teacher.dtype)], -1), chosen


def top_k_kl(
    student: Float[Tensor, "*n c"],
    teacher: Float[Tensor, "*n k_and_rest"],
    classes: Int64[Tensor, "*n k"],
    *,
    temperature: float | int,
) -> Float[Tensor, "*n"]:
    r"""``soft_target_kl`` between distributions over k named classes and all others as one, per position.

    It is ``soft_target_kl`` of all classes less :math:`T^2 p_r\, \mathrm{KL}(p_{|r} \,\|\, q_{|r})`, where r are the
    others and :math:`p_r` is their probability under the teacher: never more, and equal if no mass is left.

    Args:
        student: Student logits, shape ``[..., classes]``.
        teacher: Teacher logits of the named classes and the others, shape ``[..., k + 1]``, from ``most_likely`` at the
            same temperature; gets no gradient.
        classes: The named classes, int64, shape ``[..., k]``.
        temperature: Softening T > 0 of both distributions, in units of logits.

    Returns:
        Values >= 0, shape ``[...]``.

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
    # The sum over the others is rounded like any float32, so that its rest goes on with it, as a constant.
    rest, rest_low = _Rest.apply(student, classes, float(temperature))
    logits = torch.cat([widen(student.gather(-1, classes)), rest.unsqueeze(-1)], -1)
    low = torch.cat([torch.zeros_like(logits[..., :-1]), rest_low.unsqueeze(-1)], -1).detach()
    return soft_target_kl_of_pairs(logits, low, widen(teacher), float(temperature))


@with_known_signature
class _Rest(torch.autograd.Function):
    """T log sum exp(s_i / T) over the classes that are not named, and what rounding took from it in float32.

    Nothing of the size of the logits is kept for the backward pass: the classes are often the words of a vocabulary.
    """

    @staticmethod
    def forward(logits: Tensor, classes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        value, low = by_rows(partial(_rest, temperature=temperature), logits, classes)
        return value, low

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        logits, classes, ctx.temperature = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(logits, classes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logits, classes = ctx.saved_tensors
        (slope,) = by_rows(lambda s, named: ((_others(s, named) / ctx.temperature).softmax(-1),), logits, classes)
        return (grad.unsqueeze(-1) * slope).to(logits.dtype), None, None


def _rest(logits: Tensor, classes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the logit of the classes that are not named, and what rounding took from it (0 in float64)."""
    others = _others(logits, classes)
    top = others.amax(-1, keepdim=True)
    # Where there is no float64 (see kdzoo.core.precision), pairs of float32 numbers take its place.
    if others.dtype == torch.float64:
        value = temperature * (others / temperature).logsumexp(-1)
        return value, torch.zeros_like(value)
    exponents = float_pairs.times_constant(*two_difference(others, top), 1 / temperature)
    above, above_low = float_pairs.times_constant(*float_pairs.log_sum_exp_pair(*exponents), temperature)
    value, rest = two_difference(top.squeeze(-1), -above)  # the exact sum of both
    return value, rest + above_low


def _others(logits: Tensor, named: Tensor) -> Tensor:
    """Return the logits in the widest type of their device, the named classes masked."""
    # exp(-inf) is exactly 0, and every row keeps its length, whichever classes are named in it.
    return widen(logits).scatter(-1, named, -math.inf)
