"""Ladder variational autoencoder of fully connected layers (Sonderby et al. 2016): a chain of latents above an image.

The topmost latent is standard normal, every other latent is normal given the one above it, and the image is normal with
a fixed deviation given the lowest latent. A deterministic path leads up from the image; at each latent it returns a
likelihood, and the posterior is the normalised product of likelihood and prior (equations 17 to 19 of the paper).
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
"""Default deviation of pixels in [0, 1], that of Chen et al. 2023: sqrt(beta / 2) with beta = 0.1."""


class Perceptron(nn.Module):
    """Fully connected layers on several values, which are flattened and concatenated.

    Args:
        sizes: Sizes of the concatenated values, of the hidden layers, and of the result.
        shape: Shape of the result for one sample; None: a vector.
        relu_output: Whether a ReLU also follows the last layer.
    """

    def __init__(
        self, sizes: Sequence[int], shape: tuple[int, ...] | None = None, *, relu_output: bool = False
    ) -> None:
        super().__init__()
        # A ReLU follows every layer; that of the last layer is removed unless it is wanted.
        layers = [module for pair in pairwise(sizes) for module in (nn.Linear(*pair), nn.ReLU())]
        self.layers = nn.Sequential(*layers[: None if relu_output else -1])
        self.shape = shape or (sizes[-1],)

    def forward(self, *values: Tensor) -> Tensor:
        """Return the result ``[n, *shape]`` for values ``[n, ...]``."""
        return self.layers(torch.cat([value.flatten(1) for value in values], 1)).unflatten(1, self.shape)


class HVAE(Graph):
    """Ladder variational autoencoder of fully connected layers, with or without a class as condition.

    The nodes are the latents ``z1`` (lowest), ``z2``, ... and the target ``image``; with a condition also the input
    ``label``. Recognition nodes are ``u1``, ``u2``, ... Every conditional has two hidden ReLU layers; ``u1`` has two,
    the recognition nodes above it have three. The topmost prior is N(0, (1 + 1e-6)^2), without parameters. With a
    condition it is learned for each class, and the one-hot class is concatenated to the parents of all other
    conditionals and recognition nodes.

    Args:
        in_shape: Shape of one image without the batch dimension.
        num_classes: Number of classes, >= 1; used, and required, only with a condition.
        latents: Number of values of each latent, the lowest first, each >= 1.
        width: Units of each hidden layer, >= 1.
        scale: Deviation of the image given ``z1``, > 0; its mean is unbounded.
        conditional: Whether the model reads the batch's ``target``, a class.

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
            # u1 reads the image; all others read the recognition node below them.
            below, n_in = ("image", prod(shape)) if level == 1 else (f"u{level - 1}", width)
            hidden = [width] * (2 if level == 1 else 3)
            return Hidden(f"u{level}", Perceptron([n_in + classes, *hidden], relu_output=True), (below, *label))

        def latent(level: int) -> Latent:
            size = sizes[level - 1]
            posterior, below = nn.Linear(width, 2 * size), f"u{level}"
            if level == len(sizes):
                return top_latent(f"z{level}", (size,), classes, posterior, below)
            net = Perceptron([sizes[level] + classes, width, width, 2 * size])
            parents = (f"z{level + 1}", *label)
            return Latent(
                f"z{level}",
                Normal((size,)),
                net,
                parents,
                posterior=posterior,
                posterior_parents=below,
                merged=True,
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
    """Return the number of classes that a model is conditioned on; 0 without a condition.

    Raises:
        ConfigError: If there is a condition without classes.
    """
    if not validation.flag("conditional", conditional):
        return 0
    if num_classes is None:
        raise ConfigError("num_classes must be an integer >= 1 where conditional is true, got None")
    return validation.integer("num_classes", num_classes)


def condition_nodes(classes: int) -> list[Node]:
    """Return the input ``label``, a one-hot class; no nodes for 0 classes."""
    # A batch's class is called ``target``: it is the label of a classifier, but a condition here.
    return [Input("label", Categorical((classes,)), source="target")] if classes else []


class ClassPrior(nn.Module):
    """A raw mean and deviation for each class: a linear map of one-hot vectors, as in Chen et al. 2023.

    Args:
        classes: Number of classes.
        shape: Shape of the raw value.
    """

    def __init__(self, classes: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        # A bias would be redundant: each class has its own column.
        self.linear, self.shape = nn.Linear(classes, prod(shape), bias=False), shape

    def forward(self, label: Tensor) -> Tensor:
        """Return raw values ``[n, *shape]`` for one-hot classes ``[n, classes]``."""
        return self.linear(label).unflatten(1, self.shape)


def top_latent(name: str, shape: tuple[int, ...], classes: int, posterior: nn.Module, posterior_parent: str) -> Latent:
    """Return the topmost latent: standard normal, or with a learned prior for each class.

    A learned prior is merged with the likelihood that the posterior's network returns. Without one, the network returns
    the posterior itself.

    Args:
        name: Name of the latent.
        shape: Shape of its value.
        classes: Number of classes of the condition, 0 without one.
        posterior: Network of the posterior.
        posterior_parent: Name of the node that the posterior reads.
    """
    family = Normal(shape)
    if not classes:
        return Latent(name, family, posterior=posterior, posterior_parents=posterior_parent)
    prior = ClassPrior(classes, family.raw_shape)
    return Latent(name, family, prior, "label", posterior=posterior, posterior_parents=posterior_parent, merged=True)
