"""Ladder variational autoencoder of fully connected layers (Sonderby et al. 2016): a chain of latents above an image.

The topmost latent is standard normal, each other one normal given the one above, the image normal with a fixed
deviation given the lowest. A deterministic path goes up from the image; what it says of a latent is a likelihood that
is multiplied with the prior (equations 17 to 19 of the paper).
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Categorical, Graph, Hidden, Input, Latent, Node, Normal, Target

SCALE = 0.05**0.5
"""Deviation of an image's pixels in Chen et al. 2023: the square root of half of 0.1."""


class Perceptron(nn.Module):
    """Fully connected layers on several values, which are flattened and joined.

    Args:
        sizes: of the joined values, of the hidden layers, and of the result.
        shape: of the result for one sample; None: a vector.
        active: whether the last layer also ends in a ReLU.
    """

    def __init__(self, sizes: Sequence[int], shape: tuple[int, ...] | None = None, *, active: bool = False) -> None:
        super().__init__()
        layers = [module for pair in pairwise(sizes) for module in (nn.Linear(*pair), nn.ReLU())]
        self.layers = nn.Sequential(*layers[: None if active else -1])
        self.shape = shape or (sizes[-1],)

    def forward(self, *values: Tensor) -> Tensor:
        """Return [n, *shape] of values [n, ...]."""
        return self.layers(torch.cat([value.flatten(1) for value in values], 1)).unflatten(1, self.shape)


class HVAE(Graph):
    """Ladder variational autoencoder of fully connected layers, with or without a class as condition.

    Nodes: latents `z1` (lowest), `z2`, ... and the target `image`; with a condition the input `label`. Recognition
    nodes `u1`, `u2`, ... Every conditional has two hidden ReLU layers; so has `u1`, and those above it three. The
    topmost prior is N(0, (1 + 1e-6)^2), without parameters; with a condition it is learned for each class, and the
    one-hot class is joined to the parents of all other conditionals and recognition nodes.

    Args:
        in_shape: Shape of one image without the batch.
        num_classes: Number of classes, >= 1; only used, and then needed, with a condition.
        latents: Number of values of each latent, the lowest first, each >= 1.
        width: Units of each hidden layer, >= 1.
        scale: Deviation of the image given `z1`, > 0; its mean is unbounded.
        conditional: Whether the batch's `target`, a class, is given to the model.

    Raises:
        ConfigError: If an argument is outside its range, or there is a condition without classes.

    Example:
        >>> import torch
        >>> model = HVAE(in_shape=(1, 28, 28))
        >>> model(torch.zeros(2, 1, 28, 28)).shape  # as many new images as there are inputs
        torch.Size([2, 1, 28, 28])

    References:
        Sonderby, Raiko, Maaloe, Sonderby, Winther: Ladder variational autoencoders. NIPS 2016, arXiv:1602.02282.
        Chen, Liang, Zeng, Yao, Shao: A unified knowledge distillation framework for deep directed graphical models.
        CVPR 2023.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int | None = None,
        latents: Sequence[int] = (24, 16, 8),
        width: int = 32,
        scale: float = SCALE,
        conditional: bool = False,
    ) -> None:
        shape, sizes = validation.integers("in_shape", in_shape), validation.integers("latents", latents)
        width, scale = validation.integer("width", width), validation.positive("scale", scale)
        classes = condition_size(num_classes, conditional)
        label = ("label",) if classes else ()

        def recognition(level: int) -> Hidden:
            below, n_in = ("image", prod(shape)) if level == 1 else (f"u{level - 1}", width)
            hidden = [width] * (2 if level == 1 else 3)
            return Hidden(f"u{level}", Perceptron([n_in + classes, *hidden], active=True), (below, *label))

        def latent(level: int) -> Latent:
            size = sizes[level - 1]
            posterior, given = nn.Linear(width, 2 * size), f"u{level}"
            if level == len(sizes):
                return top_latent(f"z{level}", (size,), classes, posterior, given)
            net = Perceptron([sizes[level] + classes, width, width, 2 * size])
            parents = (f"z{level + 1}", *label)
            return Latent(
                f"z{level}", Normal((size,)), net, parents, posterior=posterior, posterior_parents=given, merged=True
            )

        image = Perceptron([sizes[0] + classes, width, width, prod(shape)], shape)
        levels = range(1, len(sizes) + 1)
        super().__init__(
            [
                *condition_nodes(classes),
                *(latent(level) for level in reversed(levels)),
                Target("image", Normal(shape, scale), image, ("z1", *label), source="input"),
            ],
            [recognition(level) for level in levels],
        )


def condition_size(num_classes: int | None, conditional: bool) -> int:
    """Return the number of classes that a model is conditioned on, 0 for none.

    Raises:
        ConfigError: there is a condition without classes.
    """
    if not validation.flag("conditional", conditional):
        return 0
    if num_classes is None:
        raise ConfigError("num_classes must be an integer >= 1 where conditional is true, got None")
    return validation.integer("num_classes", num_classes)


def condition_nodes(classes: int) -> list[Node]:
    """Return the input ``label``, a one-hot class; nothing for 0 classes."""
    return [Input("label", Categorical((classes,)), source="target")] if classes else []


class ClassPrior(nn.Module):
    """A raw mean and deviation for each class: a linear map of one-hot vectors without bias.

    Args:
        classes: number of classes.
        shape: of the raw value.
    """

    def __init__(self, classes: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear, self.shape = nn.Linear(classes, prod(shape), bias=False), shape

    def forward(self, label: Tensor) -> Tensor:
        """Return raw values [n, *shape] of one-hot classes [n, classes]."""
        return self.linear(label).unflatten(1, self.shape)


def top_latent(name: str, shape: tuple[int, ...], classes: int, posterior: nn.Module, given: str) -> Latent:
    """Return the topmost latent: standard normal, or with a learned prior for each class.

    Only with a learned prior the posterior is merged with it; otherwise the posterior's net returns it alone.
    """
    family = Normal(shape)
    if not classes:
        return Latent(name, family, posterior=posterior, posterior_parents=given)
    prior = ClassPrior(classes, family.raw_shape)
    return Latent(name, family, prior, "label", posterior=posterior, posterior_parents=given, merged=True)
