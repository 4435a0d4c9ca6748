"""A synthetic data set: a few images with soft labels, and the step sizes by which networks learn from them."""

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
MIN_STEP_SIZE, MAX_STEP_SIZE = 1e-5, 1.0
OPTIMIZERS = ("sgd", "momentum", "adam")


class SyntheticSet(nn.Module):
    """M examples on which networks are trained in N steps over all of them.

    Args:
        in_shape: shape of one image, without the batch.
        num_classes: number of classes C.
        inner_network: the networks that learn from the set, by name.
        per_class: examples of each class, >= 1.
        examples: number of examples M instead, >= 1; fewer than C share their labels.
        noise: deviation of the images at the start, normal noise, >= 0.
        pixel_range: [least, most] that pixels are brought into after every update; None leaves them free.
        steps: training steps N, >= 1.
        labels: ``free`` (any numbers), ``simplex`` (probabilities), ``fixed`` (one-hot).
        step_size: at the start, in [1e-5, 1].
        step_sizes: learned ``per_step`` or ``shared`` by all steps, or ``fixed``; each inner network has its own.
        optimizer: by which networks learn from the set: ``sgd``, ``momentum``, ``adam``.
        momentum: of ``momentum``, in [0, 1).

    Raises:
        ConfigError: an argument is out of its range, or there are fewer examples than classes with fixed labels.

    Example:
        >>> inner_network = InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        >>> few = SyntheticSet(in_shape=(2, 2), num_classes=3, inner_network={"linear": inner network}, steps=5)
        >>> few.images.shape, few.schedule("linear").shape, few(torch.zeros(7, 2, 2)).shape
        (torch.Size([3, 2, 2]), torch.Size([5]), torch.Size([7, 3]))
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
        start = validation.number("step_size", step_size, MIN_STEP_SIZE, MAX_STEP_SIZE)
        size = validation.integer("per_class", per_class) * num_classes
        size = size if examples is None else validation.integer("examples", examples)
        if labels == "fixed" and size < num_classes:
            raise ConfigError(f"labels=fixed needs an example of each of {num_classes} classes, got examples={size}")
        images = torch.randn(size, *validation.integers("in_shape", in_shape))
        self.images = nn.Parameter(validation.number("noise", noise, least=0.0) * images)
        self.labels = nn.Parameter(initial_labels(size, num_classes), requires_grad=labels != "fixed")
        n_sizes = self.steps if step_sizes == "per_step" else 1
        self.step_sizes = nn.ParameterDict(
            {
                name: nn.Parameter(torch.full((n_sizes,), start), requires_grad=step_sizes != "fixed")
                for name in self.inner_network
            }
        )
        self.project_()

    @property
    def inner_networks(self) -> dict[str, InnerNetwork]:
        """The networks that learn from the set, by name."""
        return {name: one for name, one in self.inner_network.items() if isinstance(one, InnerNetwork)}

    @property
    def size(self) -> int:
        """The number of examples M."""
        return len(self.images)

    def schedule(self, name: str, steps: int | None = None) -> Tensor:
        """Return the step sizes [steps] for an inner network, N unless said otherwise.

        A schedule with a size for each step ends early, or repeats its last size.
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
        """Return networks [K, P] of an inner network that started at ``weights`` [K, P] and were trained on the set.

        Args:
            name: of the inner network.
            weights: of K networks.
            steps: number of steps; None takes N.
            labels: [M, C], other labels than the set's own.
            step_sizes: [steps], others than the set's own.
            optimizer: another one than the set's own.
            **options: engine and window of :func:`kdzoo.functional.unroll.unroll`.

        Raises:
            NonFiniteLossError: the training diverged.
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
        """Return the logits [b, C] of a network of the first inner network that is trained on the set for this call.

        They are 0 where the network diverges.
        """
        name, inner_network = next(iter(self.inner_networks.items()))
        with torch.no_grad():
            try:
                trained = self.train_networks(name, inner_network.held_out(1).to(self.images))
            except NonFiniteLossError:
                return self.images.new_zeros(len(input), self.num_classes)
            return inner_network.logits(trained, input)[0]

    def project_(self) -> None:
        """Bring step sizes into [1e-5, 1], pixels into their range, labels onto the simplex, where wanted, in place."""
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
        """Return the class of each example [M], its largest label."""
        return self.labels.argmax(1)

    def hard_labels(self) -> Tensor:
        """Return one-hot labels [M, C]: of each example, its largest only."""
        return one_hot(self.classes(), self.num_classes).to(self.labels)


def initial_labels(examples: int, num_classes: int) -> Tensor:
    """Return labels [M, C]: examples take turns in blocks of equal size; with M < C a label shares its classes.

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
    """Return the nearest probability distributions to the rows of ``values`` [n, c], by Euclidean distance.

    Duchi, Shalev-Shwartz, Singer & Chandra 2008, Efficient projections onto the l1-ball for learning in high
    dimensions, figure 1.
    """
    values = values - values.amax(1, keepdim=True)  # the same projection, without cancellation of large values
    ordered = values.sort(dim=1, descending=True).values
    excess = (ordered.cumsum(1) - 1) / torch.arange(1, values.shape[1] + 1).to(values)
    kept = (ordered > excess).sum(1, keepdim=True)
    return (values - excess.gather(1, kept - 1)).clamp_min(0)


def validate_inner_networks(inner_network: Mapping[str, Any] | None) -> dict[str, InnerNetwork]:
    """Return the inner_networks by name, after a check that there are some."""
    if not inner_network:
        raise ConfigError(
            f"inner_network must name at least one network to train on the set (inner_network=logistic), got {inner_network!r}"
        )
    for name, one in inner_network.items():
        if not name.isidentifier() or hasattr(nn.ModuleDict, name):
            raise ConfigError(f"inner network.{name} must be named by another word, made of letters, digits and _")
        if not isinstance(one, InnerNetwork):
            raise ConfigError(
                f"inner network.{name} must be a kdzoo.dataset_distillation.InnerNetwork, got {type(one).__name__}"
            )
    return dict(inner_network)


def inner_optimizer(name: str, momentum: float = 0.9) -> Optimizer:
    """Return an optimizer of networks that learn from a set: ``sgd``, ``momentum`` or ``adam``."""
    validation.choice("optimizer", name, OPTIMIZERS)
    made: dict[str, Optimizer] = {"sgd": SGD(), "momentum": Momentum(momentum), "adam": Adam()}
    return made[name]
