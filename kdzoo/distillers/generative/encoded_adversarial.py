"""The base of adversarial methods that train an encoder as well, whose codes have noise of their own."""

from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch, n_samples
from kdzoo.distillers.generative.adversarial import Adversarial
from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.graphical_models.graph import Trace
from kdzoo.models.gan import GAN

# Noise of the codes that the encoder draws, beside that of the codes from the prior.
_ENCODED = "encoded_"


class EncodedAdversarial(Adversarial):
    """Base of adversarial methods with an encoder.

    Args:
        student: A generator with a discriminator and an encoder.
        teacher: Is not used.
        **options: See :class:`kdzoo.distillers.Adversarial`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    student: GAN

    def __init__(self, student: GAN, teacher: nn.Module | None = None, **options: Any) -> None:
        super().__init__(student, teacher, **options)

    def on_train_start(self) -> None:
        """Note in the student that its encoder is trained, so that reports measure and draw what it infers."""
        self.student.posteriors_trained.fill_(True)

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the random numbers of a step on n samples, as the tensors of a batch."""
        encoded = pack_noise(self.student.noise(n, generator=generator), _ENCODED)
        return super().draw_noise(n, generator) | encoded

    def encode(self, batch: Batch) -> Trace:
        """Return codes of the batch's samples, their distribution, and the generator's samples for these codes."""
        noise = unpack_noise(batch, _ENCODED) or self.student.noise(n_samples(batch))
        return self.student.rollout(noise, self._inputs(batch), forced={"image": self._real(batch)}, infer=True)
