"""Protocols: how networks are trained on a synthetic set, by its own schedule or as a user of it might.

A set that is learned through one kind of training may fail under every other. The matrix of protocols and networks
shows that.
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

SGD_RATE = 0.1
"""Of 0.003, 0.01, 0.03, 0.1 and 0.3 the best or within 0.1 points of it, on validation images of MNIST, for softmax
regression and an MLP on sets of random images, class means, k-means centres and distilled images, and for LeNet on
class means."""


@dataclass(frozen=True)
class Protocol:
    """A training on all examples of a set at every step.

    Attributes:
        optimizer: None for the set's own.
        rate: one step size for all steps; None for the set's schedule.
        steps: their number, if there is a rate.
        has_hard_labels: whether each example has its largest label only.
    """

    optimizer: Optimizer | None = None
    rate: float | None = None
    steps: int = 300
    has_hard_labels: bool = False


PROTOCOLS: dict[str, Protocol] = {
    "own": Protocol(),
    "sgd": Protocol(SGD(), SGD_RATE),
    "adam_1e-3": Protocol(Adam(), 1e-3),
    "adam_1e-2": Protocol(Adam(), 1e-2),
    "hard": Protocol(has_hard_labels=True),
}
"""The set's own schedule; 300 steps of gradient descent or Adam with a fixed rate; its own with one-hot labels."""


@dataclass(frozen=True)
class ProtocolMatrix:
    """Accuracies of networks under protocols.

    Attributes:
        protocols: P names.
        inner_networks: L names.
        accuracy: [P, L, inits], in [0, 1]; a network that diverged has that of guessing, 1/C.
        diverged: whether a network did, [P, L, inits].

    Example:
        >>> one = ProtocolMatrix(("own",), ("linear",), torch.tensor([[[0.9, 0.8]]]), torch.zeros(1, 1, 2, dtype=torch.bool))
        >>> print(one.to_markdown())
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
        """The names of rows and columns: protocols and inner_networks."""
        return self.protocols, self.inner_networks

    def mean(self) -> Tensor:
        """Return the mean accuracy over initial weights [P, L]."""
        return self.accuracy.mean(-1)

    def std(self) -> Tensor:
        """Return the deviation of the accuracy over initial weights [P, L]."""
        return self.accuracy.std(-1, correction=0)

    def worst(self) -> Tensor:
        """Return the accuracy from the worst initial weights [P, L]."""
        return self.accuracy.amin(-1)

    def to_markdown(self) -> str:
        """Return a table of accuracies in percent, with the number of networks that diverged where some did."""
        rows = [["protocol", *self.inner_networks]]
        for p, name in enumerate(self.protocols):
            rows.append([name, *[self._cell(p, column) for column in range(len(self.inner_networks))]])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])

    def _cell(self, protocol: int, inner_network: int) -> str:
        mean, std, worst = (100 * float(one()[protocol, inner_network]) for one in (self.mean, self.std, self.worst))
        lost = self.diverged[protocol, inner_network]
        note = f", {int(lost.sum())} of {len(lost)} diverged" if lost.any() else ""
        return f"{mean:.1f} ± {std:.1f} (worst {worst:.1f}{note})"


def protocol_matrix(
    few: SyntheticSet,
    inner_networks: Mapping[str, InnerNetwork],
    inputs: Tensor,
    targets: Tensor,
    *,
    protocols: Sequence[str] = tuple(PROTOCOLS),
    inits: int = 20,
    sgd_rate: float = SGD_RATE,
) -> ProtocolMatrix:
    """Return the accuracies of networks that are trained on a set under every protocol, from held-out weights.

    An inner network that the set does not know by name follows the mean of its schedules. An inner network with a fixed start is
    trained once, and its accuracy stands for all.

    Args:
        few: the set.
        inner_networks: the networks, by name; they need not be those that the set was learned for.
        inputs: real inputs [n, ...], n >= 1.
        targets: their classes [n].
        protocols: names in ``PROTOCOLS``.
        inits: networks in each cell, >= 1.
        sgd_rate: of the protocol ``sgd``, > 0.

    Raises:
        ConfigError: an argument is not allowed, or an inner network has fewer held-out weights, or an untrained pool.
        DataError: there is not one target for each input.
    """
    if not inner_networks or not protocols:
        raise ConfigError(
            f"inner_networks and protocols must not be empty, got {list(inner_networks)} and {list(protocols)}"
        )
    if not len(inputs) or targets.shape != (len(inputs),):
        raise DataError(f"inputs [n, ...] and targets [n] must fit, got {tuple(inputs.shape)}, {tuple(targets.shape)}")
    table = PROTOCOLS | {"sgd": replace(PROTOCOLS["sgd"], rate=validation.positive("sgd_rate", sgd_rate))}
    rows = [table[validation.choice(f"protocols[{i}]", name, tuple(table))] for i, name in enumerate(protocols)]
    begin = {
        name: _held_out(name, inner_network, validation.integer("inits", inits))
        for name, inner_network in inner_networks.items()
    }
    cells = [
        [(one, _trained(few, protocol, name, one, begin[name])) for name, one in inner_networks.items()]
        for protocol in rows
    ]
    right = [
        [evaluation_networks.accuracy(evaluation_networks.predict_logits(*cell, inputs), targets.cpu()) for cell in row]
        for row in cells
    ]
    lost = [[~weights.isfinite().all(-1).cpu() for _, weights in row] for row in cells]
    accuracy, diverged = (
        torch.stack([torch.stack([one.expand(inits) for one in row]) for row in table]) for table in (right, lost)
    )
    return ProtocolMatrix(tuple(protocols), tuple(inner_networks), accuracy, diverged)


def _held_out(name: str, inner_network: InnerNetwork, inits: int) -> Tensor:
    """Return initial weights [inits, P], or [1, P] of a fixed start."""
    weights = inner_network.held_out(inits)
    if len(weights) not in (1, inits) or (len(weights) == 1 and inner_network.fixed is None and inits > 1):
        raise ConfigError(
            f"inner network {name} has {len(weights)} held-out initial weights, inits={inits} needs as many"
        )
    return weights


def _trained(few: SyntheticSet, protocol: Protocol, name: str, inner_network: InnerNetwork, begin: Tensor) -> Tensor:
    """Return networks [K, P] that started at ``begin`` [K, P]; the weights of those that diverged are NaN."""
    labels = few.hard_labels() if protocol.has_hard_labels else None
    sizes = _schedule(few, name) if protocol.rate is None else few.images.new_full((protocol.steps,), protocol.rate)
    return evaluation_networks.train_on_set(few, inner_network, begin, sizes, labels=labels, optimizer=protocol.optimizer)


def _schedule(few: SyntheticSet, name: str) -> Tensor:
    """Return the set's step sizes [N] for an inner network; their mean over inner_networks for one that it does not know."""
    known = [name] if name in few.inner_networks else list(few.inner_networks)
    return torch.stack([few.schedule(one) for one in known]).mean(0)
