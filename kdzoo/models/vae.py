"""Variational autoencoder of images with one latent (Kingma & Welling 2014), with or without a class as condition.

The code z is standard normal, and the pixels are independent given z. The posterior is normal with independent values
mu(x) + sigma(x) eps, eps ~ N(0, 1), so that the gradient reaches mu and sigma through a sample (equation 10 of the
paper). With a condition (Sohn, Lee & Yan 2015) posterior and pixels also read the class, while the prior of z does not
depend on it: z then describes what the class leaves open, the style, and the same z can be decoded with another class.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.graphical_models import Bernoulli, Graph, Latent, Normal, Target
from kdzoo.graphical_models.families import Family
from kdzoo.models.encoder_decoder import decoder_and_encoder
from kdzoo.models.hvae import SCALE, condition_nodes, condition_size

PIXELS = ("bernoulli", "binarised", "normal")


class VAE(Graph):
    """Variational autoencoder with one latent, ``z``, and the target ``image``; with a condition the input ``label``.

    Args:
        in_shape: Shape of one image without the batch dimension.
        num_classes: Number of classes, >= 1; used, and required, only with a condition.
        latent: Number of values of z, >= 1.
        network: ``mlp``: fully connected layers with ReLU; ``conv``: strided and transposed convolutions
            (:mod:`kdzoo.models.image_networks`), for images ``[channels, height, width]``.
        width: Units of each hidden layer of ``mlp``, or channels of the largest feature map of ``conv``, >= 1.
        depth: Hidden layers of ``mlp``, or halvings of the image of ``conv``, in encoder and decoder each, >= 1.
        pixels: ``bernoulli``: data in [0, 1], of which the loss is the cross entropy; ``binarised``: the same, but the
            bound is that of bits, drawn anew for every sample and epoch with the grey values as probabilities
            (Salakhutdinov & Murray 2008), as published bounds of MNIST are; ``normal``: any data.
        scale: Deviation of ``normal`` pixels given z, > 0; None: that of each pixel is learned.
        conditional: Whether the model reads the batch's ``target``, a class.

    Raises:
        ConfigError: If an argument is outside its range, or there is a condition without classes.

    Example:
        >>> model = VAE(in_shape=(1, 28, 28), latent=2)
        >>> model(torch.zeros(3, 1, 28, 28)).shape  # as many new images as there are inputs
        torch.Size([3, 1, 28, 28])

    References:
        Kingma, Welling: Auto-encoding variational Bayes. ICLR 2014, arXiv:1312.6114.
        Sohn, Lee, Yan: Learning structured output representation using deep conditional generative models. NIPS 2015.
        Salakhutdinov, Murray: On the quantitative analysis of deep belief networks. ICML 2008.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int | None = None,
        latent: int = 8,
        network: str = "mlp",
        width: int = 64,
        depth: int = 2,
        pixels: str = "bernoulli",
        scale: float | None = SCALE,
        conditional: bool = False,
    ) -> None:
        shape = validation.integers("in_shape", in_shape)
        latent, classes = validation.integer("latent", latent), condition_size(num_classes, conditional)
        family: Family = Bernoulli(shape)
        if validation.choice("pixels", pixels, PIXELS) == "normal":
            family = Normal(shape, None if scale is None else validation.positive("scale", scale))
        decoder, encoder = decoder_and_encoder(
            network, shape, family.raw_shape, latent=latent, classes=classes, width=width, depth=depth
        )
        label = ("label",) if classes else ()
        super().__init__(
            [
                *condition_nodes(classes),
                Latent("z", Normal((latent,)), posterior=encoder, posterior_parents=("image", *label)),
                Target("image", family, decoder, ("z", *label), source="input"),
            ]
        )
        self.is_binarised = pixels == "binarised"

    def elbo_noise(self, n: int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw the noise of z, and for ``binarised`` pixels that of the bits."""
        return self.noise(n, generator=generator, leaves=self.is_binarised)

    def observed_targets(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the images of a batch; for ``binarised`` pixels bits that are 1 with the grey value as probability."""
        observed = super().observed_targets(batch, noise)
        if not self.is_binarised:
            return observed
        return {"image": (noise["image"].to(self.like) < observed["image"]).to(self.like)}
