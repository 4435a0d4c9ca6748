"""A network that no synthetic set was made for: by it one sees whether a set suits others than its own inner_networks."""

from torch import nn

from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet
from kdzoo.models import MLP, ConvNet

NAME = "unseen"
_SMALLEST = 6
"""Pixels of the shorter side from which an image suits a convolution of 5 x 5 pixels and a pooling."""


def unseen_architecture(few: SyntheticSet) -> dict[str, InnerNetwork]:
    """Return a small network of an architecture that is not among the set's inner_networks, with torch's initialisation.

    It is a convolutional network for images, unless an inner network is one, and otherwise a perceptron of one hidden layer;
    nothing where the set was learned for both.

    Example:
        >>> linear = InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
        >>> few = SyntheticSet(in_shape=(1, 8, 8), num_classes=3, inner_network={"linear": linear})
        >>> type(stranger(few)["unseen"].model).__name__
        'ConvNet'
    """
    shape = tuple(few.images.shape[1:])
    known = {_family(one.model) for one in few.inner_networks.values()}
    if "convolutional" not in known and len(shape) == 3 and min(shape[1:]) >= _SMALLEST:
        model: nn.Module = ConvNet(
            in_shape=shape,
            num_classes=few.num_classes,
            channels=[8],
            kernel_size=5,
            padding="valid",
            activation="tanh",
            pooling="avg",
            hidden=64,
        )
    elif "perceptron" not in known:
        model = MLP(in_shape=shape, num_classes=few.num_classes, hidden=[100])
    else:
        return {}
    return {NAME: InnerNetwork(model, init="default")}


def _family(model: nn.Module) -> str:
    layers = list(model.modules())
    if any(isinstance(one, nn.Conv2d) for one in layers):
        return "convolutional"
    return "perceptron" if sum(isinstance(one, nn.Linear) for one in layers) > 1 else "linear"
