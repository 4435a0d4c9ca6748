"""Matrix product state of patches: a site sees a square of the image, so that near pixels are never far in the chain.

The local features of a patch are 1 and its pixels, or 1 and learned combinations of them. Within a patch the outputs
are linear in the pixels, across patches multilinear; with patches of one pixel it is the chain of pixels. Learned
combinations are the same for all patches: a convolution with a kernel of the size of a patch, whose channels at a place
are the local features of a site, trained together with the chain (Glasser, Pancotti & Cirac 2018, where a tensor
network reads the features of a convolutional network). Steps between the patches that are shorter than their side give
a pixel to several sites, a copy as of the generalised tensor networks there; the outputs are then of a higher degree in
it. Other chains of this name have the pixels of one patch as their sites, and are the kernel themselves.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.models.mps import MPS
from kdzoo.tensor_networks import FeatureMap, site_order

ORDERS = ("raster", "snake", "hilbert")


class Pixels(FeatureMap):
    """Feature map [1, the pixels of a patch], or [1, learned combinations of them], the same for all patches.

    Args:
        pixels: Numbers in a patch, >= 1.
        learned: Number of combinations, >= 1; None for the pixels themselves.
    """

    def __init__(self, pixels: int, learned: int | None = None) -> None:
        n = validation.integer("pixels", pixels)
        super().__init__(1 + (n if learned is None else validation.integer("learned", learned)))
        self.weight = None if learned is None else nn.Parameter(torch.randn(learned, n) / n**0.5)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (sites, d, samples) of patches (sites, pixels, samples)."""
        numbers = x if self.weight is None else self.weight @ x
        return torch.cat([torch.ones_like(numbers[:, :1]), numbers], 1)


class PatchMPS(MPS):
    """Matrix product state whose sites are the patches of an image; convolutional with `stride` and `learned`.

    Modules to hook are those of `MPS`; a bond is between two patches. Where a product measure is meant (truncation,
    Sobol indices), the patches are what is independent, also those that share pixels.

    Args:
        in_shape: Shape of one image without the batch, (height, width) or (channels, height, width).
        num_classes: Number of logits, >= 1.
        patch: Side of the square patches, >= 1, at most that of the image.
        stride: Pixels from one patch to the next, down and across, in 1..patch; less than `patch` lets them overlap.
            They must end where the image ends. None: `patch`, next to each other.
        learned: Number of learned combinations of a patch's pixels, >= 1; None for the pixels themselves.
        bond_dim: As of `MPS`.
        order: `raster`, `snake` or `hilbert`, of the patches.
        out_site: As of `MPS`, among the patches.
        boundary: As of `MPS`.
        noise: Deviation of the noise at the start, in units of 1 / sqrt(pixels of all patches * bond_dim).
        probes: As of `MPS`.
        engine: As of `MPS`.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> import torch
        >>> model = PatchMPS(in_shape=(1, 28, 28), num_classes=10, patch=4, bond_dim=8)
        >>> model.n_sites, model(torch.rand(2, 1, 28, 28)).shape
        (49, torch.Size([2, 10]))
        >>> PatchMPS(in_shape=(1, 28, 28), num_classes=10, patch=4, stride=2, learned=8, bond_dim=8).grid
        (13, 13)

    References:
        Glasser, Pancotti, Cirac: From probabilistic graphical models to generalized tensor networks for supervised
            learning. arXiv:1806.05964, 2018.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int,
        patch: int = 4,
        stride: int | None = None,
        learned: int | None = None,
        bond_dim: int | Sequence[int] = 16,
        order: str = "snake",
        out_site: int | None = None,
        boundary: str = "open",
        noise: float = 0.5,
        probes: Sequence[int] = (),
        engine: str = "auto",
    ) -> None:
        shape, side = validation.integers("in_shape", in_shape), validation.integer("patch", patch)
        step = side if stride is None else validation.integer("stride", stride, most=side)
        channels, *sides = (1, *shape) if len(shape) == 2 else shape if len(shape) == 3 else (1, 0, 0)
        if any(length < side or (length - side) % step for length in sides):
            raise ConfigError(
                f"patches of patch={side} with stride={step} must fill images of shape (height, width) or (channels, "
                f"height, width) to their edges: (side - patch) a multiple of stride; got in_shape={shape}"
            )
        grid = tuple((length - side) // step + 1 for length in sides)
        walk = site_order(validation.choice("order", order, ORDERS), grid)
        pixels = channels * side**2
        spread = validation.number("noise", noise, least=0.0) / pixels**0.5
        super().__init__(
            len(walk),
            validation.integer("num_classes", num_classes),
            bond_dim,
            feature_map=Pixels(pixels, learned),
            order=walk,
            out_site=out_site,
            boundary=boundary,
            noise=spread,
            probes=probes,
            engine=engine,
        )
        self.in_shape, self.patch, self.stride, self.grid = shape, side, step, grid

    def features(self, input: Tensor) -> Tensor:
        """Return the features (sites, d, batch) of images (batch, ...), in the chain's order."""
        if tuple(input.shape[1:]) != self.in_shape:
            raise DataError(f"the chain has in_shape={self.in_shape}, got inputs of shape {tuple(input.shape[1:])}")
        image = input if len(self.in_shape) == 3 else input[:, None]
        windows = image.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride)
        # (batch, channels, rows, columns, side, side) to (patches, pixels, batch)
        patches = windows.permute(2, 3, 1, 4, 5, 0).flatten(2, 4).flatten(0, 1)
        return self._in_chain(self.feature_map(patches.index_select(0, self.order)))

    def calibrate(self, inputs: Tensor) -> None:
        """Look at training inputs (samples, ...) before the training: nothing depends on them."""
