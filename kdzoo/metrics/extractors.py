"""Networks whose outputs are the features of metrics of generative models; nothing is downloaded.

A distance between samples is comparable only with one by the same extractor: report its ``digest`` beside it.
"""

import hashlib
import math
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError

STAGES = 3
"""Number of scales at which a random network looks at images, and of its layers for vectors."""
LEAST_SIDE = 2**STAGES
"""Height and width of the smallest image, in pixels, whose last map has 2 x 2 of them."""
SLOPE = 0.2
"""Of the leaky rectifier below zero."""
BIAS = 0.5
"""Standard deviation of a random network's biases."""


class Extractor(nn.Module, ABC):
    """Base of the maps from samples [n, ...] to features [n, d]: always in eval mode, and with frozen weights."""

    @abstractmethod
    def forward(self, input: Tensor) -> Tensor:
        """Return the features [n, d] of samples [n, ...]."""

    def train(self, mode: bool = True) -> "Extractor":  # noqa: ARG002
        """Stay in eval mode, whatever is asked."""
        return super().train(False)

    def freeze(self) -> None:
        """Take the weights out of training; a constructor's last line."""
        self.requires_grad_(False).eval()

    @property
    def digest(self) -> str:
        """Return the sha256 of the names, types, shapes and values of the state dict, in hexadecimal."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class RandomConvNet(Extractor):
    """Fixed random network: for images that are far from those on which any network was trained.

    Images, in [0, 1] and moved to [-1, 1], pass three stages of (3 x 3 convolution with the border repeated, leaky
    rectifier), of width, 2 width and 4 width channels, with 2 x 2 average pooling in between. The features are the
    means over the pixels of all channels of a stage, then their standard deviations, stage by stage. Vectors, taken
    as they are, pass three linear layers of twice these widths, and the features are the outputs of all layers.
    There are 14 width features in both cases.

    Args:
        in_shape: (channels, height, width) with sides of at least 8 pixels, or (size,) of a vector.
        width: Channels of the first stage, >= 1.
        seed: Of the weights, >= 0; the random state of torch is neither read nor moved.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> RandomConvNet((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 224])

    References:
        Naeem et al.: Reliable fidelity and diversity metrics for generative models. ICML 2020, arXiv:2002.09797 (random
            embeddings).
        He, Zhang, Ren, Sun: Delving deep into rectifiers. ICCV 2015, arXiv:1502.01852 (initial weights, with the slope
            of the leaky rectifier).
    """

    def __init__(self, in_shape: Sequence[int], *, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.in_shape = _sample_shape(in_shape)
        is_image = len(self.in_shape) == 3
        first = validation.integer("width", width) * (1 if is_image else 2)
        widths = [first * 2**stage for stage in range(STAGES)]
        kernel = (3, 3) if is_image else ()
        generator = torch.Generator().manual_seed(validation.integer("seed", seed, least=0))
        sizes = [(n_out, n_in, *kernel) for n_in, n_out in zip((self.in_shape[0], *widths), widths, strict=False)]
        self.weights = nn.ParameterList(_normal(generator, size, _he_deviation(size)) for size in sizes)
        self.biases = nn.ParameterList(_normal(generator, (n_out,), BIAS) for n_out in widths)
        self.freeze()

    def forward(self, input: Tensor) -> Tensor:
        """Return the features [n, 14 width] of float samples [n, *in_shape]."""
        if tuple(input.shape[1:]) != self.in_shape or not input.is_floating_point():
            wanted = ", ".join(map(str, self.in_shape))
            raise DataError(f"samples must be floats [n, {wanted}], got {input.dtype} {tuple(input.shape)}")
        input = input.to(self.weights[0].dtype)
        parts = self._of_images(2 * input - 1) if len(self.in_shape) == 3 else self._of_vectors(input)
        return torch.cat(parts, dim=1)

    def _of_images(self, x: Tensor) -> list[Tensor]:
        parts = []
        for stage, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = functional.avg_pool2d(x, 2) if stage else x
            x = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias)
            x = functional.leaky_relu(x, SLOPE)
            parts += [x.mean((2, 3)), x.std((2, 3), correction=0)]
        return parts

    def _of_vectors(self, x: Tensor) -> list[Tensor]:
        parts = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = functional.leaky_relu(functional.linear(x, weight, bias), SLOPE)
            parts.append(x)
        return parts


def _sample_shape(in_shape: Sequence[int]) -> tuple[int, ...]:
    shape = validation.integers("in_shape", in_shape)
    if len(shape) not in (1, 3) or min(shape[1:], default=LEAST_SIDE) < LEAST_SIDE:
        least = f"height and width >= {LEAST_SIDE}"
        raise ConfigError(f"in_shape must be (channels, height, width) with {least}, or (size,), got {shape}")
    return shape


def _he_deviation(size: Sequence[int]) -> float:
    """Return the deviation of weights [out, in, ...] that keeps the size of values behind a leaky rectifier."""
    return math.sqrt(2 / ((1 + SLOPE**2) * math.prod(size[1:])))


def _normal(generator: torch.Generator, size: Sequence[int], deviation: float) -> nn.Parameter:
    """Return frozen normal values, whatever torch's default type and device are."""
    drawn = torch.randn(size, generator=generator, dtype=torch.float32, device="cpu")
    return nn.Parameter(deviation * drawn, requires_grad=False)


