"""Training of a VAE/GAN: reconstructions are compared by the features of a discriminator (Larsen et al. 2016).

With an encoder q(z | x), generator G, discriminator D with features f, and samples x of the data, the terms are

    latent          KL(q(z | x) || N(0, I))
    reconstruction  sum of (f(G(z)) - f(x))^2 / 2 over the features, with z from q(z | x)
    generator       E l_G(D(G(z))), with z from N(0, I) and from q(z | x)
    real            E l_r(D(x))
    generated       E l_g(D(G(z))), with z from both
    penalty         of the gradient of D, if there is one

As in the paper, ``latent`` trains the encoder, ``reconstruction`` encoder and generator, ``generator`` the generator
alone, and the last three the discriminator alone. Where the paper has the sum over both sorts of generated samples,
``generator`` and ``generated`` are means, so that real and generated samples weigh the same. The authors weight the
reconstruction by gamma in the generator's loss; since Adam's steps do not depend on the scale of a loss, that is the
weight 2 / gamma of ``generator``.
"""

from dataclasses import replace
from typing import ClassVar, NamedTuple

from torch import Tensor
from torch.distributions import Distribution

from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers.generative.adversarial import Adversarial
from kdzoo.distillers.generative.encoded_adversarial import EncodedAdversarial
from kdzoo.functional.adversarial import discriminator_loss, generator_loss
from kdzoo.graphical_models.divergences import divergence, per_sample


class Played(NamedTuple):
    """What the terms are computed from.

    Attributes:
        posterior: Distribution of the codes of the batch's samples.
        prior: Distribution of the codes before a sample is seen.
        reconstructions: The generator's samples for codes of the posterior, with gradients to the encoder.
        generated: The generator's samples for codes of the prior and of the posterior, without.
    """

    posterior: Distribution
    prior: Distribution
    reconstructions: Tensor
    generated: tuple[Tensor, Tensor]


class VAEGAN(EncodedAdversarial):
    """Train encoder and generator against a discriminator whose features measure the reconstruction.

    Args:
        student: A generator with a discriminator and an encoder.
        teacher: Is not used.
        **options: See :class:`kdzoo.distillers.Adversarial`; the terms are ``latent`` and ``reconstruction`` too.

    Raises:
        ConfigError: An argument is out of its range.
    """

    info: ClassVar[MethodInfo] = replace(
        Adversarial.info,
        terms={
            "latent": 1.0,
            "reconstruction": 1.0,
            "generator": 1.0,
            "real": 1.0,
            "generated": 1.0,
            "penalty": 0.5,
        },
        paper="Larsen, Sonderby, Larochelle & Winther 2016, Autoencoding beyond pixels using a learned similarity "
        "metric, algorithm 1",
        bibtex="""@inproceedings{larsen2016autoencoding,
  title     = {Autoencoding beyond pixels using a learned similarity metric},
  author    = {Larsen, Anders Boesen Lindbo and S{\\o}nderby, S{\\o}ren Kaae and Larochelle, Hugo and Winther, Ole},
  booktitle = {International Conference on Machine Learning},
  year      = {2016},
}""",
        student_kinds=("vae_gan",),
    )

    def play(self, batch: Batch) -> Played:
        """Return reconstructions of the batch's samples, and generated samples."""
        inputs, trace = self._inputs(batch), self.encode(batch)
        codes = trace.values["z"].detach()
        from_codes = self.student.rollout({}, inputs, forced={"z": codes}).distributions["image"].mean
        return Played(
            trace.posteriors["z"],
            trace.distributions["z"],
            trace.distributions["image"].mean,
            (self.student.samples(self._noise(batch), inputs), from_codes),
        )

    def player_losses(self, batch: Batch, played: Played) -> dict[str, Tensor]:
        """Return the losses of encoder and generator."""
        features, inputs = self.student.discriminator.features, self._inputs(batch)
        distance = features(played.reconstructions) - features(self._real(batch))
        first, second = (
            generator_loss(self.student.discriminate(samples, inputs), form=self.form) for samples in played.generated
        )
        return {
            "latent": per_sample(divergence("kl", played.posterior, played.prior), "sum"),
            "reconstruction": distance.square().sum(1) / 2,
            "generator": (first + second) / 2,
        }

    def opponent_losses(self, batch: Batch, played: Played) -> dict[str, Tensor]:
        """Return the discriminator's losses on real samples and on both sorts of generated ones, and the penalty."""
        inputs, real = self._inputs(batch), self._real(batch)
        real_logits = self.student.discriminate(real, inputs)
        (real_loss, first), (_, second) = (
            discriminator_loss(real_logits, self.student.discriminate(samples.detach(), inputs), form=self.form)
            for samples in played.generated
        )
        penalty = self._penalty(batch, real, played.generated[0])
        return {"real": real_loss, "generated": (first + second) / 2, "penalty": penalty}
