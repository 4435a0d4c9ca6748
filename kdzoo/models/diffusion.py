"""Denoising diffusion model (Ho et al. 2020) as a graph: noise of the data's shape, and the sample made of it by DDIM.

The sampler is deterministic, so that a sample is a function of its noise ``z`` and models that share the noise can be
compared in pairs. :mod:`kdzoo.functional.diffusion` has the mathematics and the notation.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.weight_average import set_weights
from kdzoo.functional import diffusion
from kdzoo.graphical_models import Delta, Graph, Latent, Normal, Target
from kdzoo.graphical_models.graph import Values
from kdzoo.models.averaged import AveragedNetwork
from kdzoo.models.denoisers import PointDenoiser, UNet
from kdzoo.models.hvae import condition_nodes, condition_size

PREDICTIONS = ("velocity", "noise")


class Denoiser(AveragedNetwork):
    """Predicts the velocity of noisy samples; in eval mode with the average of the weights over the training.

    Args:
        network: Called with noisy samples ``[n, ...]``, angles ``[n]``, and a condition if there is one.
        prediction: What the network returns, ``velocity`` or ``noise``.
        decay: Decay of the average.
    """

    def __init__(self, network: nn.Module, prediction: str, decay: float) -> None:
        super().__init__(network, decay)
        self.prediction = prediction

    def raw(self, z: Tensor, angle: Tensor, *condition: Tensor) -> Tensor:
        """Return the network's own prediction ``[n, ...]``."""
        return super().forward(z, angle, *condition)

    def forward(self, z: Tensor, angle: Tensor, *condition: Tensor) -> Tensor:
        """Return the velocity ``[n, ...]``."""
        return self.as_velocity(self.raw(z, angle, *condition), z, angle)

    def as_velocity(self, predicted: Tensor, z: Tensor, angle: Tensor) -> Tensor:
        """Return the velocity that belongs to a prediction of the network."""
        return predicted if self.prediction == "velocity" else diffusion.velocity_from_noise(z, predicted, angle)


