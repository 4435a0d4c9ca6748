"""Training of an adversarial autoencoder, whose codes follow the prior by a discriminator (Makhzani et al. 2016).

With an encoder q(z | x), generator G, a discriminator D of codes, and samples x of the data, the terms are

    reconstruction  sum of (G(z) - x)^2 / 2 over the elements, with z from q(z | x)
    generator       E l_G(D(z)), with z from q(z | x)
    real            E l_r(D(z)), with z from N(0, I)
    generated       E l_g(D(z)), with z from q(z | x)
    penalty         of the gradient of D, if there is one

The term ``reconstruction`` trains encoder and generator, ``generator`` the encoder alone, and the last three the
discriminator. Where a VAE has the divergence of each code from the prior, the aggregate of all codes is compared here.
"""

from dataclasses import replace
from typing import ClassVar, NamedTuple

from torch import Tensor

from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers.generative.adversarial import Adversarial
from kdzoo.distillers.generative.encoded_adversarial import EncodedAdversarial
from kdzoo.functional.adversarial import discriminator_loss, generator_loss


class Played(NamedTuple):
    """What the terms are computed from.

    Attributes:
        drawn: Codes of the prior, ``[b, latent]``.
        encoded: Codes of the batch's samples, ``[b, latent]``, with gradients to the encoder.
        reconstructions: The generator's samples for the encoded codes, ``[b, ...]``.
    """

    drawn: Tensor
    encoded: Tensor
    reconstructions: Tensor


class AdversarialAutoencoder(EncodedAdversarial):
    """Train encoder and generator by reconstruction, and against a discriminator of codes.

    Args:
        student: A generator with an encoder and a discriminator of codes.
        teacher: Is not used.
        **options: See :class:`kdzoo.distillers.Adversarial`; the terms are ``reconstruction`` too.

    Raises:
        ConfigError: An argument is out of its range.
    """

    info: ClassVar[MethodInfo] = replace(
        Adversarial.info,
        terms={"reconstruction": 1.0, "generator": 1.0, "real": 1.0, "generated": 1.0, "penalty": 0.5},
        paper="Makhzani, Shlens, Jaitly, Goodfellow & Frey 2016, Adversarial autoencoders, section 2",
        bibtex="""@inproceedings{makhzani2016adversarial,
  title     = {Adversarial Autoencoders},
  author    = {Makhzani, Alireza and Shlens, Jonathon and Jaitly, Navdeep and Goodfellow, Ian and Frey, Brendan},
  booktitle = {International Conference on Learning Representations, workshop track},
  year      = {2016},
}""",
        student_kinds=("adversarial_autoencoder",),
    )

    def play(self, batch: Batch) -> Played:
        """Return codes of the prior and of the batch's samples, and reconstructions."""
        drawn = self.student.rollout(self._noise(batch), self._inputs(batch)).values["z"]
        trace = self.encode(batch)
        return Played(drawn, trace.values["z"], trace.distributions["image"].mean)

    def player_losses(self, batch: Batch, played: Played) -> dict[str, Tensor]:
        """Return the losses of encoder and generator."""
        difference = (played.reconstructions - self._real(batch)).flatten(1)
        logits = self.student.discriminate(played.encoded, self._inputs(batch))
        return {
            "reconstruction": difference.square().sum(1) / 2,
            "generator": generator_loss(logits, form=self.form),
        }

    def opponent_losses(self, batch: Batch, played: Played) -> dict[str, Tensor]:
        """Return the discriminator's losses on codes of the prior and of the data, and the penalty."""
        inputs, drawn, encoded = self._inputs(batch), played.drawn.detach(), played.encoded.detach()
        real_loss, generated_loss = discriminator_loss(
            self.student.discriminate(drawn, inputs), self.student.discriminate(encoded, inputs), form=self.form
        )
        return {"real": real_loss, "generated": generated_loss, "penalty": self._penalty(batch, drawn, encoded)}
