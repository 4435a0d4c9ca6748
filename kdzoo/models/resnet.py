"""Residual network for small images (He, Zhang, Ren and Sun 2016, sec. 4.2).

Depth 6n + 2: one stem convolution, three stages of n blocks of two convolutions each, one linear layer.
The stages have w, 2w and 4w channels; the second and the third start by halving the image.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.models.shapes import image_shape


class BasicBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), with the paper's parameter-free shortcut A.

    Where the block halves the image, the shortcut keeps every second pixel and fills new channels with zeros.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output, >= n_in.
        stride: 1, or 2 to halve height and width, rounding up.

    Example:
        >>> import torch
        >>> BasicBlock(4, 8, stride=2)(torch.zeros(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, n_out - n_in
        # No biases: the shift of the batch normalisation that follows takes their place.
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)

    def forward(self, input: Tensor) -> Tensor:
        """Return features ``[batch, n_out, height / stride, width / stride]`` of ``[batch, n_in, height, width]``."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(input)))))
        return F.relu(residual + self._shortcut(input))

    def _shortcut(self, input: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return input
        # Shortcut A of the paper: without parameters, so that the published numbers of weights hold.
        return F.pad(input[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResNet(nn.Module):
    """Residual network of depth 6n + 2 with global average pooling, as published for CIFAR-10.

    Modules to hook: ``stem`` ``[batch, w, H, W]``, ``stages.0`` ``[batch, w, H, W]``, ``stages.1``
    ``[batch, 2w, H/2, W/2]``, ``stages.2`` ``[batch, 4w, H/4, W/4]``, single blocks such as ``stages.1.0``, and
    ``head``, the logits. Convolutions and head start from He initialisation (fan in), the bias of the head from 0.

    Args:
        in_shape: Shape ``[channels, height, width]`` of one image, at least 8 x 8 pixels.
        num_classes: Number of logits, >= 1.
        depth: Number of weighted layers, 6n + 2: 8, 14, 20, 26, 32, 44, 56, 110, ...
        width: Channels w of the first stage, >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> import torch
        >>> model = ResNet(in_shape=(3, 32, 32), num_classes=10, depth=20, width=16)
        >>> sum(p.numel() for p in model.parameters())  # 0.27M in the paper's table 6
        269722

    References:
        He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR 2016, arXiv:1512.03385.
        He, Zhang, Ren, Sun: Delving deep into rectifiers. ICCV 2015, arXiv:1502.01852, eq. 10.
    """

    def __init__(self, *, in_shape: Sequence[int], num_classes: int, depth: int = 8, width: int = 16) -> None:
        super().__init__()
        # 8 x 8 pixels leave a 2 x 2 feature map in the last stage; in smaller ones the padding would dominate.
        n_in, _, _ = image_shape(in_shape, 8, "two halvings")
        if validation.integer("depth", depth, least=8) % 6 != 2:
            raise ConfigError(f"depth must be 6n + 2 (8, 14, 20, 26, 32, 44, 56, 110, ...), got {depth}")
        n, w = depth // 6, validation.integer("width", width)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(n_in, w, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(w),
                activation=nn.ReLU(),
            )
        )
        self.stages = nn.Sequential(_stage(w, w, n, 1), _stage(w, 2 * w, n, 2), _stage(2 * w, 4 * w, n, 2))
        self.head = nn.Linear(4 * w, validation.integer("num_classes", num_classes))
        self.apply(_initialise)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, num_classes]`` of images ``[batch, *in_shape]``."""
        return self.head(self.stages(self.stem(input)).mean((2, 3)))


def _stage(n_in: int, n_out: int, n_blocks: int, stride: int) -> nn.Sequential:
    """Return the blocks of one stage, of which the first has the stride and the new number of channels."""
    further_blocks = (BasicBlock(n_out, n_out, 1) for _ in range(n_blocks - 1))
    return nn.Sequential(BasicBlock(n_in, n_out, stride), *further_blocks)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.Linear):  # the head: no rectifier follows it, hence the gain of a linear layer
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
