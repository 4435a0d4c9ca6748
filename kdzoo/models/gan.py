"""Generative adversarial network: an image as a function of noise, and a discriminator (Goodfellow et al. 2014)."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Bernoulli, Categorical, Delta, Graph, Latent, Normal, Target
from kdzoo.graphical_models.families import Family
from kdzoo.models.averaged import AveragedNetwork
from kdzoo.models.encoder_decoder import decoder_and_encoder
from kdzoo.models.hvae import Perceptron, condition_nodes, condition_size
from kdzoo.models.image_networks import Downsampling
from kdzoo.models.spectral_norm import SpectralNorm

OUTPUTS = ("sigmoid", "linear", "bits", "classes")
DISCRIMINATED = ("image", "code")
# Slope of the leaky ReLU below 0 in discriminators, as in Radford et al. 2016, section 3.
SLOPE = 0.2


class Discriminator(nn.Module):
    """A network that tells real from generated samples, with an inner product with the class where there is one.

    Args:
        in_shape: Shape of one sample.
        classes: Number of classes of the condition; 0 without one.
        network: ``conv`` or ``mlp``.
        width: Channels after the first convolution, which each further one doubles, or units of each hidden layer.
        depth: Number of convolutions of stride 2, or of hidden layers, >= 1.
        spectral_norm: Whether all layers but the embedding of the class have spectral norm 1.

    Attributes:
        n_features: Number of features before the last layer.
        has_unit_norm: Whether all layers but the embedding of the class have spectral norm 1.

    References:
        Miyato, Koyama: cGANs with projection discriminator. ICLR 2018, equation 3.
    """

    def __init__(
        self, in_shape: tuple[int, ...], classes: int, *, network: str, width: int, depth: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        self.body: nn.Module
        if network == "conv":
            self.body = Downsampling(in_shape, width=width, depth=depth)
            self.n_features = prod(self.body.out_shape)
        else:
            self.body = Perceptron([prod(in_shape), *[width] * depth], relu_output=True)
            self.n_features = width
        _make_leaky(self.body)
        self.head: nn.Module = nn.Linear(self.n_features, 1)
        self.label = nn.Linear(classes, self.n_features, bias=False) if classes else None
        self.has_unit_norm = spectral_norm
        if spectral_norm:
            _normalise_layers(self.body)
            self.head = SpectralNorm(self.head)

    def features(self, samples: Tensor) -> Tensor:
        """Return the features ``[n, n_features]`` of samples ``[n, *in_shape]``."""
        return self.body(samples).flatten(1)

    def forward(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Return logits ``[n]`` of samples ``[n, *in_shape]`` with one-hot classes ``[n, classes]``."""
        features = self.features(samples)
        logits = self.head(features)[:, 0]
        if self.label is None:
            return logits
        return logits + (self.label(label) * features).sum(1)


def _make_leaky(module: nn.Module) -> None:
    """Replace the rectifiers inside of a module by leaky ones, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.LeakyReLU(SLOPE))
        else:
            _make_leaky(child)


def _normalise_layers(module: nn.Module) -> None:
    """Replace linear and convolutional layers inside of a module by ones of spectral norm 1, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear | nn.Conv2d):
            setattr(module, name, SpectralNorm(child))
        else:
            _normalise_layers(child)


