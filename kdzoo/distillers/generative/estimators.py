"""How the gradient of the targets' divergences passes the student's discrete latents.

A bit 1[u < p] is a step function of its probability p, so the surrogate loss has no gradient with respect to the
networks before it. A :class:`GradientEstimator` supplies one: by the way in which the student's latents are sampled
(``sampler``), or by other terms for the targets (``target_terms``). The mathematics is in
:mod:`kdzoo.graphical_models.discrete` and :mod:`kdzoo.graphical_models.enumeration`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.graphical_models import Graph
from kdzoo.graphical_models.discrete import gumbel_softmax, reinforce, straight_through
from kdzoo.graphical_models.enumeration import enumerated_divergences
from kdzoo.graphical_models.graph import Values
from kdzoo.graphical_models.paired import Pair
from kdzoo.graphical_models.tasks import Sampler, hard_sample


@dataclass(frozen=True)
class PairedRollout:
    """Everything that a paired rollout was made of.

    Attributes:
        teacher: The model that is distilled.
        student: The model that learns.
        pair: Traces of both.
        noise: Noise on which the teacher was rolled out, ``[rows, ...]`` by node.
        inputs: Values of the inputs, ``[rows, ...]`` by node.
    """

    teacher: Graph
    student: Graph
    pair: Pair
    noise: Values
    inputs: Values


class GradientEstimator:
    """Hard values and no gradient through them, and the base class of other estimators.

    The networks before a discrete latent then learn from the latents' own losses alone, as in the code that comes with
    Chen et al. 2023.

    Attributes:
        samples: Number of rollouts of each sample of a batch.
        sampler: Turns a network's output and noise into a value of the student.
        missing_bound: Why the surrogate loss does not bound the divergence of the marginals; empty if it does.
        allows_mixed_latents: Whether some samples may take the teacher's latents.
    """

    samples: int = 1
    # A plain function as class attribute would become a method and be called with the estimator as first argument.
    sampler: Sampler = staticmethod(hard_sample)
    missing_bound: ClassVar[str] = ""
    allows_mixed_latents: ClassVar[bool] = True

    def draw_noise(
        self, teacher: Graph, n: int, *, generator: torch.Generator | None = None, leaves: bool = False
    ) -> dict[str, Tensor]:
        """Draw the noise of n samples by node, ``[n, ...]``, or ``[n, samples, ...]`` for several rollouts of each.

        Args:
            teacher: The model whose nodes need noise.
            n: Number of samples.
            generator: Source of the random numbers; None: the default one.
            leaves: Whether targets that no node depends on need noise too.
        """
        # One axis for the samples of a batch, so that it can be divided into micro-batches.
        noise = teacher.noise(n * self.samples, generator=generator, leaves=leaves)
        if self.samples == 1:
            return noise
        return {name: value.unflatten(0, (n, self.samples)) for name, value in noise.items()}

    def noise_rows(self, noise: Values) -> Values:
        """Return drawn noise with one row for each rollout, ``[n * samples, ...]``."""
        return noise if self.samples == 1 else {name: value.flatten(0, 1) for name, value in noise.items()}

    def repeat(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values ``[n, ...]`` once for each rollout of a sample; what is not a tensor stays as it is."""
        # Rows of one sample are adjacent, as the leave-one-out baseline needs them.
        return {
            name: value.repeat_interleave(self.samples, 0) if isinstance(value, Tensor) and self.samples > 1 else value
            for name, value in values.items()
        }

    def terms(self, divergences: dict[str, Tensor], rollout: PairedRollout) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the loss terms by node, ``[n]`` each, targets first.

        Args:
            divergences: Divergences of all targets and compared latents by node, ``[n * samples]``.
            rollout: What they were computed from.
        """
        return divergences


class StraightThrough(GradientEstimator):
    """Hard values whose gradient is that of their probabilities: biased, without further variance.

    On 60 random binary models the cosine with the exact gradient was 0.87 in the mean, that of the latents' own losses
    0.07, which is why this is the default.
    """

    sampler = staticmethod(straight_through)


class GumbelSoftmax(GradientEstimator):
    """Relaxed values between the hard ones.

    Args:
        temperature: Temperature, finite and > 0.

    Raises:
        ConfigError: If the temperature is out of range.
    """

    # The student then has other latents than when samples are drawn.
    missing_bound = "estimator=gumbel, whose latents are relaxed"

    def __init__(self, temperature: float) -> None:
        self.sampler = gumbel_softmax(temperature)


class Reinforce(GradientEstimator):
    """Score-function gradients with a leave-one-out baseline: unbiased, with more variance.

    Args:
        samples: Rollouts of each sample of a batch, >= 2; the baseline of one is the mean of the others.

    Raises:
        ConfigError: If there are fewer than 2.
    """

    # The probability of the student's bit is taken given the teacher's bit and the student's own earlier latents.
    allows_mixed_latents = False

    def __init__(self, samples: int) -> None:
        self.samples = validation.integer("samples", samples, 2)

    def terms(self, divergences: dict[str, Tensor], rollout: PairedRollout) -> dict[str, Tensor]:
        """Return means over the samples; those of targets carry the gradient of their expectations."""
        teacher, student = rollout.teacher, rollout.student
        of_targets = {name: divergences[name] for name in student.targets()}
        of_latents = {name: value for name, value in divergences.items() if name not in of_targets}
        means = reinforce(of_targets, rollout.pair, teacher, student, samples=self.samples)
        return means | {name: value.reshape(-1, self.samples).mean(1) for name, value in of_latents.items()}


class Enumeration(GradientEstimator):
    """Exact expectations over the discrete latents and their exact gradients, for models with few states.

    Args:
        divergence: Divergence of targets.
    """

    # Pairs of states are weighted as if the student read its own latents.
    allows_mixed_latents = False

    def __init__(self, divergence: str) -> None:
        self.divergence = divergence

    def terms(self, divergences: dict[str, Tensor], rollout: PairedRollout) -> dict[str, Tensor]:
        """Return the divergences with those of targets replaced by their expectations."""
        return divergences | enumerated_divergences(
            rollout.teacher,
            rollout.student,
            rollout.pair.teacher,
            rollout.noise,
            rollout.inputs,
            kind=self.divergence,
        )


def make_estimator(name: str, *, temperature: float, samples: int, divergence: str) -> GradientEstimator:
    """Return an estimator by the name that configurations use.

    Args:
        name: ``none``, ``straight_through``, ``gumbel``, ``reinforce`` or ``enumerate``.
        temperature: See :class:`GumbelSoftmax`.
        samples: See :class:`Reinforce`.
        divergence: See :class:`Enumeration`.

    Raises:
        ConfigError: If the name is unknown, or an argument is out of range, whether or not the estimator uses it.
    """
    # All are made, so that a setting out of range is found even where it has no effect.
    estimators = {
        "none": GradientEstimator(),
        "straight_through": StraightThrough(),
        "gumbel": GumbelSoftmax(temperature),
        "reinforce": Reinforce(samples),
        "enumerate": Enumeration(divergence),
    }
    return estimators[validation.choice("estimator", name, tuple(estimators))]
