"""Generators that are trained against a discriminator, of samples or of the codes of an encoder."""

from typing import ClassVar

from torch import nn

from kdzoo.kinds.graphical_model import GraphicalModelKind
from kdzoo.models.gan import GAN


class _WithDiscriminator(GraphicalModelKind):
    """Graphical models whose image is a function of noise, with a discriminator."""

    def check_teacher_free(self, model: nn.Module) -> None:
        """Accept every student: a discriminator needs no posteriors."""


class AdversarialKind(_WithDiscriminator):
    """Generators with a discriminator."""

    name: ClassVar[str] = "adversarial"
    needs: ClassVar[str] = "a kdzoo.models.GAN without an encoder"
    teacher_free: ClassVar[str | None] = "kdzoo.distillers.Adversarial"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether a model is a generator with a discriminator and without an encoder."""
        return isinstance(model, GAN) and not model.has_encoder


class VAEGANKind(_WithDiscriminator):
    """Generators with a discriminator and an encoder, which the discriminator's features train."""

    name: ClassVar[str] = "vae_gan"
    needs: ClassVar[str] = "a kdzoo.models.GAN with an encoder and a discriminator of samples"
    teacher_free: ClassVar[str | None] = "kdzoo.distillers.VAEGAN"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether a model is a generator with an encoder and a discriminator of samples."""
        return isinstance(model, GAN) and model.has_encoder and not model.discriminates_codes


class AdversarialAutoencoderKind(_WithDiscriminator):
    """Generators with an encoder and a discriminator of codes."""

    name: ClassVar[str] = "adversarial_autoencoder"
    needs: ClassVar[str] = "a kdzoo.models.GAN whose discriminator tells codes apart"
    teacher_free: ClassVar[str | None] = "kdzoo.distillers.AdversarialAutoencoder"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether a model is a generator with an encoder and a discriminator of codes."""
        return isinstance(model, GAN) and model.discriminates_codes