class PrincipalComponents(Extractor):
    """Projection of flattened samples on the directions of their largest variance, in float64; see :meth:`fit`.

    Args:
        mean: Of the samples (d).
        directions: Orthonormal columns (d, k).

    Example:
        >>> pca = PrincipalComponents.fit(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))
        >>> pca(torch.tensor([[3.0, 9.0]]))
        tensor([[1.]], dtype=torch.float64)
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, mean: Tensor, directions: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.freeze()

    @classmethod
    def fit(cls, samples: Tensor, *, components: int = 64) -> "PrincipalComponents":
        """Return the projection of given samples, by their singular values.

        The largest entry of each direction is positive. Directions in which the samples do not vary are left out, so
        that there may be fewer than asked for: at most min(n - 1, d).

        Args:
            samples: Those of the data (n, ...), n >= 2, finite and not all equal.
            components: Largest number of directions, >= 1.

        Raises:
            ConfigError: ``components`` is outside its range.
            DataError: The samples have no directions.

        References:
            Jolliffe: Principal component analysis. 2nd edition 2002, section 3.5 (singular values).
        """
        most = validation.integer("components", components)
        if samples.ndim < 2 or len(samples) < 2 or not samples.isfinite().all():
            raise DataError(f"samples must be finite and [n, ...] with n >= 2, got {tuple(samples.shape)}")
        flat = samples.detach().flatten(1).double()
        mean = flat.mean(0)
        _, values, rows = torch.linalg.svd(flat - mean, full_matrices=False)
        rounding = max(flat.shape) * torch.finfo(torch.float64).eps * torch.linalg.vector_norm(flat)
        rows = rows[values > rounding][:most]
        if not len(rows):
            raise DataError(f"all {len(samples)} samples are equal: they have no principal components")
        signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
        return cls(mean, (signs * rows).T.contiguous())

    def forward(self, input: Tensor) -> Tensor:
        """Return the coordinates [n, k] of samples [n, ...] of d numbers each."""
        flat = input.flatten(1).to(self.mean.dtype)
        if flat.shape[1] != len(self.mean):
            raise DataError(f"samples must have {len(self.mean)} numbers each, got {tuple(input.shape)}")
        return (flat - self.mean) @ self.directions


class PenultimateFeatures(Extractor):
    """Features that a trained classifier has learned: what its head reads, or the output of a module of yours.

    It keeps a copy of the model, so that training the model further changes no feature.

    Args:
        model: A classifier.
        layer: Name of a module whose output, flattened, is taken; None takes the input of the module ``head``. Of a
            module that returns a tuple it is the first element, of one that is called twice the last output.

    Raises:
        ConfigError: If the model has no module of that name, or it gives no tensor [n, ...].
    """

    def __init__(self, model: nn.Module, layer: str | None = None) -> None:
        super().__init__()
        self.layer = _known_layer(model, layer)
        self.model = deepcopy(model)
        self.freeze()

    def forward(self, input: Tensor) -> Tensor:
        """Return the features [n, d] of the model's inputs [n, ...]."""
        seen: list[Any] = []
        # copied at once, since the next module may work in place
        if self.layer is None:
            read = self.model.get_submodule("head")
            handle = read.register_forward_pre_hook(lambda _, inputs: seen.append(_copied(inputs)))
        else:
            read = self.model.get_submodule(self.layer)
            handle = read.register_forward_hook(lambda _, inputs, output: seen.append(_copied(output)))  # noqa: ARG005
        try:
            self.model(input)
        finally:
            handle.remove()
        features = seen[-1] if seen else None
        if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(input):
            found = tuple(features.shape) if isinstance(features, Tensor) else "none"
            name = "the input of head" if self.layer is None else f"layer {self.layer!r}"
            raise ConfigError(f"{name} must give a tensor [{len(input)}, ...] when the model is called, got {found}")
        return features.flatten(1)


