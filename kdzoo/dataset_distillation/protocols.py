"""Training protocols for networks on a synthetic set: its own schedule, and those that a user of it may choose.

A set that is learned through one kind of training may fail under every other. The matrix of accuracies over protocols
and architectures shows whether it does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.dataset_distillation import evaluation_networks
from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet
from kdzoo.errors import ConfigError, DataError
from kdzoo.functional.unroll import SGD, Adam, Optimizer

# Of 0.003, 0.01, 0.03, 0.1 and 0.3 this was the best or within 0.1 points of it, on validation images of MNIST, for
# softmax regression and an MLP on sets of random images, class means, k-means centres and distilled images, and for
# LeNet on class means.
SGD_RATE = 0.1


@dataclass(frozen=True)
class Protocol:
    """A way to train networks on all examples of a set at every step.

    Attributes:
        optimizer: The optimizer; None takes that of the set.
        rate: One step size for all steps; None takes the schedule of the set.
        steps: Number of steps, used only together with ``rate``.
        has_hard_labels: Whether each label is replaced by a one-hot one of its largest entry.
    """

    optimizer: Optimizer | None = None
    rate: float | None = None
    steps: int = 300  # many times the usual 10 inner steps: users of a set train until the loss no longer falls
    has_hard_labels: bool = False


PROTOCOLS: dict[str, Protocol] = {
    "own": Protocol(),
    "sgd": Protocol(SGD(), SGD_RATE),
    "adam_1e-3": Protocol(Adam(), 1e-3),
    "adam_1e-2": Protocol(Adam(), 1e-2),
    "hard": Protocol(has_hard_labels=True),
}
"""Own schedule; 300 steps of gradient descent or Adam at a constant step size; own schedule with one-hot labels."""


@dataclass(frozen=True)
class ProtocolMatrix:
    """Accuracies of networks under several protocols.

    Attributes:
        protocols: Names of the P protocols.
        inner_networks: Names of the L inner networks.
        accuracy: Accuracies ``[P, L, inits]`` in [0, 1]; a network that diverged has that of guessing, 1 / C.
        diverged: Whether the training of a network diverged ``[P, L, inits]``.

    Example:
        >>> diverged = torch.zeros(1, 1, 2, dtype=torch.bool)
        >>> matrix = ProtocolMatrix(("own",), ("linear",), torch.tensor([[[0.9, 0.8]]]), diverged)
        >>> print(matrix.to_markdown())
        | protocol | linear |
        |---|---|
        | own | 85.0 ± 5.0 (worst 80.0) |
    """

    protocols: tuple[str, ...]
    inner_networks: tuple[str, ...]
    accuracy: Tensor
    diverged: Tensor

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of rows and columns: protocols and inner networks."""
        return self.protocols, self.inner_networks

    def mean(self) -> Tensor:
        """Return the mean accuracy over initial weights ``[P, L]``."""
        return self.accuracy.mean(-1)

    def std(self) -> Tensor:
        """Return the standard deviation of the accuracy over initial weights ``[P, L]``."""
        # Without Bessel's correction, which would make the deviation of a single network NaN.
        return self.accuracy.std(-1, correction=0)

    def worst(self) -> Tensor:
        """Return the accuracy from the worst initial weights ``[P, L]``."""
        return self.accuracy.amin(-1)

    def to_markdown(self) -> str:
        """Return a table of accuracies in percent, with the number of networks that diverged where some did."""
        rows = [["protocol", *self.inner_networks]]
        for p, name in enumerate(self.protocols):
            rows.append([name, *[self._cell(p, column) for column in range(len(self.inner_networks))]])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])

    def _cell(self, protocol: int, inner_network: int) -> str:
        statistics = (self.mean(), self.std(), self.worst())
        mean, std, worst = (100 * float(values[protocol, inner_network]) for values in statistics)
        diverged = self.diverged[protocol, inner_network]
        note = f", {int(diverged.sum())} of {len(diverged)} diverged" if diverged.any() else ""
        return f"{mean:.1f} ± {std:.1f} (worst {worst:.1f}{note})"


