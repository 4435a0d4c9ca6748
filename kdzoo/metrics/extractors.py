"""Feature extractors: networks whose outputs are the features of metrics of generative models.

Nothing is downloaded. Distances between samples are comparable only if they are by the same extractor: report its
``digest`` with them.
"""

import hashlib
import math
import re
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
from kdzoo.errors import ConfigError, DataError, first_line

# Number of scales at which a random network looks at images, and of its layers for vectors. Each one more doubles the
# smallest image that can be measured.
STAGES = 3
# Height and width of the smallest image, in pixels: its last map has 2 x 2 pixels, which have a standard deviation.
MIN_SIDE = 2**STAGES
# Slope of the leaky rectifier below zero, as is usual in the discriminators of GANs. With slope 0, a
# unit could be 0 on all samples.
NEGATIVE_SLOPE = 0.2
# Standard deviation of the biases of a random network. Without biases the features of a scaled image would be the
# scaled features; with large ones no unit would be near its threshold.
BIAS_STD = 0.5
# The operators of TorchScript that write or map files, and names that are spelt so that they are not seen.
_FILE_ACCESS = re.compile(r"\b(?:save|from_file)\b")
_HIDDEN_NAME = re.compile(r"""getattr\s*\([^"']*["'][^"']*\\""")


class Extractor(nn.Module, ABC):
    """Base of the feature extractors, which map samples ``[n, ...]`` to features ``[n, d]``.

    An extractor is always in eval mode and its weights are frozen, so that features depend on neither the batch nor on
    the training around it. A subclass calls :meth:`freeze` as the last line of its constructor.
    """

    @abstractmethod
    def forward(self, input: Tensor) -> Tensor:
        """Return the features ``[n, d]`` of samples ``[n, ...]``."""

    def train(self, mode: bool = True) -> "Extractor":  # noqa: ARG002
        """Stay in eval mode: ``train()`` of a metric or a LightningModule reaches its parts, but has no effect here."""
        return super().train(False)

    def freeze(self) -> None:
        """Switch to eval mode and exclude the weights from training."""
        self.requires_grad_(False).eval()

    @property
    def digest(self) -> str:
        """SHA-256 of the names, dtypes, shapes and values of the state dict, in hexadecimal."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class RandomConvNet(Extractor):
    """Random network with fixed weights, for images that are unlike those of any trained network.

    Images in [0, 1] are scaled to [-1, 1] and pass three stages of a 3 x 3 convolution with replicated border and a
    leaky rectifier, with 1, 2 and 4 times ``width`` channels and 2 x 2 average pooling in between. The features are
    the means over the pixels of all channels of a stage, then their standard deviations, stage by stage. Vectors are
    not scaled; they pass three linear layers of twice these widths, and the features are the outputs of all layers.
    There are 14 * width features in both cases.

    Args:
        in_shape: ``(channels, height, width)`` with sides of at least 8 pixels, or ``(size,)`` of a vector.
        width: Channels of the first stage, >= 1.
        seed: Seed of the weights, >= 0. The global random state of torch is neither used nor changed.

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
        # An image gives two features per channel, a vector one per unit: twice the width makes the numbers equal.
        first = validation.integer("width", width) * (1 if is_image else 2)
        widths = [first * 2**stage for stage in range(STAGES)]
        kernel = (3, 3) if is_image else ()
        generator = torch.Generator().manual_seed(validation.integer("seed", seed, least=0))
        sizes = [(n_out, n_in, *kernel) for n_in, n_out in zip((self.in_shape[0], *widths), widths, strict=False)]
        self.weights = nn.ParameterList(_normal(generator, size, _he_std(size)) for size in sizes)
        self.biases = nn.ParameterList(_normal(generator, (n_out,), BIAS_STD) for n_out in widths)
        self.freeze()

    def forward(self, input: Tensor) -> Tensor:
        """Return the features ``[n, 14 * width]`` of floating-point samples ``[n, *in_shape]``."""
        if tuple(input.shape[1:]) != self.in_shape or not input.is_floating_point():
            in_shape = ", ".join(map(str, self.in_shape))
            raise DataError(f"samples must be floats [n, {in_shape}], got {input.dtype} {tuple(input.shape)}")
        input = input.to(self.weights[0].dtype)
        features = self._image_features(2 * input - 1) if len(self.in_shape) == 3 else self._vector_features(input)
        return torch.cat(features, dim=1)

    def _image_features(self, x: Tensor) -> list[Tensor]:
        """Return means and standard deviations of the channels of every stage."""
        features = []
        for stage, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = functional.avg_pool2d(x, 2) if stage else x
            # Zeros around the image would be a grey frame, an edge that is in no image.
            x = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias)
            x = functional.leaky_relu(x, NEGATIVE_SLOPE)
            features += [x.mean((2, 3)), x.std((2, 3), correction=0)]
        return features

    def _vector_features(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of all layers."""
        features = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = functional.leaky_relu(functional.linear(x, weight, bias), NEGATIVE_SLOPE)
            features.append(x)
        return features


def _sample_shape(in_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a sample as a tuple, or reject it."""
    shape = validation.integers("in_shape", in_shape)
    if len(shape) not in (1, 3) or min(shape[1:], default=MIN_SIDE) < MIN_SIDE:
        least = f"height and width >= {MIN_SIDE}"
        raise ConfigError(f"in_shape must be (channels, height, width) with {least}, or (size,), got {shape}")
    return shape


def _he_std(size: Sequence[int]) -> float:
    """Return the standard deviation of weights ``[out, in, ...]`` that keeps the scale of values across layers."""
    return math.sqrt(2 / ((1 + NEGATIVE_SLOPE**2) * math.prod(size[1:])))


def _normal(generator: torch.Generator, size: Sequence[int], std: float) -> nn.Parameter:
    """Return frozen normal values."""
    # Dtype and device are fixed: torch's defaults would make other numbers of the same seed.
    values = torch.randn(size, generator=generator, dtype=torch.float32, device="cpu")
    return nn.Parameter(std * values, requires_grad=False)


class PrincipalComponents(Extractor):
    """Projection of flattened samples onto the directions of their largest variance, in float64; see :meth:`fit`.

    Args:
        mean: Mean of the samples, ``[d]``.
        directions: Orthonormal columns, ``[d, k]``.

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
        """Fit the projection to samples, by a singular value decomposition.

        Directions in which the samples do not vary are left out, so that there may be fewer than ``components``: at
        most min(n - 1, d).

        Args:
            samples: Samples of the data, ``[n, ...]``, n >= 2, finite and not all equal.
            components: Largest number of directions, >= 1.

        Returns:
            The extractor.

        Raises:
            ConfigError: If ``components`` is outside its range.
            DataError: If the samples are not finite, fewer than two, or all equal.

        References:
            Jolliffe: Principal component analysis. 2nd edition 2002, section 3.5 (singular values).
        """
        most = validation.integer("components", components)
        if samples.ndim < 2 or len(samples) < 2 or not samples.isfinite().all():
            raise DataError(f"samples must be finite and [n, ...] with n >= 2, got {tuple(samples.shape)}")
        flat = samples.detach().flatten(1).double()
        mean = flat.mean(0)
        _, values, rows = torch.linalg.svd(flat - mean, full_matrices=False)
        # The tolerance of ``torch.linalg.matrix_rank``, relative to the size of the samples themselves: singular values
        # of centred samples may all be rounding errors.
        rounding = max(flat.shape) * torch.finfo(torch.float64).eps * torch.linalg.vector_norm(flat)
        rows = rows[values > rounding][:most]
        if not len(rows):
            raise DataError(f"all {len(samples)} samples are equal: they have no principal components")
        # Singular vectors are determined up to their sign: the largest entry of each is made positive.
        signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
        return cls(mean, (signs * rows).T.contiguous())

    def forward(self, input: Tensor) -> Tensor:
        """Return the coordinates ``[n, k]`` of samples ``[n, ...]`` of d numbers each."""
        flat = input.flatten(1).to(self.mean.dtype)
        if flat.shape[1] != len(self.mean):
            raise DataError(f"samples must have {len(self.mean)} numbers each, got {tuple(input.shape)}")
        return (flat - self.mean) @ self.directions


class PenultimateFeatures(Extractor):
    """Features of a trained classifier: the input of its last layer, or the output of any module by its name.

    The extractor keeps a copy of the model, so that training the model further does not change the features.

    Args:
        model: A classifier.
        layer: Name of the module whose flattened output is taken; None takes the input of the module ``head``. If a
            module returns a tuple, its first element is taken; if it is called several times, its last output.

    Raises:
        ConfigError: If the model has no module of that name. When it is called: if the module does not return a
            tensor ``[n, ...]``.
    """

    def __init__(self, model: nn.Module, layer: str | None = None) -> None:
        super().__init__()
        self.layer = _known_layer(model, layer)
        self.model = deepcopy(model)
        self.freeze()

    def forward(self, input: Tensor) -> Tensor:
        """Return the features ``[n, d]`` of the model's inputs ``[n, ...]``."""
        captured: list[Any] = []
        # The hooks copy at once, since the next module may work in place.
        if self.layer is None:
            module = self.model.get_submodule("head")
            handle = module.register_forward_pre_hook(lambda _, inputs: captured.append(_copy(inputs)))
        else:
            module = self.model.get_submodule(self.layer)
            handle = module.register_forward_hook(lambda _, inputs, output: captured.append(_copy(output)))  # noqa: ARG005
        try:
            self.model(input)
        finally:
            handle.remove()  # a hook that stays would hold every batch in memory
        features = captured[-1] if captured else None
        if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(input):
            got = tuple(features.shape) if isinstance(features, Tensor) else "none"
            name = "the input of head" if self.layer is None else f"layer {self.layer!r}"
            raise ConfigError(f"{name} must give a tensor [{len(input)}, ...] when the model is called, got {got}")
        return features.flatten(1)


def _copy(value: Any) -> Any:
    """Return a copy of a tensor, or of the first element of a tuple."""
    if isinstance(value, tuple) and value:
        value = value[0]
    return value.clone() if isinstance(value, Tensor) else value


def _known_layer(model: nn.Module, layer: str | None) -> str | None:
    """Return the name if the model has a module of that name, or raise an error that suggests similar names."""
    # With duplicates: a module that is shared has several names, each of which is valid.
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    name_to_find = "head" if layer is None else layer
    if name_to_find in names:
        return layer
    similar = get_close_matches(str(name_to_find), names) or [name for name, _ in model.named_children()]
    missing = " and there is no module 'head'" if layer is None else ""
    suggestion = f"layer must name a module of {type(model).__name__}, such as {', '.join(similar)}"
    raise ConfigError(f"{suggestion}, got {layer!r}{missing}")


class ScriptedExtractor(Extractor):
    """Features of a TorchScript file, such as NVIDIA's Inception v3 for FID, ``inception-2015-12-05.pt``.

    Such a file is a program: use it only from sources that you trust. One that reads or writes files is refused, which
    does not make every other one harmless. PyTorch has deprecated TorchScript in favour of
    ``torch.export``, but still loads it.

    Args:
        path: A file of ``torch.jit.save`` whose ``forward`` takes images ``[n, 3, height, width]`` of bytes and a flag
            ``return_features``, and returns features ``[n, d]`` if it is true. The file resizes and scales the images.

    Raises:
        DataError: If the file is missing or damaged, is not TorchScript, reads or writes files, or does not take
            ``return_features``.

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
        """SHA-256 of the file, in hexadecimal: a script may hold constants that are not in its state dict."""
        return self._digest

    def forward(self, input: Tensor) -> Tensor:
        """Return the features of images.

        Args:
            input: Floating-point images, ``[n, 1 or 3, height, width]``; values outside of [0, 1] are clamped, and
                grey images are repeated three times.

        Returns:
            Features, ``[n, d]``.

        Raises:
            DataError: If the images are not valid, or the script does not return a matrix of n rows.
        """
        if input.ndim != 4 or input.shape[1] not in (1, 3) or not input.is_floating_point():
            raise DataError(f"images must be floats [n, 1 or 3, h, w], got {input.dtype} {tuple(input.shape)}")
        if not input.isfinite().all():
            raise DataError("images must be finite, got NaN or infinity")
        # The networks of such files take bytes, as images are stored.
        pixels = (input.clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1)
        features = self.network(pixels, return_features=True)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(input):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise DataError(f"the script must return features [{len(input)}, d], got {got}")
        return features


def _check_code(archive: zipfile.ZipFile, path: Path) -> None:
    """Reject a script that writes or maps files. Before it is loaded, since loading already runs a part of it."""
    for member in archive.infolist():
        name = member.filename.lower()  # torch finds its files whatever the case of their names
        if name.endswith("model.json"):
            raise DataError(f"{path} has the format of an old version of torch; only that of torch.jit.save is read")
        code = archive.read(member).decode(errors="replace") if name.endswith(".py") else ""
        word = _FILE_ACCESS.search(code) or _HIDDEN_NAME.search(code)
        if word:
            raise DataError(f"{path} is not loaded: a feature extractor must not read or write files ({word[0]!r})")


def _scripted(path: Path) -> nn.Module:
    """Return the module of a TorchScript file, on the CPU."""
    if not path.is_file():
        raise DataError(f"{path} is missing or not a regular file")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.jit.load does not verify checksums
            damaged = archive.testzip()
            if damaged is None:
                _check_code(archive, path)
        with warnings.catch_warnings():
            # Loading is the one use of TorchScript here; the filter goes when ``torch.jit.load`` goes.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = None if damaged else torch.jit.load(str(path), map_location="cpu")
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{path} is not a complete TorchScript file: {first_line(error)}") from error
    if network is None:
        raise DataError(f"{path} is damaged: its part {damaged} does not have the checksum that it states")
    try:
        arguments = [argument.name for argument in network.forward.schema.arguments[1:]]
    except AttributeError:  # a script may export methods without having a forward
        arguments = []
    if "return_features" not in arguments:
        raise DataError(
            f"the forward of {path} must take return_features, it takes {', '.join(arguments) or 'nothing'}"
        )
    return network
