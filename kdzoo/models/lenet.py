"""LeNet with ReLU and max pooling, the network of Wang, Zhu, Torralba and Efros (2018, sec. 4) on digits."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.models.shapes import image_shape

# Side in pixels of the images of LeNet-5 (LeCun et al. 1998), which are 28 x 28 digits with a margin of 2 pixels.
_LENET5_SIDE = 32
# Padding of the first convolution for smaller images: that margin.
_PADDING = 2
# The smallest padded image whose last feature map has one pixel: ((12 + 2 * 2 - 4) // 2 - 4) // 2 = 1.
_MIN_SIDE = 12


class LeNet(nn.Module):
    """Two blocks of (5 x 5 convolution, ReLU, 2 x 2 max pooling), hidden layers of 120 and 84 units, and a linear head.

    The blocks have 6 and 16 channels. The first convolution pads images with a side shorter than 32 by 2 pixels, so
    that images of 28 x 28 and of 32 x 32 pixels both lead to the feature maps of LeNet-5, 14 x 14 and 5 x 5 pixels.
    Modules to hook: ``blocks.0`` and ``blocks.1`` return feature maps, ``blocks.0.conv`` the value before ReLU,
    ``fc.0`` and ``fc.1`` the hidden layers' outputs ``[batch, 120]`` and ``[batch, 84]``, ``head`` the logits.

    Args:
        in_shape: Shape ``[channels, height, width]`` of one image, at least 12 x 12 pixels.
        num_classes: Number of logits, >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> model = LeNet(in_shape=(1, 28, 28), num_classes=10)
        >>> sum(p.numel() for p in model.parameters())
        61706

    References:
        LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. 1998, sec. II.B.
        Wang, Zhu, Torralba, Efros: Dataset distillation. arXiv:1811.10959, 2018.
    """

    def __init__(self, *, in_shape: Sequence[int], num_classes: int) -> None:
        super().__init__()
        n_in, height, width = image_shape(in_shape, _MIN_SIDE, "two 5 x 5 convolutions and poolings")
        padding = _PADDING if min(height, width) < _LENET5_SIDE else 0
        n_features = 16 * _last_side(height, padding) * _last_side(width, padding)
        self.blocks = nn.Sequential(
            _block(nn.Conv2d(n_in, 6, 5, padding=padding)),
            _block(nn.Conv2d(6, 16, 5)),
        )
        self.fc = nn.Sequential(_hidden_layer(n_features, 120), _hidden_layer(120, 84))
        self.head = nn.Linear(84, validation.integer("num_classes", num_classes))

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, num_classes]`` of images ``[batch, *in_shape]``."""
        return self.head(self.fc(self.blocks(input).flatten(1)))


def _block(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(OrderedDict[str, nn.Module](conv=conv, activation=nn.ReLU(), pool=nn.MaxPool2d(2)))


def _hidden_layer(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict[str, nn.Module](linear=nn.Linear(n_in, n_out), activation=nn.ReLU()))


def _last_side(side: int, padding: int) -> int:
    """Return the side of the last feature map in pixels: two valid 5 x 5 convolutions, each followed by a pooling."""
    return ((side + 2 * padding - 4) // 2 - 4) // 2
