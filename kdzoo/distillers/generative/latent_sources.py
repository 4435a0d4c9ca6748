"""The source of the latents that the student's nodes read in a paired rollout: student, teacher, or a mixture.

With its own latents the student is trained on the errors of its earlier layers, so that later layers can correct them;
this is the method of Chen et al. 2023. With the teacher's latents each node is trained independently (local
distillation), and errors accumulate over layers when samples are drawn.
"""

from collections.abc import Collection
from typing import ClassVar

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.batch import Batch, n_samples

LATENT_CHOICE = "latent_choice"
"""Key of a batch: a uniform number per sample, which decides whose latents the sample takes in a mixture."""


class LatentSource:
    """The student's own latents, and the base class of other sources.

    Attributes:
        mixing: Share of the training after which no sample takes the teacher's latents; 0 for a source that is the same
            in the whole training.
        missing_bound: Why the surrogate loss does not bound the divergence of the marginals; empty if it does.
    """

    mixing: float = 0.0
    missing_bound: ClassVar[str] = ""

    def teacher_latents(
        self,
        names: Collection[str],  # noqa: ARG002
        batch: Batch,  # noqa: ARG002
        elapsed: float,  # noqa: ARG002
    ) -> dict[str, Tensor | bool]:
        """Return the latents that take the teacher's value, for all samples (True) or for some (bool ``[b]``).

        Args:
            names: Latents that both models have.
            batch: The batch.
            elapsed: Fraction of the mixing period that has passed, in [0, 1].
        """
        return {}


class TeacherLatents(LatentSource):
    """The teacher's latents for every sample: local distillation."""

    def teacher_latents(
        self,
        names: Collection[str],
        batch: Batch,  # noqa: ARG002
        elapsed: float,  # noqa: ARG002
    ) -> dict[str, Tensor | bool]:
        """Return True for every latent."""
        return dict.fromkeys(names, True)


class MixedLatents(LatentSource):
    """The teacher's latents for a share of the samples that falls linearly from 1 to 0.

    Args:
        mixing: Share of the training over which it falls, in (0, 1].

    Raises:
        ConfigError: If ``mixing`` is out of range.
    """

    missing_bound = "latents_from=mixed while some samples take the teacher's latents"

    def __init__(self, mixing: float) -> None:
        self.mixing = validation.number("mixing", validation.positive("mixing", mixing), 0.0, 1.0)

    def teacher_latents(self, names: Collection[str], batch: Batch, elapsed: float) -> dict[str, Tensor | bool]:
        """Return, for every latent, the mask of the samples that take the teacher's value."""
        choice = batch[LATENT_CHOICE] if LATENT_CHOICE in batch else _draw_choice(batch)
        return dict.fromkeys(names, choice < 1 - elapsed)


def make_latent_source(name: str, *, mixing: float) -> LatentSource:
    """Return a source by the name that configurations use.

    Args:
        name: ``student``, ``teacher`` or ``mixed``.
        mixing: See :class:`MixedLatents`.

    Raises:
        ConfigError: If the name is unknown, or ``mixing`` is out of range, whether or not the source uses it.
    """
    # All sources are built, so that a setting out of range is rejected even where it has no effect.
    sources = {"student": LatentSource(), "teacher": TeacherLatents(), "mixed": MixedLatents(mixing)}
    return sources[validation.choice("latents_from", name, tuple(sources))]


def _draw_choice(batch: Batch) -> Tensor:
    """Draw the uniform numbers of a batch that has none, ``[b]``."""
    return torch.rand(n_samples(batch)).to(batch["input"].device, non_blocking=True)
