"""Orders of the sites: which input stands where in the chain.

Every bond between two sites must carry what they have to do with each other, so neighbouring pixels of an image should
be neighbours in the chain.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdzoo.core.validation import choice
from kdzoo.errors import ConfigError

IMAGE_ORDERS = ("raster", "snake", "hilbert")
"""Orders that follow from the shape of an image."""
ORDERS = (*IMAGE_ORDERS, "mutual_information")


def site_order(name: str, in_shape: Sequence[int]) -> Tensor:
    """Return the input's flat position for each site of the chain.

    Args:
        name: ``raster`` (row by row), ``snake`` (every second row backwards) or ``hilbert`` (Hilbert's curve).
            ``mutual_information`` needs data and starts as a snake; see :func:`by_mutual_information`.
        in_shape: Shape of one input, (n), ``[height, width]`` or ``[channels, height, width]``; the channels of a pixel
            follow each other in the chain.

    Raises:
        ConfigError: The name is unknown, or the input is not an image and the order needs one.
    """
    choice("order", name, ORDERS)
    if len(in_shape) == 1:
        if name == "hilbert":
            raise ConfigError(f"order='hilbert' needs images, got inputs of shape {tuple(in_shape)}")
        return torch.arange(in_shape[0])
    *channels, height, width = in_shape
    if len(channels) > 1:
        raise ConfigError(f"order={name!r} needs inputs of one to three dimensions, got {tuple(in_shape)}")
    pixels = torch.arange(height * width).view(height, width)
    if name == "hilbert":
        # The curve fills a square of 2^k; cells outside the image are left out.
        walk = torch.tensor([y * width + x for x, y in _hilbert(max(height, width)) if x < width and y < height])
    elif name == "raster":
        walk = pixels.flatten()
    else:
        walk = torch.cat([row.flip(0) if i % 2 else row for i, row in enumerate(pixels)])
    n_channels = channels[0] if channels else 1
    return (walk[:, None] + height * width * torch.arange(n_channels)).flatten()


def mutual_information_order(x: Tensor) -> Tensor:
    """Return an order in which inputs with much mutual information are near each other.

    Inputs are sorted by the second eigenvector of the normalised Laplacian of their mutual information, which is
    computed as if they were normally distributed: -log(1 - r^2) / 2 for a correlation r. Inputs that never change go
    to the ends.

    Args:
        x: Training inputs ``[samples, sites]``.

    References:
        Atkins, Boman, Hendrickson: A spectral algorithm for seriation and the consecutive ones problem. SIAM J. Comput.
        28, 1998.
    """
    x = x.double()
    deviation = x.std(0)
    # Below 1e-8 of the largest deviation is the rounding of float32, in which inputs arrive: such an input is constant.
    alive = (deviation > 1e-8 * deviation.max()).nonzero().flatten()
    if len(alive) < 3:
        return torch.arange(x.shape[1])
    # 0.999 bounds the mutual information of equal inputs, which would be infinite
    correlation = torch.corrcoef(x[:, alive].T).clamp(-0.999, 0.999).fill_diagonal_(0)
    weight = -0.5 * torch.log1p(-correlation.square())
    degree = weight.sum(1)
    scale = degree.clamp_min(1e-12).rsqrt()
    laplacian = torch.eye(len(alive), dtype=torch.float64) - scale[:, None] * weight * scale
    # The first eigenvector is constant; the second one varies as little as possible between related inputs.
    place = torch.linalg.eigh(laplacian).eigenvectors[:, 1] * scale
    is_constant = torch.ones(x.shape[1], dtype=torch.bool)
    is_constant[alive] = False
    constant = is_constant.nonzero().flatten()
    half = len(constant) // 2
    return torch.cat([constant[:half], alive[place.argsort(stable=True)], constant[half:]])


def _hilbert(side: int) -> list[tuple[int, int]]:
    """Return the cells (x, y) of Hilbert's curve through the smallest grid of 2^k by 2^k with 2^k >= ``side``."""
    size = 1
    cells = [(0, 0)]
    while size < side:
        cells = [  # four copies, of which the first and the last are mirrored so that their ends meet
            *((y, x) for x, y in cells),
            *((x, y + size) for x, y in cells),
            *((x + size, y + size) for x, y in cells),
            *((2 * size - 1 - y, size - 1 - x) for x, y in cells),
        ]
        size *= 2
    return cells
