"""Which way of distillation suits a pair of models: what the surrogate bound leaves open, and what local errors cost.

The surrogate loss is a regression on shared noise: what the student cannot explain it leaves out, and its samples
are dispersed too little. Local distillation puts it into the deviations instead, but cannot let one layer repair the
errors of another. Three numbers tell the cases apart.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from kdzoo.core.inference import inference
from kdzoo.graphical_models.families import Normal
from kdzoo.graphical_models.graph import Graph, Values
from kdzoo.graphical_models.paired import Pair, follow, imitated, node_divergence


@dataclass(frozen=True)
class Diagnosis:
    """How a student fares on shared noise and as a whole.

    Attributes:
        paired_error: mean squared difference of the targets' means on the same noise, in parts of the teacher's
            variance.
        dispersion: total variance of the student's targets in parts of the teacher's.
        surrogate: L_sd, nats.
        marginal: KL of the normal distributions with the moments of teacher and student, nats: an estimate of the
            divergence of the marginals. NaN where it is none: with inputs, targets that are not normal or that others
            depend on, and more values than half the samples.
    """

    paired_error: float
    dispersion: float
    surrogate: float
    marginal: float

    @property
    def bound_gap(self) -> float:
        """What the bound exceeds the marginal divergence by, nats."""
        return self.surrogate - self.marginal

    def as_dict(self) -> dict[str, float]:
        """Return all numbers by name, without those that are not known."""
        every = {**asdict(self), "bound_gap": self.bound_gap}
        return {name: value for name, value in every.items() if not math.isnan(value)}


def diagnose(teacher: Graph, student: Graph, noise: Values, inputs: Values | None = None) -> Diagnosis:
    """Measure a student on n samples of noise.

    Args:
        teacher: the model that was imitated.
        student: the model that imitates, with the same latents.
        noise: of n samples; n should be several times the number of values of all targets.
        inputs: values of the inputs.
    """
    with inference(student):
        trace = imitated(teacher, noise, inputs)
        pair = Pair(trace, follow(student, trace, noise, inputs))
        free = student.rollout(noise, inputs)
    names = list(teacher.targets())
    one, other = (_flat([of.distributions[name].mean for name in names]) for of in (pair.teacher, pair.student))
    within, within_student = (
        _flat([of.distributions[name].variance for name in names]).mean(0) for of in (pair.teacher, free)
    )
    alone = _flat([free.distributions[name].mean for name in names])
    variances = [float(means.var(0).sum() + inside.sum()) for means, inside in ((one, within), (alone, within_student))]
    surrogate = torch.stack([node_divergence(pair, name, "kl", "sum").mean() for name in names]).sum()
    return Diagnosis(
        paired_error=float((one - other).square().sum(1).mean()) / variances[0],
        dispersion=variances[1] / variances[0],
        surrogate=float(surrogate),
        marginal=_moment_kl((one, within), (alone, within_student)) if _has_moments(teacher) else math.nan,
    )


def _has_moments(graph: Graph) -> bool:
    """Return whether means and variances given the latents tell those of the targets."""
    targets = graph.targets()
    leaves = graph.leaves()
    are_normal = all(isinstance(node.family, Normal) for node in targets.values())
    return are_normal and not graph.inputs() and leaves.issuperset(targets)


def _moment_kl(teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor]) -> float:
    """Return the KL of normal distributions with the moments of means [n, d] and variances [d] within."""
    n, size = teacher[0].shape
    if 2 * size > n:
        return math.nan
    moments = []
    for means, within in (teacher, student):
        moments += [means.mean(0), torch.cov(means.T).reshape(size, size) + torch.diag(within)]
    return float(normal_kl(*moments))


def recommendation(ours: Mapping[str, float], local: Mapping[str, float]) -> str | None:
    """Return one line: which of two students to keep, and why; None where that cannot be told.

    The divergence of the marginals decides: ``kl`` where it is known exactly, otherwise ``marginal``.

    Args:
        ours: numbers of :class:`Diagnosis` of the student that was given its own latents, by name.
        local: of the one that was given the teacher's.
    """
    known = next((key for key in ("kl", "marginal") if key in ours and key in local), None)
    if known is None or math.isclose(ours[known], local[known], rel_tol=1e-6):
        return None
    better = "the surrogate loss" if ours[known] < local[known] else "local distillation"
    return (
        f"Advice: {better} here; divergence of the marginals {ours[known]:.3g} nats by the surrogate loss, "
        f"{local[known]:.3g} locally, paired error {ours['paired_error']:.2g} and {local['paired_error']:.2g}, "
        f"dispersion {ours['dispersion']:.2f} and {local['dispersion']:.2f}."
    )


def normal_kl(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """Return KL(N(mean, covariance) || N(other_mean, other_covariance)), nats.

    Args:
        mean: [d].
        covariance: [d, d], positive definite, as is the other one.
        other_mean: [d].
        other_covariance: [d, d].
    """
    root = torch.linalg.cholesky(other_covariance)
    whitened = torch.linalg.solve_triangular(root, torch.linalg.cholesky(covariance), upper=False)
    shift = torch.linalg.solve_triangular(root, (other_mean - mean)[:, None], upper=False)
    log_ratio = whitened.diagonal().log().sum()
    return 0.5 * (whitened.square().sum() + shift.square().sum() - len(mean)) - log_ratio


def _flat(values: list[Tensor]) -> Tensor:
    return torch.cat([value.flatten(1).double() for value in values], 1)
