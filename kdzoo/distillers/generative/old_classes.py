"""What continual learning does so that the classes of earlier tasks are not forgotten.

Only the model as it was after the last task is left of the old classes. Its samples of an old class can be used in two
ways: their distributions are matched node by node, or they serve as data.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.batch import Batch, n_samples
from kdzoo.core.inference import inference
from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.distillers.generative.node_divergences import NodeDivergences
from kdzoo.graphical_models import Graph
from kdzoo.graphical_models.paired import Pair, rollout_student, rollout_teacher

OLD_CLASS = "old_class"
"""Key in a batch of one uniform number for each sample, which chooses one of the old classes."""
# Purposes of noise in a batch, in addition to the noise of the new samples' posteriors.
_ROLLOUT, _REPLAY = "old_", "replayed_"


class OldClasses:
    """Nothing is done for the old classes (fine-tuning), and the base class of what does something.

    Attributes:
        are_used: Whether there are terms of old classes.
    """

    are_used: ClassVar[bool] = False

    def draw(self, student: Graph, n: int, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return further tensors for a batch of n samples, in addition to the noise of new classes, by name."""
        return {}

    def terms(self, student: Graph, previous: Graph, batch: Batch, classes: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the loss terms of as many samples of old classes as the batch has, by node, ``[b]`` each.

        Args:
            student: The model that learns.
            previous: The model after the last task.
            batch: The batch; noise that it lacks is drawn.
            classes: The old classes, int64 ``[k]``.
        """
        return {}

    def weighted_latents(self, student: Graph) -> list[str]:  # noqa: ARG002
        """Return the names of latents whose terms have the weight ``latent_weight``."""
        return []


class _SampledOldClasses(OldClasses):
    """Uses samples of old classes, which are drawn with equal probabilities."""

    are_used = True

    def draw(self, student: Graph, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = pack_noise(student.noise(n, generator=generator), _ROLLOUT)
        return drawn | {OLD_CLASS: torch.rand(n, generator=generator)}

    def _condition(self, student: Graph, batch: Batch, classes: Tensor) -> tuple[Tensor, Mapping[str, Tensor], Batch]:
        """Return the class of each sample, the values of the inputs, and the noise of the rollouts."""
        n = n_samples(batch)
        noise = unpack_noise(batch, _ROLLOUT) or student.noise(n)
        uniform = batch[OLD_CLASS] if OLD_CLASS in batch else torch.rand(n, device=classes.device)
        # A uniform number just below 1 times the number of classes may be rounded up to it.
        target = classes[(uniform * len(classes)).long().clamp_max(len(classes) - 1)]
        return target, student.observed({**batch, "target": target}, student.inputs()), noise


class DistilledOldClasses(_SampledOldClasses):
    """Match the previous model's distributions on shared noise (Chen et al. 2023).

    Args:
        divergences: How nodes are compared.
    """

    def __init__(self, divergences: NodeDivergences) -> None:
        self.divergences = divergences

    def terms(self, student: Graph, previous: Graph, batch: Batch, classes: Tensor) -> dict[str, Tensor]:
        """Return the surrogate loss of the targets and the losses of the latents."""
        _, inputs, noise = self._condition(student, batch, classes)
        with inference(previous):
            trace = rollout_teacher(previous, noise, inputs)
        return self.divergences(Pair(trace, rollout_student(student, trace, noise, inputs)), student)

    def weighted_latents(self, student: Graph) -> list[str]:
        """Return the latents that have parameters, such as the learned prior of each class in the topmost latent."""
        return [name for name, latent in student.latents().items() if latent.is_learned]


class ReplayedOldClasses(_SampledOldClasses):
    """Train on samples of the previous model as if they were data.

    Targets that no node depends on are replayed by their means: the noise of pixels around them is not learned either.

    References:
        Shin, Lee, Kim & Kim 2017, Continual learning with deep generative replay.
    """

    def draw(self, student: Graph, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return also the noise of the posteriors of the replayed samples."""
        drawn = super().draw(student, n, generator)
        return drawn | pack_noise(student.elbo_noise(n, generator=generator), _REPLAY)

    def terms(self, student: Graph, previous: Graph, batch: Batch, classes: Tensor) -> dict[str, Tensor]:
        """Return the terms of the negative evidence lower bound of the samples."""
        target, inputs, noise = self._condition(student, batch, classes)
        with inference(previous):
            samples = previous.samples(noise, inputs)
        posterior_noise = unpack_noise(batch, _REPLAY) or student.elbo_noise(n_samples(batch))
        return student.negative_elbo({**batch, "input": samples, "target": target}, posterior_noise)


def make_old_classes(name: str, divergences: NodeDivergences) -> OldClasses:
    """Return a treatment of old classes by the name that configurations use.

    Args:
        name: ``distil``, ``replay`` or ``nothing``.
        divergences: See :class:`DistilledOldClasses`.

    Raises:
        ConfigError: If the name is unknown.
    """
    ways = {"distil": DistilledOldClasses(divergences), "replay": ReplayedOldClasses(), "nothing": OldClasses()}
    return ways[validation.choice("old", name, tuple(ways))]