def _copied(value: Any) -> Any:
    """Return a copy of a tensor, or of the first element of a tuple."""
    if isinstance(value, tuple) and value:
        value = value[0]
    return value.clone() if isinstance(value, Tensor) else value


def _known_layer(model: nn.Module, layer: str | None) -> str | None:
    """Return the name, or raise with those that are near."""
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    wanted = "head" if layer is None else layer
    if wanted in names:
        return layer
    near = get_close_matches(str(wanted), names) or [name for name, _ in model.named_children()]
    lacking = " and there is no module 'head'" if layer is None else ""
    kind = type(model).__name__
    raise ConfigError(f"layer must name a module of {kind}, such as {', '.join(near)}, got {layer!r}{lacking}")


class ScriptedExtractor(Extractor):
    """Features of a TorchScript file of yours, such as NVIDIA's Inception v3 for FID, ``inception-2015-12-05.pt``.

    Such a file is a program: take it only from people you trust. PyTorch has deprecated TorchScript in favour of
    export, and still reads it.

    Args:
        path: A file of ``torch.jit.save`` whose forward takes images (n, 3, h, w) of bytes and ``return_features``,
            and returns features (n, d) if that is true. The file resizes and scales images as it needs.

    Raises:
        DataError: If the file is missing, damaged, no TorchScript, or takes no ``return_features``.

    References:
        Karras et al.: Training generative adversarial networks with limited data. NeurIPS 2020, arXiv:2006.06676. Its
        code defines such files.
        Szegedy et al.: Rethinking the Inception architecture for computer vision. CVPR 2016, arXiv:1512.00567.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__()
        self.network = _scripted(Path(path))
        with open(path, "rb") as file:
            self._digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.freeze()

    @property
    def digest(self) -> str:
        """Return the sha256 of the file, in hexadecimal: a script may hold weights that no state dict shows."""
        return self._digest

    def forward(self, input: Tensor) -> Tensor:
        """Return the features [n, d] of float images [n, 1 or 3, h, w]; values outside of [0, 1] are clamped."""
        if input.ndim != 4 or input.shape[1] not in (1, 3) or not input.is_floating_point():
            raise DataError(f"images must be floats [n, 1 or 3, h, w], got {input.dtype} {tuple(input.shape)}")
        if not input.isfinite().all():
            raise DataError("images must be finite, got NaN or infinity")
        pixels = (input.clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1)
        features = self.network(pixels, return_features=True)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(input):
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise DataError(f"the script must return features [{len(input)}, d], got {found}")
        return features


def _scripted(path: Path) -> nn.Module:
    """Return the module of a TorchScript file, on the CPU."""
    if not path.is_file():
        raise DataError(f"{path} is missing or no regular file")
    try:
        with zipfile.ZipFile(path) as archive:  # torch reads a damaged one without a word
            damaged = archive.testzip()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network = None if damaged else torch.jit.load(str(path), map_location="cpu")
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{path} is no whole TorchScript file: {str(error).splitlines()[0]}") from error
    if network is None:
        raise DataError(f"{path} is damaged: its part {damaged} does not have the checksum that it states")
    arguments = [one.name for one in network.forward.schema.arguments[1:]] if hasattr(network, "forward") else []
    if "return_features" not in arguments:
        raise DataError(
            f"the forward of {path} must take return_features, it takes {', '.join(arguments) or 'nothing'}"
        )
    return network
