"""A synthetic data set: a few images with soft labels, and the step sizes by which networks are trained on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from kdzoo.core import validation
from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional.unroll import SGD, Adam, Momentum, Optimizer, unroll

LABELS = ("free", "simplex", "fixed")
STEP_SIZES = ("per_step", "shared", "fixed")
OPTIMIZERS = ("sgd", "momentum", "adam")
# Range that learned step sizes are projected onto after every update. Above 0, so that no step is without effect or
# goes uphill; at most 1, beyond which the inner trainings tend to diverge before the outer gradient brings it back.
MIN_STEP_SIZE, MAX_STEP_SIZE = 1e-5, 1.0


class SyntheticSet(nn.Module):
    """M learned examples on which networks are trained in N steps, each over all of them.

    Args:
        in_shape: Shape of one image without the batch.
        num_classes: Number of classes C, >= 2.
        inner_network: The networks that are trained on the set, by name, as the configuration group of this name
            gives them.
        per_class: Number of examples of each class, >= 1.
        examples: Number of examples M, >= 1, instead of ``per_class``; fewer than C share their labels.
        noise: Standard deviation of the normal noise that the images start from, >= 0.
        pixel_range: ``[least, most]`` onto which pixels are projected after every update; None leaves them free.
        steps: Number of training steps N, >= 1.
        labels: ``free`` (any real numbers), ``simplex`` (probabilities) or ``fixed`` (one-hot, not learned).
        step_size: Initial step size, in [1e-5, 1].
        step_sizes: Learned ``per_step`` or ``shared`` by all steps, or ``fixed``; each inner network has its own.
        optimizer: Optimizer of the networks: ``sgd``, ``momentum`` or ``adam``.
        momentum: Factor of ``momentum``, in [0, 1).

    Raises:
        ConfigError: An argument is out of its range, or there are fewer examples than classes with fixed labels.

    Example:
        >>> linear = InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        >>> synthetic_set = SyntheticSet(in_shape=(2, 2), num_classes=3, inner_network={"linear": linear}, steps=5)
        >>> synthetic_set.images.shape, synthetic_set.schedule("linear").shape
        (torch.Size([3, 2, 2]), torch.Size([5]))
        >>> synthetic_set(torch.zeros(7, 2, 2)).shape
        torch.Size([7, 3])
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int,
        inner_network: Mapping[str, Any] | None = None,
        per_class: int = 1,
        examples: int | None = None,
        noise: float = 1.0,
        pixel_range: Sequence[float] | None = None,
        steps: int = 10,
        labels: str = "free",
        step_size: float = 0.05,
        step_sizes: str = "per_step",
        optimizer: str = "sgd",
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.inner_network = nn.ModuleDict(validate_inner_networks(inner_network))
        self.num_classes = validation.integer("num_classes", num_classes, least=2)
        self.steps = validation.integer("steps", steps)
        self.pixel_range = (
            None if pixel_range is None else validation.interval("pixel_range", pixel_range, validation.number)
        )
        self.label_kind = validation.choice("labels", labels, LABELS)
        self.step_kind = validation.choice("step_sizes", step_sizes, STEP_SIZES)
        self.optimizer = inner_optimizer(optimizer, validation.probability("momentum", momentum))
        initial_size = validation.number("step_size", step_size, MIN_STEP_SIZE, MAX_STEP_SIZE)
        size = validation.integer("per_class", per_class) * num_classes
        size = size if examples is None else validation.integer("examples", examples)
        if labels == "fixed" and size < num_classes:
            raise ConfigError(f"labels=fixed needs an example of each of {num_classes} classes, got examples={size}")
        # The noise is drawn in either case: the same seed then gives the same later draws for every ``noise``.
        images = torch.randn(size, *validation.integers("in_shape", in_shape))
        self.images = nn.Parameter(validation.number("noise", noise, least=0.0) * images)
        self.labels = nn.Parameter(initial_labels(size, num_classes), requires_grad=labels != "fixed")
        n_sizes = self.steps if step_sizes == "per_step" else 1
        self.step_sizes = nn.ParameterDict(
            {
                name: nn.Parameter(torch.full((n_sizes,), initial_size), requires_grad=step_sizes != "fixed")
                for name in self.inner_network
            }
        )
        self.project_()

    @property
    def inner_networks(self) -> dict[str, InnerNetwork]:
        """The networks that are trained on the set, by name."""
        # The check is for type checkers only: a ModuleDict holds modules of any class.
        return {name: network for name, network in self.inner_network.items() if isinstance(network, InnerNetwork)}

    @property
    def size(self) -> int:
        """The number of examples M."""
        return len(self.images)

    def schedule(self, name: str, steps: int | None = None) -> Tensor:
        """Return the step sizes for an inner network.

        Args:
            name: Name of the inner network.
            steps: Number of steps; None takes N. With fewer, a schedule per step ends early; with more, it repeats its
                last size.

        Returns:
            Step sizes ``[steps]``.
        """
        sizes, steps = self.step_sizes[name], self.steps if steps is None else steps
        return torch.cat([sizes[:steps], sizes[-1:].expand(max(steps - len(sizes), 0))])

    def train_networks(
        self,
        name: str,
        weights: Tensor,
        steps: int | None = None,
        *,
        labels: Tensor | None = None,
        step_sizes: Tensor | None = None,
        optimizer: Optimizer | None = None,
        **options: Any,
    ) -> Tensor:
        """Train networks on the set, differentiably with respect to its images, labels and step sizes.

        Args:
            name: Name of the inner network.
            weights: Initial weights ``[K, P]`` of K networks.
            steps: Number of steps; None takes N.
            labels: Labels ``[M, C]``; None takes those of the set.
            step_sizes: Step sizes ``[steps]``; None takes those of the set.
            optimizer: The optimizer; None takes that of the set.
            **options: ``engine`` and ``window`` of :func:`kdzoo.functional.unroll.unroll`.

        Returns:
            Weights ``[K, P]`` after the training.

        Raises:
            NonFiniteLossError: The training of a network diverged.
        """
        return unroll(
            weights,
            self.images,
            self.labels if labels is None else labels,
            self.schedule(name, steps) if step_sizes is None else step_sizes,
            loss=self.inner_networks[name].loss,
            optimizer=optimizer or self.optimizer,
            **options,
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, C]`` of a network that is trained on the set for this call.

        It has the architecture of the first inner network. The logits are 0 where its training diverges.
        """
        name, inner_network = next(iter(self.inner_networks.items()))
        with torch.no_grad():
            try:
                weights = self.train_networks(name, inner_network.held_out(1).to(self.images))
            except NonFiniteLossError:
                return self.images.new_zeros(len(input), self.num_classes)
            return inner_network.logits(weights, input)[0]

    def project_(self) -> None:
        """Project step sizes onto [1e-5, 1], pixels onto ``pixel_range`` and labels onto the simplex, in place.

        It is called after an update of the optimizer. A clamp inside the graph would instead have gradient 0 outside of
        the range, from where a parameter could then never return.
        """
        with torch.no_grad():
            if self.pixel_range is not None:
                self.images.clamp_(*self.pixel_range)
            for sizes in self.step_sizes.values():
                sizes.clamp_(MIN_STEP_SIZE, MAX_STEP_SIZE)
            if self.label_kind == "simplex":
                self.labels.copy_(project_onto_simplex(self.labels))

    def after_step(self) -> None:
        """Project step sizes, pixels and labels after an optimizer step, before a checkpoint can be written."""
        self.project_()

    def classes(self) -> Tensor:
        """Return the class of each example ``[M]``, the index of its largest label."""
        return self.labels.argmax(1)

    def hard_labels(self) -> Tensor:
        """Return one-hot labels ``[M, C]`` of the class of each example."""
        return one_hot(self.classes(), self.num_classes).to(self.labels)


def initial_labels(examples: int, num_classes: int) -> Tensor:
    """Return the labels that the examples start from.

    With at least as many examples as classes, each class has a block of consecutive examples; the sizes of the blocks
    differ by at most one. With fewer, each example has the uniform distribution over a block of consecutive classes.

    Args:
        examples: Number of examples M, >= 1.
        num_classes: Number of classes C, >= 1.

    Returns:
        Labels ``[M, C]``, each a probability distribution.

    Example:
        >>> initial_labels(2, 4)
        tensor([[0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    if examples >= num_classes:
        return one_hot(torch.arange(examples) * num_classes // examples, num_classes).float()
    owner = torch.arange(num_classes) * examples // num_classes
    shares = one_hot(owner, examples).T.float()
    return shares / shares.sum(1, keepdim=True)


def project_onto_simplex(values: Tensor) -> Tensor:
    """Return the probability distributions that are nearest to the rows of ``values``, by Euclidean distance.

    Args:
        values: Any real numbers ``[n, c]``.

    Returns:
        Distributions ``[n, c]``: non-negative rows that sum to 1.

    References:
        Duchi, Shalev-Shwartz, Singer, Chandra: Efficient projections onto the l1-ball for learning in high dimensions.
        ICML 2008, figure 1.
    """
    # A constant that is added to a row does not change its projection; without large values nothing cancels below.
    values = values - values.amax(1, keepdim=True)
    descending = values.sort(dim=1, descending=True).values
    # Entry j is the threshold that makes the first j+1 values sum to 1; the support is where values exceed it.
    thresholds = (descending.cumsum(1) - 1) / torch.arange(1, values.shape[1] + 1).to(values)
    support_size = (descending > thresholds).sum(1, keepdim=True)
    return (values - thresholds.gather(1, support_size - 1)).clamp_min(0)


def validate_inner_networks(inner_network: Mapping[str, Any] | None) -> dict[str, InnerNetwork]:
    """Return the inner networks by name.

    Raises:
        ConfigError: There are none, a value is not an :class:`InnerNetwork`, or a name cannot be that of a module.
    """
    if not inner_network:
        raise ConfigError(
            "inner_network must name at least one network to train on the set (inner_network=logistic), "
            f"got {inner_network!r}"
        )
    for name, network in inner_network.items():
        # ModuleDict keeps modules as attributes: a name such as "items" or "keys" would replace its own method.
        if not name.isidentifier() or name in dir(nn.ModuleDict):
            raise ConfigError(f"inner_network.{name} must have another name, made of letters, digits and _")
        if not isinstance(network, InnerNetwork):
            raise ConfigError(
                f"inner_network.{name} must be a kdzoo.dataset_distillation.InnerNetwork, got {type(network).__name__}"
            )
    return dict(inner_network)


def inner_optimizer(name: str, momentum: float = 0.9) -> Optimizer:
    """Return an optimizer of networks that are trained on a set.

    Args:
        name: ``sgd``, ``momentum`` or ``adam``.
        momentum: Factor of ``momentum``, in [0, 1); the other optimizers ignore it.

    Raises:
        ConfigError: An argument is out of its range.
    """
    validation.choice("optimizer", name, OPTIMIZERS)
    optimizers: dict[str, Optimizer] = {"sgd": SGD(), "momentum": Momentum(momentum), "adam": Adam()}
    return optimizers[name]
