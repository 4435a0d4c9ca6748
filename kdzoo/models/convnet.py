"""Small convolutional network after LeNet-5 (LeCun et al. 1998, sec. II.B): blocks that halve the image.

With ``channels=[8], kernel_size=5, hidden=64, activation="tanh", pooling="avg", padding="valid"`` it has 74,650 weights
on 28 x 28 digits (``inner_network=convnet_8``). With ``channels=[128, 128, 128], pooling="avg", norm="instance"`` it is
the ConvNet-3 of dataset condensation (Zhao, Mopuri and Bilen 2021, sec. 4; ``inner_network=convnet_3x128``), whose
authors first pad 28 x 28 images to 32 x 32.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.models.mlp import ACTIVATIONS
from kdzoo.models.shapes import image_shape

POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
# Instance normalisation as a group norm with one channel in each group, which computes the same but also accepts the
# feature maps of one pixel that the last block of a small image has; ``nn.InstanceNorm2d`` rejects these.
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.GroupNorm(channels, channels),
}
PADDINGS = ("same", "valid")


class ConvNet(nn.Module):
    """Blocks of (convolution, norm, activation, 2 x 2 pooling), an optional hidden layer, and a linear head.

    Each pooling halves the image, rounding down.
    Modules to hook: ``blocks.0``, ``blocks.1``, ... return feature maps ``[batch, channels[i], height, width]``,
    ``blocks.0.conv`` the value before norm and activation, ``fc`` the hidden layer's output, ``head`` the logits.

    Args:
        in_shape: Shape ``[channels, height, width]`` of one image.
        num_classes: Number of logits, >= 1.
        channels: Output channels of each block, each >= 1; at least one block.
        kernel_size: Side of the square kernels in pixels, odd and >= 1.
        padding: ``same`` pads with zeros, so that a convolution keeps the size of the image; with ``valid`` height and
            width shrink by kernel_size - 1 pixels.
        norm: Normalisation after each convolution, with a learned scale and shift per channel: ``batch`` over the
            images of the batch, ``instance`` over each image separately; None for none. The convolutions then have no
            bias, which the normalisation would cancel.
        activation: One of relu, leaky_relu, elu, gelu, silu, tanh, sigmoid; also that of the hidden layer.
        pooling: ``max`` or ``avg``.
        hidden: Width of the fully connected hidden layer; 0 for none.
        dropout: Probability in [0, 1) of dropping a value before each fully connected layer.

    Raises:
        ConfigError: If an argument is outside its range, or the image is too small for that many blocks:
            with ``same``, if a side is shorter than ``2 ** len(channels)`` pixels.

    Example:
        >>> import torch
        >>> model = ConvNet(in_shape=(1, 28, 28), num_classes=10, channels=[8, 16])
        >>> model(torch.zeros(2, 1, 28, 28)).shape, model.blocks(torch.zeros(2, 1, 28, 28)).shape
        (torch.Size([2, 10]), torch.Size([2, 16, 7, 7]))

    References:
        LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. 1998.
        Ioffe, Szegedy: Batch normalization. arXiv:1502.03167, 2015.
        Ulyanov, Vedaldi, Lempitsky: Instance normalization. arXiv:1607.08022, 2016.
        Zhao, Mopuri, Bilen: Dataset condensation with gradient matching. ICLR 2021, arXiv:2006.05929.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int,
        channels: Sequence[int] = (16, 32),
        kernel_size: int = 3,
        padding: str = "same",
        norm: str | None = None,
        activation: str = "relu",
        pooling: str = "max",
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = validation.integers("channels", channels)
        if validation.integer("kernel_size", kernel_size) % 2 == 0:
            raise ConfigError(f"kernel_size must be odd, got {kernel_size}")
        shrinkage = kernel_size - 1 if validation.choice("padding", padding, PADDINGS) == "valid" else 0
        n_in, *sides = image_shape(
            in_shape, _min_side(len(widths), shrinkage), _reason(len(widths), kernel_size, shrinkage)
        )
        height, width = (_last_side(side, len(widths), shrinkage) for side in sides)
        norm = None if norm is None else validation.choice("norm", norm, tuple(NORMS))
        activate = ACTIVATIONS[validation.choice("activation", activation, tuple(ACTIVATIONS))]
        pool = POOLINGS[validation.choice("pooling", pooling, tuple(POOLINGS))]
        dropout = validation.probability("dropout", dropout)
        n_features = widths[-1] * height * width
        hidden = validation.integer("hidden", hidden, least=0)

        pairs = zip((n_in, *widths), widths, strict=False)
        convs = (nn.Conv2d(i, o, kernel_size, padding=padding, bias=norm is None) for i, o in pairs)
        self.blocks = nn.Sequential(*(_block(conv, norm, activate(), pool(2)) for conv in convs))
        self.dropout = nn.Dropout(dropout)
        self.fc = _hidden_layer(n_features, hidden, activate(), dropout) if hidden else nn.Identity()
        self.head = nn.Linear(hidden or n_features, validation.integer("num_classes", num_classes))

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, num_classes]`` of images ``[batch, *in_shape]``."""
        return self.head(self.fc(self.dropout(self.blocks(input).flatten(1))))


def _block(conv: nn.Conv2d, norm: str | None, activation: nn.Module, pool: nn.Module) -> nn.Sequential:
    parts = OrderedDict[str, nn.Module](conv=conv)
    if norm is not None:
        parts["norm"] = NORMS[norm](conv.out_channels)
    parts.update(activation=activation, pool=pool)
    return nn.Sequential(parts)


def _hidden_layer(n_in: int, n_out: int, activation: nn.Module, dropout: float) -> nn.Sequential:
    parts = OrderedDict[str, nn.Module](linear=nn.Linear(n_in, n_out), activation=activation)
    if dropout > 0:  # without it the module would only cost time; names of weights do not depend on it
        parts["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(parts)


def _last_side(side: int, n_blocks: int, shrinkage: int) -> int:
    """Return the side of the last feature map in pixels, where each convolution removes ``shrinkage`` pixels."""
    for _ in range(n_blocks):
        side = (side - shrinkage) // 2
    return side


def _min_side(n_blocks: int, shrinkage: int) -> int:
    """Return the side in pixels of the smallest image whose last feature map has one pixel."""
    # Backwards from 1 pixel, each block needs s -> 2 s + shrinkage; this is the closed form after n_blocks of them.
    return 2**n_blocks + shrinkage * (2**n_blocks - 1)


def _reason(n_blocks: int, kernel_size: int, shrinkage: int) -> str:
    convolutions = f" and valid {kernel_size} x {kernel_size} convolutions" if shrinkage else ""
    return f"{n_blocks} poolings{convolutions}"
