"""The certificate of a logit loss: what any soft-target loss must satisfy, whatever its formula."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, float], Tensor]  # (student, teacher, T), logits (n, c) -> one value each, (n,)

CLASSES = 10
SAMPLES = 512


def loss_certificate(loss: Loss) -> list[str]:
    """The names of the properties that the loss lacks; empty for a sound loss.

    per_position            one value per position of the logits
    steady_gradient         mean gradient norm within a factor 1.5 for T from 1 to 100
    high_temperature_limit  at T = 1000 the gradient is (z - v) / c for centred logits, within 1 %
    micro_batches           the sum over 1, 2, 4 or 8 micro-batches is the same to 1e-6
    half_precision          value and gradient finite for float16 and bfloat16 logits of scale 60
    never_negative          also for nearly equal pairs
    zero_for_equal          exactly
    teacher_constant        no gradient reaches the teacher
    """
    student, teacher = _centred_logits()
    if loss(student, teacher, 4.0).shape != (SAMPLES,):
        return ["per_position"]
    failures = []

    sizes = torch.tensor([_gradient(loss, student, teacher, T).norm(dim=1).mean() for T in (1, 2, 4, 8, 20, 100)])
    if not sizes.max() <= 1.5 * sizes.min():
        failures.append("steady_gradient")

    limit = (student - teacher) / CLASSES
    off = (_gradient(loss, student, teacher, 1000.0) - limit).norm(dim=1) / limit.norm(dim=1)
    if not off.max() < 0.01:
        failures.append("high_temperature_limit")

    s, t = student.float(), teacher.float()
    sums = [sum(loss(a, b, 4.0).sum() for a, b in zip(s.chunk(k), t.chunk(k), strict=True)) for k in (1, 2, 4, 8)]
    if not all(abs(total - sums[0]) <= 1e-6 * abs(sums[0]) for total in sums):
        failures.append("micro_batches")

    for dtype in (torch.float16, torch.bfloat16):
        s, t = (20 * student).to(dtype), (20 * teacher).to(dtype)
        finite = [loss(s, t, T).isfinite().all() and _gradient(loss, s, t, T).isfinite().all() for T in (1.0, 4.0)]
        if not all(finite) and "half_precision" not in failures:
            failures.append("half_precision")

    pairs = [(student, teacher), (teacher.float() + 1e-5 * student.float(), teacher.float())]
    if not all((loss(s, t, T) >= 0).all() for s, t in pairs for T in (1.0, 4.0, 20.0, 100.0)):
        failures.append("never_negative")

    if not all((loss(t, t.clone(), T) == 0).all() for t in (teacher, teacher.float()) for T in (1.0, 4.0, 100.0)):
        failures.append("zero_for_equal")

    watched = teacher.clone().requires_grad_()
    loss(student.clone().requires_grad_(), watched, 4.0).sum().backward()
    if watched.grad is not None and watched.grad.any():
        failures.append("teacher_constant")
    return failures


def _centred_logits() -> tuple[Tensor, Tensor]:
    """Independent student and teacher logits of standard deviation 3 whose mean over the classes is zero."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, SAMPLES, CLASSES, dtype=torch.float64, generator=generator)
    student, teacher = logits - logits.mean(-1, keepdim=True)
    return student, teacher


def _gradient(loss: Loss, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The gradient of the summed loss by the student's logits, in float64."""
    leaf = student.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, teacher, float(temperature)).sum(), leaf)
    return gradient.double()
