"""A network of an architecture that a synthetic set was not learned for, which shows whether the set generalises."""

from torch import nn

from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet
from kdzoo.models import MLP, ConvNet

NAME = "unseen"
# Pixels of the shorter side for which a valid 5 x 5 convolution and a 2 x 2 pooling leave one pixel.
_MIN_SIDE = 6


def unseen_architecture(synthetic_set: SyntheticSet) -> dict[str, InnerNetwork]:
    """Return a small network of an architecture that is not among the set's inner networks.

    It is a convolutional network for images, unless an inner network has convolutions, and otherwise a perceptron with
    one hidden layer. It starts from torch's own initialisation, as the network of a user would.

    Args:
        synthetic_set: The set.

    Returns:
        The network under the name ``NAME``, or an empty dictionary if the set was learned for both architectures.

    Example:
        >>> linear = InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
        >>> synthetic_set = SyntheticSet(in_shape=(1, 8, 8), num_classes=3, inner_network={"linear": linear})
        >>> type(unseen_architecture(synthetic_set)["unseen"].model).__name__
        'ConvNet'
    """
    shape = tuple(synthetic_set.images.shape[1:])
    known = {_family(inner_network.model) for inner_network in synthetic_set.inner_networks.values()}
    if "convolutional" not in known and len(shape) == 3 and min(shape[1:]) >= _MIN_SIDE:
        # The architecture of conf/inner_network/convnet_8.yaml, so that its accuracies can be compared with those of
        # sets that were learned for it.
        model: nn.Module = ConvNet(
            in_shape=shape,
            num_classes=synthetic_set.num_classes,
            channels=[8],
            kernel_size=5,
            padding="valid",
            activation="tanh",
            pooling="avg",
            hidden=64,
        )
    elif "perceptron" not in known:
        # The architecture of conf/inner_network/mlp.yaml.
        model = MLP(in_shape=shape, num_classes=synthetic_set.num_classes, hidden=[100])
    else:
        return {}
    return {NAME: InnerNetwork(model, init="default")}


def _family(model: nn.Module) -> str:
    """Return ``convolutional``, ``perceptron`` (more than one linear layer) or ``linear``."""
    layers = list(model.modules())
    if any(isinstance(layer, nn.Conv2d) for layer in layers):
        return "convolutional"
    return "perceptron" if sum(isinstance(layer, nn.Linear) for layer in layers) > 1 else "linear"
