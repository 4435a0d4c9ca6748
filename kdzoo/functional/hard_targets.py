"""The loss on class labels. See ``soft_targets`` for the conventions that all losses on logits share."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kdzoo.core.precision import host_may_read, widen, widest_float
from kdzoo.functional.blocks import batch_first, by_rows, with_known_signature
from kdzoo.functional.float_pairs import row_sums, two_difference
from kdzoo.functional.loss_arguments import check_classes, check_floating, check_labels

# The definition log sum exp(s_i) - s_y rounds to about 3e-16 of the larger of 1 and itself, and so does the gradient
# 1 - softmax(s)_y: above this they keep ten digits.
ACCURATE_ABOVE = 1e-5


def hard_target_ce(student: Float[Tensor, "*n c"], target: Int64[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    r"""Cross-entropy with class labels y, per position.

    .. math:: -\log \mathrm{softmax}(s)_y = \log\bigl(1 + \textstyle\sum_{i \ne y} e^{s_i - s_y}\bigr)

    The form on the right stays accurate for tiny values, where 1 - softmax(s)_y would round to zero. There is
    no label that means "ignore": select the labelled positions first.

    Args:
        student: Student logits, shape ``[..., classes]``.
        target: Labels in [0, classes), int64, shape ``[...]``.

    Returns:
        Values >= 0, shape ``[...]``; +inf where the label's class is masked. On an accelerator a label outside the
        classes makes the value NaN, since the host could only see it, and raise an error, by waiting for the device.

    Raises:
        ValueError: If a dtype or shape is wrong, there is no class, or a label on the CPU is outside [0, classes).

    Example:
        >>> import torch
        >>> hard_target_ce(torch.tensor([[0.0, 0.0], [50.0, 0.0]]), torch.tensor([1, 0]))
        tensor([6.9315e-01, 1.9287e-22], dtype=torch.float64)

    References:
        Hinton, Vinyals and Dean 2015, section 2, the second objective (temperature 1).
    """
    check_floating("student", student)
    check_classes(student)
    outside = check_labels(target, student)
    if outside is not None:
        target = torch.where(outside, 0, target)
    value, _ = _HardTargetCE.apply(student, target)
    return value if outside is None else torch.where(outside, math.nan, value)


@with_known_signature
class _HardTargetCE(torch.autograd.Function):
    """The cross-entropy and its gradient softmax(s) - onehot(y) in closed form, itself differentiable by s."""

    @staticmethod
    def forward(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = by_rows(_value_and_slope, student, target)
        return value, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        student, target, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of the gradient is wanted: it depends on the student
            one_hot = torch.zeros_like(slope).scatter(-1, target.unsqueeze(-1), 1.0)
            return (grad.unsqueeze(-1) * (widen(student).softmax(-1) - one_hot)).to(student.dtype), None
        return grad.unsqueeze(-1).to(slope.dtype) * slope, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, student: Tensor, target: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return _HardTargetCE.apply(*batch_first(info, in_dims, student, target)), (0, 0)


def _value_and_slope(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and its gradient, the latter in the student's dtype.

    Where the host can read the values, positions for which the definition is accurate use it, since it costs less.
    """
    if not host_may_read(student) or widest_float(student.device) != torch.float64:
        return _exact(student, target)
    s, index = student.double(), target.unsqueeze(-1)
    s = s - s.amax(-1, keepdim=True)
    label_logit = s.gather(-1, index)
    q = s.exp_()
    total = q.sum(-1, keepdim=True)
    value = total.log() - label_logit
    slope = q.div_(total).scatter_add_(-1, index, _minus_one(index)).to(student.dtype)
    value, doubtful = value.squeeze(-1), ~(value > ACCURATE_ABOVE).squeeze(-1)
    if doubtful.any():
        value[doubtful], slope[doubtful] = _exact(student[doubtful], target[doubtful])
    return value, slope


def _minus_one(index: Tensor) -> Tensor:
    return torch.full(index.shape, -1.0, dtype=torch.float64)


def _exact(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and its gradient without loss of digits.

    With the largest logit m of the other classes, their sum is e^(m - y) Z with Z = sum_i e^(s_i - m) >= 1.
    """
    s, index = widen(student), target.unsqueeze(-1)
    label_logit, others = s.gather(-1, index), s.scatter(-1, index, -math.inf)
    top = others.amax(-1, keepdim=True)
    others = (others - top.masked_fill(top.isneginf(), 0.0)).exp_()
    total = row_sums(others)[0].unsqueeze(-1)
    gap, rest = two_difference(top, label_logit)
    small, large = gap.clamp_max(0.0).exp(), (-gap).clamp_max(0.0).exp()
    if s.dtype != torch.float64:  # a rounding of a gap of -80 would change a tiny value by 80 roundings
        small = small + small * torch.where(rest.isfinite(), rest, 0.0)
    value = torch.where(gap <= 0, (small * total).log1p(), gap + (total + large).log())
    share = small / (large + small * total)  # times the others' weights it is their probabilities
    slope = (others * share).scatter(-1, index, -share * total)
    value = torch.where(gap.isnan() | label_logit.isposinf(), math.nan, value)
    return value.squeeze(-1), slope.to(student.dtype)