class GAN(Graph):
    """Generator and discriminator, with or without a class as condition.

    The nodes are the latent ``z``, standard normal, and the target ``image``, a function of ``z``; with a condition
    also the input ``label``, a one-hot class, which is concatenated to ``z``. Samples do not depend on the
    discriminator. In eval mode they are those of a moving average of the generator's weights.

    With ``output=bits`` and ``output=classes`` a sample is discrete: its values are independent given ``z``, and the
    generator returns their logits. Discrete samples have noise of their own, beside that of ``z``.

    Args:
        in_shape: Shape of one sample without the batch dimension.
        num_classes: Number of classes, >= 1; used, and required, only with a condition.
        latent: Number of values of ``z``, >= 1.
        network: Networks of both players: ``conv`` for images, ``mlp`` for samples of any shape.
        width: Channels of the largest feature map of the generator, which each further one doubles, or units of each of
            its hidden layers, >= 1.
        depth: Number of doublings of the image, or of hidden layers, >= 1.
        norm: Normalisation of the generator's convolutions: ``batch``, ``instance`` or None.
        output: Range of a sample's values: ``sigmoid`` for [0, 1], ``linear`` for any, ``bits`` for 0 and 1 (data
            above 1/2 are 1), ``classes`` for one-hot vectors along the last dimension of ``in_shape``.
        discriminator_width: ``width`` of the discriminator, >= 1.
        spectral_norm: Whether the discriminator's layers have spectral norm 1.
        average: Weight of the old average of the generator in each step, in [0, 1); 0 uses the present weights.
        encoder: Whether an encoder infers ``z`` from images, as the training of a VAE/GAN needs it
            (:class:`kdzoo.distillers.VAEGAN`).
        discriminated: What the discriminator tells apart: real from generated samples (``image``), or draws of the
            prior from the codes of samples (``code``), as in an adversarial autoencoder, which needs an encoder
            (:class:`kdzoo.distillers.AdversarialAutoencoder`).
        conditional: Whether the model reads the batch's ``target``, a class.

    Attributes:
        is_bounded: Whether all values of samples are in [0, 1].
        discriminates_codes: Whether the discriminator tells codes apart rather than samples.

    Raises:
        ConfigError: If an argument is outside its range, there is a condition without classes, discrete samples are
            to be encoded, or codes are to be told apart without an encoder.

    Example:
        >>> import torch
        >>> model = GAN(in_shape=(1, 8, 8), latent=4)
        >>> samples = model(torch.zeros(2, 1, 8, 8))  # as many new images as there are inputs
        >>> samples.shape, model.discriminate(samples, {}).shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2]))

    References:
        Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio: Generative adversarial nets.
        NeurIPS 2014.
        Mirza, Osindero: Conditional generative adversarial nets. arXiv:1411.1784, 2014.
        Radford, Metz, Chintala: Unsupervised representation learning with deep convolutional generative adversarial
        networks. ICLR 2016, arXiv:1511.06434.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int | None = None,
        latent: int = 16,
        network: str = "conv",
        width: int = 32,
        depth: int = 2,
        norm: str | None = "batch",
        output: str = "sigmoid",
        discriminator_width: int = 32,
        spectral_norm: bool = False,
        average: float = 0.999,
        encoder: bool = False,
        discriminated: str = "image",
        conditional: bool = False,
    ) -> None:
        shape = validation.integers("in_shape", in_shape)
        classes, latent = condition_size(num_classes, conditional), validation.integer("latent", latent)
        label = ("label",) if classes else ()
        encodes = validation.flag("encoder", encoder)
        family = _family(output, shape, encodes=encodes)
        generator, posterior = decoder_and_encoder(
            network, shape, shape, latent=latent, classes=classes, width=width, depth=depth, norm=norm
        )
        encoding = (posterior, ("image", *label)) if encodes else (None, ())
        image = AveragedNetwork(_Generator(generator, nn.Sigmoid() if output == "sigmoid" else nn.Identity()), average)
        super().__init__(
            [
                *condition_nodes(classes),
                Latent("z", Normal((latent,)), posterior=encoding[0], posterior_parents=encoding[1]),
                Target("image", family, image, ("z", *label), source="input"),
            ]
        )
        self.is_bounded = output == "sigmoid"
        self.discriminates_codes = validation.choice("discriminated", discriminated, DISCRIMINATED) == "code"
        if self.discriminates_codes and not encodes:
            raise ConfigError("discriminated='code' needs encoder=true, which infers the codes")
        self.discriminator = Discriminator(
            (latent,) if self.discriminates_codes else shape,
            classes,
            network="mlp" if self.discriminates_codes else network,
            width=validation.integer("discriminator_width", discriminator_width),
            depth=depth,
            spectral_norm=validation.flag("spectral_norm", spectral_norm),
        )

    @property
    def has_encoder(self) -> bool:
        """Whether codes of images can be inferred."""
        return self.latents()["z"].posterior is not None

    @property
    def is_discrete(self) -> bool:
        """Whether the values of samples are discrete."""
        return self.targets()["image"].family.is_discrete

    def noise(
        self, n: int, *, generator: torch.Generator | None = None, steps: int | None = None, leaves: bool = False
    ) -> dict[str, Tensor]:
        """Draw the noise of n samples, ``[n, ...]`` by node; see :meth:`kdzoo.graphical_models.Graph.noise`.

        Bits and classes are drawn: their mean would not be one of the values that a discriminator compares.
        """
        return super().noise(n, generator=generator, steps=steps, leaves=leaves or self.is_discrete)

    def observed_targets(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the images of a batch; for bits they are 1 above 1/2."""
        observed = super().observed_targets(batch, noise)
        if not isinstance(self.targets()["image"].family, Bernoulli):
            return observed
        return {"image": (observed["image"] > 0.5).to(self.like)}

    def log_prob(
        self, samples: Tensor, noise: Mapping[str, Tensor], inputs: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the log-probability of discrete samples given the latent's noise and the conditions, ``[n]``.

        It is the sum over the values of a sample, which are independent given ``z``.
        """
        trace = self.rollout({"z": noise["z"]}, inputs, forced={"image": samples})
        return trace.distributions["image"].log_prob(samples).flatten(1).sum(1)

    def discriminate(self, samples: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the discriminator's logits ``[n]``.

        Args:
            samples: Samples ``[n, *in_shape]``, or codes ``[n, latent]`` if the discriminator tells these apart.
            inputs: Values of the inputs by node.
        """
        return self.discriminator(samples, inputs.get("label"))

    def as_data(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the image."""
        return values["image"]

    def inference_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of encoder and discriminator, which do not affect samples."""
        yield from super().inference_parameters()
        yield from self.discriminator.parameters()


def _family(output: str, shape: tuple[int, ...], *, encodes: bool) -> Family:
    """Return the family of samples by the name of their range; samples that are encoded cannot be discrete."""
    if validation.choice("output", output, OUTPUTS) in ("bits", "classes") and encodes:
        raise ConfigError(f"encoder=true needs output=sigmoid or output=linear, got output={output!r}")
    match output:
        case "bits":
            return Bernoulli(shape)
        case "classes":
            # By Gumbel noise, so that samples can be relaxed.
            return Categorical(shape, gumbel=True)
        case _:
            return Delta(shape)


class _Generator(nn.Module):
    """A network on concatenated vectors and the map of its output to the range of the samples."""

    def __init__(self, body: nn.Module, output: nn.Module) -> None:
        super().__init__()
        self.body, self.output = body, output

    def forward(self, *values: Tensor) -> Tensor:
        return self.output(self.body(*values))
