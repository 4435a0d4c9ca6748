"""Matrix product state of patches: a site sees a square of the image, so that near pixels are never far in the chain.

The local features of a patch are 1 and its pixels, or 1 and learned combinations of them. Within a patch the outputs
are linear in the pixels, across patches they are multilinear; with patches of one pixel it is the chain of pixels.
Learned combinations are the same for all patches. They are a convolution whose kernel has the size of a patch and whose
channels at a place are the local features of a site, trained together with the chain (Glasser, Pancotti & Cirac 2018,
where a tensor network reads the features of a convolutional network). With a stride below the size of a patch a pixel
belongs to several sites, like a copied input of the generalised tensor networks of that paper, and the outputs are of a
higher degree in it. (Other libraries call a chain of the pixels of one patch, used as the kernel, a convolutional MPS.)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.models.mps_base import MPSBase
from kdzoo.tensor_networks.features import FeatureMap
from kdzoo.tensor_networks.orders import IMAGE_ORDERS, site_order


class Pixels(FeatureMap):
    """Feature map [1, the pixels of a patch], or [1, learned combinations of them], the same for all patches.

    Args:
        pixels: Numbers in a patch, >= 1.
        learned: Number of combinations, >= 1. None: the pixels themselves.
    """

    def __init__(self, pixels: int, learned: int | None = None) -> None:
        n = validation.integer("pixels", pixels)
        super().__init__(1 + (n if learned is None else validation.integer("learned", learned)))
        # deviation 1 / sqrt(n): a combination of n pixels of size 1 is of size 1 as well
        self.weight = None if learned is None else nn.Parameter(torch.randn(learned, n) / n**0.5)

    def features(self, x: Tensor) -> Tensor:
        """Return the features ``[sites, d, samples]`` of patches ``[sites, pixels, samples]``."""
        numbers = x if self.weight is None else self.weight @ x
        return torch.cat([torch.ones_like(numbers[:, :1]), numbers], 1)


class PatchMPS(MPSBase):
    """Matrix product state whose sites are the patches of an image; convolutional with ``stride`` and ``learned``.

    Modules to hook are those of :class:`MPS`; a bond is between two patches. Where a product measure is used
    (truncation, Sobol indices), the patches are taken as independent, even if they share pixels.

    Args:
        in_shape: Shape of one image without the batch, (height, width) or (channels, height, width).
        num_classes: Number of logits, >= 1.
        patch: Side of the square patches, >= 1, at most that of the image.
        stride: Pixels from one patch to the next, down and across, in 1..patch; patches overlap if it is less than
            ``patch``. The last patch must end where the image ends. None: ``patch``, side by side.
        learned: Number of learned combinations of the pixels of a patch, >= 1. None: the pixels themselves.
        order: ``raster``, ``snake`` or ``hilbert``, of the patches.
        **options: ``bond_dim``, ``out_site`` (among the patches), ``boundary``, ``noise`` (here in units of
            1 / sqrt(pixels of all patches * bond_dim)), ``probes`` and ``engine``, see
            :class:`kdzoo.models.mps_base.MPSBase`.

    Raises:
        ConfigError: An argument is outside its range.

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
        order: str = "snake",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.in_shape = validation.integers("in_shape", in_shape)
        self.patch = validation.integer("patch", patch)
        self.stride = self.patch if stride is None else validation.integer("stride", stride, most=self.patch)
        self.grid = self._grid_of_patches()
        positions = site_order(validation.choice("order", order, IMAGE_ORDERS), self.grid)
        channels = self.in_shape[0] if len(self.in_shape) == 3 else 1
        pixels = channels * self.patch**2
        # A patch adds the noise of all its pixels, so each of them gets less of it.
        self.noise = self.noise / pixels**0.5
        self._build(len(positions), validation.integer("num_classes", num_classes), Pixels(pixels, learned), positions)

    def _grid_of_patches(self) -> tuple[int, ...]:
        """Return the number of patches down and across.

        Raises:
            ConfigError: The patches do not end where the image ends, or inputs are not images.
        """
        is_image = len(self.in_shape) in (2, 3)
        sides, patch, stride = self.in_shape[-2:], self.patch, self.stride
        if not is_image or any(length < patch or (length - patch) % stride for length in sides):
            raise ConfigError(
                f"patches of patch={patch} with stride={stride} must fill images of shape (height, width) or "
                f"(channels, height, width) to their edges: (side - patch) a multiple of stride; "
                f"got in_shape={self.in_shape}"
            )
        return tuple((length - patch) // stride + 1 for length in sides)

    def features(self, input: Tensor) -> Tensor:
        """Return the features ``[sites, d, batch]`` of images ``[batch, *in_shape]``, in the order of the chain."""
        if tuple(input.shape[1:]) != self.in_shape:
            raise DataError(f"the chain has in_shape={self.in_shape}, got inputs of shape {tuple(input.shape[1:])}")
        image = input if len(self.in_shape) == 3 else input[:, None]
        windows = image.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride)
        # [batch, channels, rows, columns, patch, patch] to [patches, pixels, batch]
        patches = windows.permute(2, 3, 1, 4, 5, 0).flatten(2, 4).flatten(0, 1)
        return self._cast(self.feature_map(patches.index_select(0, self.order)))

    def site_grid(self, in_shape: Sequence[int]) -> tuple[int, ...]:  # noqa: ARG002 - the signature of the base class
        """Return (1, patches down, patches across)."""
        return (1, *self.grid)

    def calibrate(self, inputs: Tensor) -> None:
        """Do nothing: neither the order nor the features of patches depend on training inputs."""
