"""Small convolutional network after LeNet-5 (LeCun et al. 1998, sec. II.B), with ReLU and max pooling."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from kdzoo import checks
from kdzoo.errors import ConfigError
from kdzoo.models.shapes import image_shape


class ConvNet(nn.Module):
    """Blocks of (convolution, batch norm, ReLU, 2 x 2 max pooling), a hidden layer if wanted, a linear head.

    Convolutions keep the image's size and each pooling halves it, rounding down.
    Modules to hook: `blocks.0`, `blocks.1`, ... give feature maps (batch, channels[i], height, width),
    `blocks.0.conv` the value before batch norm and ReLU, `fc` the hidden layer's output, `head` the logits.

    Args:
        in_shape: Shape (channels, height, width) of one image.
        num_classes: Number of logits, >= 1.
        channels: Output channels of each block, each >= 1; at least one block.
        kernel_size: Side of the square kernels in pixels, odd and >= 1.
        hidden: Width of the fully connected hidden layer; 0 for none.
        batch_norm: Whether each convolution is followed by batch normalisation, and so has no bias.
        dropout: Probability in [0, 1) of dropping a value before each fully connected layer.

    Raises:
        ConfigError: If an argument is outside its range, or a side of the image is shorter than
            2 ** len(channels) pixels.

    Example:
        >>> import torch
        >>> model = ConvNet(in_shape=(1, 28, 28), num_classes=10, channels=[8, 16])
        >>> model(torch.zeros(2, 1, 28, 28)).shape, model.blocks(torch.zeros(2, 1, 28, 28)).shape
        (torch.Size([2, 10]), torch.Size([2, 16, 7, 7]))

    References:
        LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. 1998.
        Ioffe, Szegedy: Batch normalization. arXiv:1502.03167, 2015.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int,
        channels: Sequence[int] = (16, 32),
        kernel_size: int = 3,
        hidden: int = 0,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = checks.integers("channels", channels)
        shrink = 2 ** len(widths)
        n_in, height, width = image_shape(in_shape, shrink, f"{len(widths)} poolings")
        if checks.integer("kernel_size", kernel_size) % 2 == 0:
            raise ConfigError(f"kernel_size must be odd, got {kernel_size}")
        batch_norm = checks.flag("batch_norm", batch_norm)
        dropout = checks.probability("dropout", dropout)
        n_features = widths[-1] * (height // shrink) * (width // shrink)
        hidden = checks.integer("hidden", hidden, least=0)

        pairs = zip((n_in, *widths), widths, strict=False)
        self.blocks = nn.Sequential(*(_block(i, o, kernel_size, batch_norm) for i, o in pairs))
        self.dropout = nn.Dropout(dropout)
        self.fc = _hidden_layer(n_features, hidden, dropout) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or n_features, checks.integer("num_classes", num_classes))

    def forward(self, input: Tensor) -> Tensor:
        """Logits (batch, num_classes) of images (batch, *in_shape)."""
        return self.head(self.fc(self.dropout(self.blocks(input).flatten(1))))


def _block(n_in: int, n_out: int, kernel_size: int, batch_norm: bool) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, kernel_size, padding=kernel_size // 2, bias=not batch_norm)
    parts = OrderedDict[str, nn.Module](conv=conv)
    if batch_norm:
        parts["norm"] = nn.BatchNorm2d(n_out)
    parts.update(activation=nn.ReLU(), pool=nn.MaxPool2d(2))
    return nn.Sequential(parts)


def _hidden_layer(n_in: int, n_out: int, dropout: float) -> nn.Sequential:
    parts = OrderedDict[str, nn.Module](linear=nn.Linear(n_in, n_out), activation=nn.ReLU())
    if dropout > 0:
        parts["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(parts)
