"""Diagnosis of a pair of models: whether the surrogate loss or local distillation is better for them.

The surrogate loss is a regression on shared noise. What the student cannot explain is left out, so its samples have too
little variance (under-dispersion). Local distillation puts the unexplained part into the deviations instead, but no
layer can repair the errors of another one. Which is better depends on the models; three numbers distinguish the cases.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from kdzoo.core.inference import inference
from kdzoo.graphical_models.families import Normal
from kdzoo.graphical_models.graph import Graph, Values
from kdzoo.graphical_models.paired import Pair, node_divergence, rollout_student, rollout_teacher


@dataclass(frozen=True)
class Diagnosis:
    """How close a student is to its teacher on shared noise and as a distribution.

    Attributes:
        paired_error: Mean squared difference of the targets' means on the same noise, as a fraction of the teacher's
            variance.
        dispersion: Total variance of the student's targets, as a fraction of the teacher's; below 1 is
            under-dispersion.
        surrogate: Surrogate loss L_sd in nats.
        marginal: KL between the normal distributions with the moments of teacher and student, in nats: an estimate of
            the divergence of the marginals. NaN where moments do not describe the marginals (inputs, targets that are
            not normal or that other nodes depend on) or more values than half the samples make the estimate unreliable.
    """

    paired_error: float
    dispersion: float
    surrogate: float
    marginal: float

    @property
    def bound_gap(self) -> float:
        """Difference between the bound L_sd and the marginal divergence, in nats."""
        return self.surrogate - self.marginal

    def as_dict(self) -> dict[str, float]:
        """Return all known numbers by name, without those that are NaN."""
        numbers = {**asdict(self), "bound_gap": self.bound_gap}
        return {name: value for name, value in numbers.items() if not math.isnan(value)}


def diagnose(teacher: Graph, student: Graph, noise: Values, inputs: Values | None = None) -> Diagnosis:
    """Measure a student on n samples of noise.

    Args:
        teacher: The teacher.
        student: The student, with the same latents.
        noise: Noise of n samples; n should be several times the number of values of all targets.
        inputs: Values of the inputs.
    """
    with inference(student):
        teacher_trace = rollout_teacher(teacher, noise, inputs)
        pair = Pair(teacher_trace, rollout_student(student, teacher_trace, noise, inputs))
        # Targets that others depend on are the teacher's in the pair; the student's own variance needs a free rollout.
        free = student.rollout(noise, inputs)
    names = list(teacher.targets())
    teacher_means, paired_means, free_means = (
        _concatenate([trace.distributions[name].mean for name in names]) for trace in (pair.teacher, pair.student, free)
    )
    teacher_within, student_within = (
        _concatenate([trace.distributions[name].variance for name in names]).mean(0) for trace in (pair.teacher, free)
    )
    # Law of total variance: the variance of the means plus the mean of the variances.
    teacher_variance = float(teacher_means.var(0).sum() + teacher_within.sum())
    student_variance = float(free_means.var(0).sum() + student_within.sum())
    surrogate = torch.stack([node_divergence(pair, name, "kl", "sum").mean() for name in names]).sum()
    marginal = math.nan
    if _has_normal_marginals(teacher):
        marginal = _moment_kl((teacher_means, teacher_within), (free_means, student_within))
    return Diagnosis(
        paired_error=float((teacher_means - paired_means).square().sum(1).mean()) / teacher_variance,
        dispersion=student_variance / teacher_variance,
        surrogate=float(surrogate),
        marginal=marginal,
    )


def recommendation(surrogate: Mapping[str, float], local: Mapping[str, float]) -> str | None:
    """Return one line that names the better of two students, and why; None if that is not known.

    The divergence of the marginals decides: ``kl`` if it is known exactly, otherwise ``marginal``.

    Args:
        surrogate: Numbers of :class:`Diagnosis` by name, of the student distilled on its own latents.
        local: The same numbers of the student distilled on the teacher's latents.
    """
    key = next((key for key in ("kl", "marginal") if key in surrogate and key in local), None)
    if key is None or math.isclose(surrogate[key], local[key], rel_tol=1e-6):
        return None
    better = "the surrogate loss" if surrogate[key] < local[key] else "local distillation"
    return (
        f"Recommendation: {better} here; divergence of the marginals {surrogate[key]:.3g} nats by the surrogate loss, "
        f"{local[key]:.3g} locally, paired error {surrogate['paired_error']:.2g} and {local['paired_error']:.2g}, "
        f"dispersion {surrogate['dispersion']:.2f} and {local['dispersion']:.2f}."
    )


def normal_kl(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """Return KL(N(mean, covariance) || N(other_mean, other_covariance)) in nats.

    Args:
        mean: Mean of the first distribution, ``[d]``.
        covariance: Covariance of the first distribution, ``[d, d]``, positive definite.
        other_mean: Mean of the second distribution, ``[d]``.
        other_covariance: Covariance of the second distribution, ``[d, d]``, positive definite.
    """
    # With the Cholesky factor of the second covariance both become whitened, and no matrix is inverted.
    root = torch.linalg.cholesky(other_covariance)
    whitened = torch.linalg.solve_triangular(root, torch.linalg.cholesky(covariance), upper=False)
    shift = torch.linalg.solve_triangular(root, (other_mean - mean)[:, None], upper=False)
    log_ratio = whitened.diagonal().log().sum()
    return 0.5 * (whitened.square().sum() + shift.square().sum() - len(mean)) - log_ratio


def _has_normal_marginals(graph: Graph) -> bool:
    """Return whether means and variances given the latents determine the moments of the targets."""
    targets = graph.targets()
    leaves = graph.leaves()
    are_normal = all(isinstance(node.family, Normal) for node in targets.values())
    return are_normal and not graph.inputs() and leaves.issuperset(targets)


def _moment_kl(teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor]) -> float:
    """Return the KL of normal distributions with the moments of means ``[n, d]`` and variances ``[d]`` within."""
    n, size = teacher[0].shape
    if 2 * size > n:  # the estimated covariance would be far from the true one, and singular for size >= n
        return math.nan
    moments = []
    for means, within in (teacher, student):
        moments += [means.mean(0), torch.cov(means.T).reshape(size, size) + torch.diag(within)]
    return float(normal_kl(*moments))


def _concatenate(values: list[Tensor]) -> Tensor:
    """Return values ``[n, ...]`` as one matrix in double precision."""
    return torch.cat([value.flatten(1).double() for value in values], 1)