def protocol_matrix(
    synthetic_set: SyntheticSet,
    inner_networks: Mapping[str, InnerNetwork],
    inputs: Tensor,
    targets: Tensor,
    *,
    protocols: Sequence[str] = tuple(PROTOCOLS),
    inits: int = 20,
    sgd_rate: float = SGD_RATE,
) -> ProtocolMatrix:
    """Train networks on a set under every protocol, from held-out initial weights, and return their accuracies.

    Args:
        synthetic_set: The set.
        inner_networks: The networks by name. One that the set was not learned for, by its name, follows the mean of the
            set's schedules. One with a fixed start is trained once, and its accuracy is used for all ``inits``.
        inputs: Real inputs ``[n, *in_shape]``, n >= 1.
        targets: Their classes ``[n]``.
        protocols: Names in ``PROTOCOLS``.
        inits: Number of networks in each cell, >= 1.
        sgd_rate: Step size of the protocol ``sgd``, > 0.

    Raises:
        ConfigError: An argument is out of its range, an inner network has fewer held-out weights than ``inits``, or its
            pool is not trained.
        DataError: Inputs and targets do not have the same number of rows, or have none.
    """
    rows = _validated_protocols(inner_networks, protocols, sgd_rate)
    if not len(inputs) or targets.shape != (len(inputs),):
        raise DataError(f"inputs [n, ...] and targets [n] must fit, got {tuple(inputs.shape)}, {tuple(targets.shape)}")
    validation.integer("inits", inits)
    initial = {name: _held_out(name, inner_network, inits) for name, inner_network in inner_networks.items()}
    accuracy, diverged = [], []
    for protocol in rows:
        for name, inner_network in inner_networks.items():
            weights = _train(synthetic_set, protocol, name, inner_network, initial[name])
            logits = evaluation_networks.predict_logits(inner_network, weights, inputs)
            accuracy.append(evaluation_networks.accuracy(logits, targets.cpu()).expand(inits))
            diverged.append((~weights.isfinite().all(-1)).cpu().expand(inits))
    shape = len(rows), len(inner_networks), inits
    return ProtocolMatrix(
        tuple(protocols), tuple(inner_networks), torch.stack(accuracy).view(shape), torch.stack(diverged).view(shape)
    )


def _validated_protocols(
    inner_networks: Mapping[str, InnerNetwork], protocols: Sequence[str], sgd_rate: float
) -> list[Protocol]:
    """Return the protocols with the given names, of which ``sgd`` has the given step size."""
    if not inner_networks or not protocols:
        raise ConfigError(
            f"inner_networks and protocols must not be empty, got {list(inner_networks)} and {list(protocols)}"
        )
    table = PROTOCOLS | {"sgd": replace(PROTOCOLS["sgd"], rate=validation.positive("sgd_rate", sgd_rate))}
    return [table[validation.choice(f"protocols[{i}]", name, tuple(table))] for i, name in enumerate(protocols)]


def _held_out(name: str, inner_network: InnerNetwork, inits: int) -> Tensor:
    """Return initial weights ``[inits, P]``, or ``[1, P]`` of a fixed start."""
    weights = inner_network.held_out(inits)
    # One row is all that a fixed start has, but too few from a pool, which then holds out fewer than wanted.
    if len(weights) not in (1, inits) or (len(weights) == 1 and inner_network.fixed is None and inits > 1):
        raise ConfigError(
            f"inner_network.{name} has {len(weights)} held-out initial weights, inits={inits} needs as many"
        )
    return weights


def _train(
    synthetic_set: SyntheticSet, protocol: Protocol, name: str, inner_network: InnerNetwork, initial: Tensor
) -> Tensor:
    """Return weights ``[K, P]`` after the training from ``initial`` ``[K, P]``; those that diverged are NaN."""
    labels = synthetic_set.hard_labels() if protocol.has_hard_labels else None
    if protocol.rate is None:
        step_sizes = _schedule(synthetic_set, name)
    else:
        step_sizes = synthetic_set.images.new_full((protocol.steps,), protocol.rate)
    return evaluation_networks.train_on_set(
        synthetic_set, inner_network, initial, step_sizes, labels=labels, optimizer=protocol.optimizer
    )


def _schedule(synthetic_set: SyntheticSet, name: str) -> Tensor:
    """Return the set's step sizes ``[N]`` for an inner network; their mean over all where it does not know the name."""
    known = [name] if name in synthetic_set.inner_networks else list(synthetic_set.inner_networks)
    return torch.stack([synthetic_set.schedule(other) for other in known]).mean(0)
