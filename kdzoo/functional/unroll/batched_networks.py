"""Many networks of one architecture at once: a function of one network's weights, evaluated for K of them.

``torch.func.vmap`` does that for any network and saves overhead, but convolutions of few channels become slow, above
all the first one, whose input all networks share. For these, the patches of the images are laid out once and multiplied
by the kernels of all networks: the convolution and all of its derivatives are products of matrices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import unfold
from torch.overrides import TorchFunctionMode

# Numbers in a patch (channels * height * width of a kernel) up to which a convolution becomes a product of matrices.
# The patches repeat each pixel as often as the kernel has entries: above, they take too much memory.
MAX_PATCH_NUMBERS = 64

POOLING = (torch.nn.functional.avg_pool2d, torch.nn.functional.max_pool2d)


def vmap_networks(network: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that evaluates a network for many rows of weights on the same inputs.

    Args:
        network: Maps weights ``[P]`` and inputs ``[M, ...]`` to outputs ``[M, ...]``, without random numbers.

    Returns:
        A function of weights ``[K, P]`` and inputs ``[M, ...]`` that returns outputs ``[K, M, ...]``.

    Example:
        >>> linear = vmap_networks(lambda weights, inputs: inputs @ weights)
        >>> linear(torch.eye(3), torch.arange(3.0)[None]).flatten()
        tensor([0., 1., 2.])
    """

    def networks(weights: Float[Tensor, "K P"], inputs: Tensor) -> Tensor:
        if len(weights) == 1:  # saves the overhead of vmap
            return network(weights[0], inputs)[None]
        with PatchConvolutions():
            return torch.func.vmap(network, in_dims=(0, None))(weights, inputs)

    return networks


class PatchConvolutions(TorchFunctionMode):
    """Evaluate convolutions of few channels as products of patches and kernels.

    Their outputs lie in memory channel by channel; pooling, which treats images and channels alike, keeps that order.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or its replacement."""
        kwargs = kwargs or {}
        if func is torch.conv2d:
            return patch_conv2d(*args, **kwargs)
        # Pooling a transposed tensor would copy it into the order of images first.
        if func in POOLING and args[0].ndim == 4 and not args[0].is_contiguous():
            return func(args[0].transpose(0, 1), *args[1:], **kwargs).transpose(0, 1)
        return func(*args, **kwargs)


def patch_conv2d(
    input: Float[Tensor, "M C H W"],
    weight: Float[Tensor, "O c h w"],
    bias: Float[Tensor, " O"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Tensor, "M O H2 W2"]:
    """Return the result of ``torch.conv2d`` as one product of matrices if the patches are small.

    Arguments and result are those of ``torch.conv2d``, which does the work for large patches, several groups and
    paddings that differ between the two ends of a side.
    """
    kernel, strides, dilations = weight.shape[2:], pair(stride), pair(dilation)
    paddings = padding_in_pixels(padding, kernel, dilations)
    if groups > 1 or weight[0].numel() > MAX_PATCH_NUMBERS or paddings is None:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    height, width = (
        (input.shape[2 + i] + 2 * paddings[i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(2)
    )
    patches = unfold(input, kernel, dilations, paddings, strides).transpose(0, 1)
    kernels = weight.flatten(1)
    # The bias is one more entry of each kernel, for a pixel of value 1, which saves an addition and its derivatives.
    if bias is not None:
        patches = torch.cat([patches, torch.ones_like(patches[:1])])
        kernels = torch.cat([kernels, bias[:, None]], 1)
    return (kernels @ patches.flatten(1)).view(len(weight), len(input), height, width).transpose(0, 1)


def padding_in_pixels(
    padding: str | int | Sequence[int], kernel: Sequence[int], dilations: tuple[int, int]
) -> tuple[int, int] | None:
    """Return the padding of height and width in pixels, or None if it differs between the two ends of a side."""
    if padding == "valid":
        return 0, 0
    if not isinstance(padding, str):
        return pair(padding)
    # "same": the output has the size of the input, so that the padding makes up for what a kernel takes away.
    total = [gap * (side - 1) for gap, side in zip(dilations, kernel, strict=True)]
    return None if any(pixels % 2 for pixels in total) else (total[0] // 2, total[1] // 2)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return one number for the height and one for the width of an image."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
