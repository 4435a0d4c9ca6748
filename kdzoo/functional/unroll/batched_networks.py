"""Many networks of one architecture at once: a function of one network's weights, evaluated for K of them.

``torch.func.vmap`` does that for any network. What it gains on overhead it loses on convolutions of a few channels,
such as the first one, whose input is shared: for these, patches of the images are laid out once and multiplied by the
kernels of all networks, so that every derivative is a product of matrices too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import unfold
from torch.overrides import TorchFunctionMode

FEW = 64
"""Numbers in a patch up to which a convolution is a product of matrices; above, the patches take too much memory."""


POOLING = (torch.nn.functional.avg_pool2d, torch.nn.functional.max_pool2d)


def batched(network: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of weights [K, P] and inputs from one of weights [P] and inputs; its outputs get a first axis.

    Args:
        network: Weights [P] and inputs [M, ...] to outputs [M, ...], without random numbers.

    Example:
        >>> linear = batched(lambda weights, inputs: inputs @ weights)
        >>> linear(torch.eye(3), torch.arange(3.0)[None]).flatten()
        tensor([0., 1., 2.])
    """

    def networks(weights: Float[Tensor, "K P"], inputs: Tensor) -> Tensor:
        if len(weights) == 1:
            return network(weights[0], inputs)[None]
        with PatchConvolutions():
            return torch.func.vmap(network, in_dims=(0, None))(weights, inputs)

    return networks


class PatchConvolutions(TorchFunctionMode):
    """Evaluate convolutions of few channels as products of patches and kernels.

    Their outputs lie in memory channel by channel; pooling, which treats images and channels alike, keeps that.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or what stands in for it."""
        kwargs = kwargs or {}
        if func is torch.conv2d:
            return convolution(*args, **kwargs)
        if func in POOLING and args[0].ndim == 4 and not args[0].is_contiguous():
            return func(args[0].transpose(0, 1), *args[1:], **kwargs).transpose(0, 1)
        return func(*args, **kwargs)


def convolution(
    input: Float[Tensor, "M C H W"],
    weight: Float[Tensor, "O c h w"],
    bias: Float[Tensor, " O"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Tensor, "M O H2 W2"]:
    """Return what ``torch.conv2d`` does, as one product of matrices where patches are small."""
    sides, step, spread = weight.shape[2:], pair(stride), pair(dilation)
    margin = margins(padding, sides, spread)
    if groups > 1 or weight[0].numel() > FEW or margin is None:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    height, width = (
        (input.shape[2 + i] + 2 * margin[i] - spread[i] * (sides[i] - 1) - 1) // step[i] + 1 for i in range(2)
    )
    patches = unfold(input, sides, spread, margin, step).transpose(0, 1)
    kernels = weight.flatten(1)
    if bias is not None:
        patches = torch.cat([patches, torch.ones_like(patches[:1])])
        kernels = torch.cat([kernels, bias[:, None]], 1)
    return (kernels @ patches.flatten(1)).view(len(weight), len(input), height, width).transpose(0, 1)


def margins(
    padding: str | int | Sequence[int], sides: Sequence[int], spread: tuple[int, int]
) -> tuple[int, int] | None:
    """Return the padding of both sides of an image in pixels; None if it differs between their two ends."""
    if padding == "valid":
        return 0, 0
    if not isinstance(padding, str):
        return pair(padding)
    lost = [gap * (side - 1) for gap, side in zip(spread, sides, strict=True)]
    return None if any(one % 2 for one in lost) else (lost[0] // 2, lost[1] // 2)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return one number for each of the two sides of an image."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
