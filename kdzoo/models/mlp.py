"""Multilayer perceptron, the student and teacher of Hinton, Vinyals and Dean (2015), sec. 3.

With ``hidden=[1200, 1200]`` and dropout it is that paper's MNIST teacher, with ``hidden=[800, 800]`` its student.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from kdzoo.core import validation

# Not in place: hooks on the layer before would otherwise see values that the activation has overwritten.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class MLP(nn.Module):
    """Fully connected classifier: flatten, then (linear, activation, dropout) for each hidden layer, then linear.

    Modules to hook: ``layers.0``, ``layers.1``, ... return each hidden layer's output ``[batch, width]``,
    ``layers.0.linear`` the value before the activation, ``head`` the logits.

    Args:
        in_shape: Shape of one input without the batch, such as ``[1, 28, 28]`` or ``[64]``.
        num_classes: Number of logits, >= 1.
        hidden: Width of each hidden layer, each >= 1; an empty list gives softmax regression.
        dropout: Probability in [0, 1) of dropping a hidden unit, the same for every hidden layer.
        input_dropout: Probability in [0, 1) of dropping an input value.
        activation: One of relu, leaky_relu, elu, gelu, silu, tanh, sigmoid.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> import torch
        >>> model = MLP(in_shape=(1, 28, 28), num_classes=10, hidden=[800, 800])
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])

    References:
        Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. arXiv:1503.02531, 2015.
        Srivastava et al.: Dropout, a simple way to prevent neural networks from overfitting. JMLR 15, 2014.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        widths = (
            prod(validation.integers("in_shape", in_shape)),
            *validation.integers("hidden", hidden, empty=True),
        )
        dropout = validation.probability("dropout", dropout)
        activate = ACTIVATIONS[validation.choice("activation", activation, tuple(ACTIVATIONS))]
        self.input_dropout = nn.Dropout(validation.probability("input_dropout", input_dropout))
        self.layers = nn.Sequential(*(_layer(n_in, n_out, activate, dropout) for n_in, n_out in pairwise(widths)))
        self.head = nn.Linear(widths[-1], validation.integer("num_classes", num_classes))

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, num_classes]`` of inputs ``[batch, *in_shape]``."""
        return self.head(self.layers(self.input_dropout(input.flatten(1))))


def _layer(n_in: int, n_out: int, activate: type[nn.Module], dropout: float) -> nn.Sequential:
    parts = OrderedDict[str, nn.Module](linear=nn.Linear(n_in, n_out), activation=activate())
    if dropout > 0:  # without it the module would only cost time; names of weights do not depend on it
        parts["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(parts)