class Sampler(nn.Module):
    """The map from noise to samples in the scale of the data.

    Args:
        denoiser: Predicts velocities.
        steps: Steps of DDIM.

    Attributes:
        shift: Mean of the data, a scalar; a model computes with samples of mean 0 and deviation 1.
        scale: Deviation of the data, a scalar.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, denoiser: Denoiser, steps: int) -> None:
        super().__init__()
        self.denoiser, self.steps = denoiser, steps
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, noise: Tensor, *condition: Tensor) -> Tensor:
        """Return samples ``[n, ...]``."""
        z = diffusion.ddim(lambda z, angle: self.denoiser(z, angle, *condition), noise, self.steps)
        return z * self.scale + self.shift


class Diffusion(Graph):
    """Diffusion model on the cosine schedule, sampled by DDIM.

    The nodes are the latent ``z``, standard normal noise, and the target ``image``, a function of it; with a condition
    also the input ``label``. Vectors are denoised by fully connected layers, images by a U-Net. In eval mode, and when
    it is exported, the model uses an exponential moving average of its weights, which is a part of its state. Data are
    scaled to mean 0 and deviation 1 inside of the model (:meth:`calibrate`).

    :class:`kdzoo.distillers.ELBO` trains the model on data, with the simplified bound of Ho et al. 2020 (equation 14):
    the squared error of the network's prediction at a random time. For a predicted velocity this weights the error of
    the noise by 1 / SNR + 1.

    Args:
        in_shape: Shape of one sample without the batch, ``[d]`` or ``[channels, height, width]``.
        num_classes: Number of classes, >= 1; used, and required, only with a condition.
        steps: Steps of the sampler, >= 1.
        prediction: What the network returns: ``velocity``, or ``noise``, which is too inexact for a few steps, since
            the first of them starts where almost nothing but noise is left.
        width: Units of each hidden layer for vectors, or channels at full size for images, >= 1.
        depth: Hidden layers for vectors, or residual blocks at each size for images, >= 1.
        decay: Decay of the average of the weights, in [0, 1).
        conditional: Whether the model reads the batch's ``target``, a class.

    Raises:
        ConfigError: If an argument is outside its range, or there is a condition without classes.

    Example:
        >>> model = Diffusion(in_shape=(1, 8, 8), steps=2)
        >>> model(torch.zeros(3, 1, 8, 8)).shape  # as many new images as there are inputs
        torch.Size([3, 1, 8, 8])

    References:
        Ho, Jain, Abbeel: Denoising diffusion probabilistic models. NeurIPS 2020.
        Song, Meng, Ermon: Denoising diffusion implicit models. ICLR 2021.
        Salimans, Ho: Progressive distillation for fast sampling of diffusion models. ICLR 2022.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int | None = None,
        steps: int = 32,
        prediction: str = "velocity",
        width: int = 16,
        depth: int = 1,
        decay: float = 0.999,
        conditional: bool = False,
    ) -> None:
        shape = validation.integers("in_shape", in_shape)
        steps, width = validation.integer("steps", steps), validation.integer("width", width)
        depth = validation.integer("depth", depth)
        prediction = validation.choice("prediction", prediction, PREDICTIONS)
        classes = condition_size(num_classes, conditional)
        network = (UNet if len(shape) == 3 else PointDenoiser)(shape, width, depth, classes)
        sampler = Sampler(Denoiser(network, prediction, decay), steps)
        parents = ("z", "label") if classes else ("z",)
        super().__init__(
            [
                *condition_nodes(classes),
                Latent("z", Normal(shape, scale=1.0)),
                Target("image", Delta(shape), sampler, parents, source="input"),
            ]
        )

    @property
    def sampler(self) -> Sampler:
        """The map from noise to samples."""
        sampler = self.targets()["image"].conditional.net
        assert isinstance(sampler, Sampler)
        return sampler

    @property
    def denoiser(self) -> Denoiser:
        """The network that predicts velocities, with samples of mean 0 and deviation 1."""
        return self.sampler.denoiser

    @property
    def steps(self) -> int:
        """Steps of the sampler."""
        return self.sampler.steps

    @contextmanager
    def in_steps(self, steps: int) -> Iterator[None]:
        """Sample in another number of steps within a ``with`` block."""
        own, self.sampler.steps = self.steps, steps
        try:
            yield
        finally:
            self.sampler.steps = own

    def calibrate(self, inputs: Tensor) -> None:
        """Take the mean and deviation of all values of training samples ``[n, ...]`` as those of the data."""
        self.sampler.shift.copy_(inputs.mean())
        self.sampler.scale.copy_(inputs.std().clamp_min(torch.finfo(inputs.dtype).tiny))

    def take_weights(self, teacher: "Diffusion") -> None:
        """Begin with the averaged weights of a teacher that has the same network."""
        set_weights(self.denoiser.network, teacher.denoiser.average.weights)
        self.denoiser.average.restart()

    def take_scale(self, teacher: "Diffusion") -> None:
        """Scale data as a teacher does, so that both have the same noisy samples."""
        self.sampler.shift.copy_(teacher.sampler.shift)
        self.sampler.scale.copy_(teacher.sampler.scale)

    # ---------------------------------------------------------------- training on data

    def elbo_noise(self, n: int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw the noise ``z`` of n samples and their ``time``, uniform in [0, 1)."""
        return {**self.noise(n, generator=generator), "time": torch.rand(n, generator=generator)}

    def observed_samples(self, batch: Values) -> tuple[Tensor, list[Tensor]]:
        """Return the samples of a batch with mean 0 and deviation 1, ``[b, ...]``, and their condition if there is one.

        Raises:
            DataError: If the samples do not fit the model's shape, or a class is out of range.
        """
        sample = self.observed(batch, self.targets())["image"]
        return (sample - self.sampler.shift) / self.sampler.scale, [*self.observed(batch, self.inputs()).values()]

    def negative_elbo(self, batch: Values, noise: Values, lengths: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the simplified bound as the term ``image``, ``[b]``: the mean squared error of the prediction.

        It is not in nats, and without the weights of the times it is not a bound.

        Args:
            batch: Batch with samples, and classes if there is a condition.
            noise: Noise as :meth:`elbo_noise` draws it.
            lengths: Not used; there are no sequences.

        References:
            Ho, Jain, Abbeel: Denoising diffusion probabilistic models. NeurIPS 2020, equation 14.
        """
        sample, condition = self.observed_samples(batch)
        own_noise, angle = noise["z"].to(sample), diffusion.cosine_angle(noise["time"].to(sample))
        z = diffusion.diffuse(sample, own_noise, angle)
        is_velocity = self.denoiser.prediction == "velocity"
        target = diffusion.velocity(sample, own_noise, angle) if is_velocity else own_noise
        return {"image": diffusion.per_sample_error(self.denoiser.raw(z, angle, *condition), target)}
