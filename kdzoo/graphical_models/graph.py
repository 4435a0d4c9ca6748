"""A directed graphical model: an ordered list of nodes, and how they are rolled out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models.divergences import divergence, per_sample
from kdzoo.graphical_models.nodes import STATE, Conditional, Hidden, Input, Latent, Node, Random, Target
from kdzoo.graphical_models.scan import Scan
from kdzoo.graphical_models.tasks import RolloutOptions, Sampler, Task, hard_sample, node_tasks

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Trace:
    """The result of a rollout.

    Attributes:
        values: Values of all nodes that have one, ``[n, ...]``; in a sequence ``[n, T, ...]``.
        raw: Outputs of the networks of random nodes, by node.
        distributions: Distributions of random nodes given their parents, by node.
        posteriors: Inferred distributions of latents, by node.
    """

    values: dict[str, Tensor]
    raw: dict[str, Tensor]
    distributions: dict[str, Distribution]
    posteriors: dict[str, Distribution]


class Graph(nn.Module):
    """A directed graphical model.

    Args:
        nodes: Nodes in an order in which parents come first, with at most one :class:`kdzoo.graphical_models.Scan`.
        recognition: Deterministic nodes for the posteriors, computed from inputs and targets before all others.

    Attributes:
        like: Empty tensor that has the dtype and the device of the model.
        posteriors_trained: Bool tensor, whether the posteriors have been trained, so that they can be used for
            reconstructions and bounds. It is part of the state, since a loaded model must know it too.

    Raises:
        ConfigError: If a name is used twice, or a parent comes later or does not exist.

    Example:
        >>> from kdzoo.graphical_models import Graph, Latent, Normal, Target
        >>> nodes = [Latent("z", Normal((2,), scale=1.0)), Target("y", Normal((3,), scale=0.5), nn.Linear(2, 3), "z")]
        >>> graph = Graph(nodes)
        >>> trace = graph.rollout(graph.noise(5))
        >>> trace.distributions["y"].mean.shape
        torch.Size([5, 3])
    """

    like: Tensor
    posteriors_trained: Tensor

    def __init__(self, nodes: Iterable[Node | Scan], recognition: Iterable[Hidden] = ()) -> None:
        super().__init__()
        self.entries, self.recognition = nn.ModuleList(nodes), nn.ModuleList(recognition)
        # A buffer follows ``.to()`` and ``.double()`` even where a graph has no parameters.
        self.register_buffer("like", torch.zeros(()), persistent=False)
        self.register_buffer("posteriors_trained", torch.tensor(False))
        self._check()

    # ---------------------------------------------------------------- nodes

    @property
    def scan(self) -> Scan | None:
        """The sequence, if there is one."""
        return next((entry for entry in self.entries if isinstance(entry, Scan)), None)

    def nodes(self) -> Iterator[Node]:
        """Yield all nodes in order, those of a sequence in its place."""
        for entry in self.entries:
            yield from entry.nodes if isinstance(entry, Scan) else [entry]  # type: ignore[misc]

    def latents(self) -> dict[str, Latent]:
        """Return the latents by name, in order."""
        return {node.name: node for node in self.nodes() if isinstance(node, Latent)}

    def targets(self) -> dict[str, Target]:
        """Return the targets by name, in order."""
        return {node.name: node for node in self.nodes() if isinstance(node, Target)}

    def inputs(self) -> dict[str, Input]:
        """Return the inputs by name, in order."""
        return {node.name: node for node in self.nodes() if isinstance(node, Input)}

    def random_nodes(self) -> dict[str, Random]:
        """Return latents and targets by name, in order."""
        return {node.name: node for node in self.nodes() if isinstance(node, Random)}

    def in_sequence(self, name: str) -> bool:
        """Return whether a node's values have a time axis."""
        return self.scan is not None and any(node.name == name for node in self.scan.nodes)

    def leaves(self) -> set[str]:
        """Return the names of random nodes that no generative node depends on."""
        # The state of a sequence is made of the values of the recurrence's parents, so they are used as well.
        used = {parent for conditional in self._generative() for parent in conditional.parents}
        return self.random_nodes().keys() - (used | set(self.scan.carry.parents if self.scan else ()))

    def inference_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of recognition nodes and posteriors, which do not affect samples."""
        yield from self.recognition.parameters()
        if self.scan is not None:
            yield from self.scan.recognition.parameters()
        for node in self.latents().values():
            if node.posterior is not None:
                yield from node.posterior.parameters()

    # ---------------------------------------------------------------- noise and observations

    def noise(
        self, n: int, *, generator: torch.Generator | None = None, steps: int | None = None, leaves: bool = False
    ) -> dict[str, Tensor]:
        """Draw the noise of n samples, ``[n, ...]`` by node, in a sequence ``[n, T, ...]``.

        Args:
            n: Number of samples.
            generator: Random generator; None: the global one.
            steps: Number of steps T; None: the sequence's own.
            leaves: Whether nodes that no other node depends on get noise too. Without it a rollout gives them a
                distribution but no value, which is all that a divergence needs.
        """
        without = set() if leaves else self.leaves()
        return {
            name: node.family.noise(self._leading(name, n, steps), generator)
            for name, node in self.random_nodes().items()
            if node.family.is_random and name not in without
        }

    def draw_inputs(
        self, n: int, *, generator: torch.Generator | None = None, steps: int | None = None
    ) -> dict[str, Tensor]:
        """Draw values for the inputs, by name, from their families' standard distributions (raw values 0)."""
        drawn = {}
        for name, node in self.inputs().items():
            leading = self._leading(name, n, steps)
            raw = torch.zeros(*leading, *node.family.raw_shape)
            drawn[name] = node.family.sample(raw, node.family.noise(leading, generator))
        return drawn

    def observed(self, batch: Values, nodes: Mapping[str, Input | Target]) -> dict[str, Tensor]:
        """Return the values of inputs or targets that a batch holds.

        Args:
            batch: Batch with the keys that the nodes read.
            nodes: Result of :meth:`inputs` or :meth:`targets`.

        Raises:
            ConfigError: If the batch lacks a key that a node reads.
            DataError: If observations do not fit a node's family.
        """
        return {name: self._read(node, batch) for name, node in nodes.items()}

    def _read(self, node: Input | Target, batch: Values) -> Tensor:
        """Return the observations of one node as values; errors name the node."""
        source = node.source
        if isinstance(source, str) and source not in batch:
            raise ConfigError(f"node {node.name!r} reads {source!r}, which the batch lacks; it has {sorted(batch)}")
        observed = batch[source] if isinstance(source, str) else source(dict(batch))
        try:
            if self.in_sequence(node.name):
                # A family encodes the values of single samples; the steps of a sequence are treated as samples.
                return node.family.encode(observed.flatten(0, 1)).unflatten(0, observed.shape[:2]).to(self.like)
            return node.family.encode(observed).to(self.like)
        except DataError as error:
            raise DataError(f"node {node.name!r}: {error}") from None

    def _leading(self, name: str, n: int, steps: int | None) -> tuple[int, ...]:
        """Return the leading dimensions of a node's values for n samples."""
        return (n, steps or self.scan.steps) if self.scan is not None and self.in_sequence(name) else (n,)

    # ---------------------------------------------------------------- rollout

    def rollout(
        self,
        noise: Values,
        inputs: Values | None = None,
        *,
        forced: Values | None = None,
        mixed: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        infer: bool = False,
        sampler: Sampler = hard_sample,
    ) -> Trace:
        """Compute all nodes in order, each value as a function of its parents' values and its noise.

        Args:
            noise: Noise by node, as :meth:`noise` draws it; a random node without noise has a distribution but no
                value.
            inputs: Values of the inputs, by node.
            forced: Given values of random nodes, by node (teacher forcing).
            mixed: By latent, values ``[n, ...]`` of another model and which samples take them, bool ``[n]``.
            infer: Whether latents that are not forced are drawn from their posterior, where they have one.
            sampler: Turns a network's output and noise into a value.

        Raises:
            ConfigError: If a value that is needed has no noise and is not given, or no argument determines the
                number of samples.
        """
        inputs, forced, mixed = inputs or {}, forced or {}, mixed or {}
        options = RolloutOptions(frozenset(forced), frozenset(mixed), frozenset(noise), infer, sampler)
        like = self.like
        store = {**inputs, **forced, **{f"{name}|noise": value.to(like) for name, value in noise.items()}}
        for name, (other, is_other) in mixed.items():
            store |= {f"{name}|other": other, f"{name}|is_other": is_other}
        if not store:
            raise ConfigError("a rollout needs noise, inputs or given values, which say how many samples there are")
        rows = len(next(iter(store.values())))  # the first dimension of all values is that of the samples
        for entry in [*(self.recognition if infer else ()), *self.entries]:
            if isinstance(entry, Scan):
                entry.run(store, options, rows, like)  # a sequence adds its results to the store itself
                continue
            for task in node_tasks(entry, options):
                store[task.provides] = task.run(_needed(task, store), rows, like)
        return self._trace(store)

    def _trace(self, store: Values) -> Trace:
        """Return the contents of the store, sorted by what they are."""
        random = self.random_nodes()
        return Trace(
            # A key with "|" is an intermediate result; see kdzoo.graphical_models.tasks.
            {key: value for key, value in store.items() if "|" not in key},
            {name: store[f"{name}|prior"] for name in random},
            {name: node.family.distribution(store[f"{name}|prior"]) for name, node in random.items()},
            {
                name: node.posterior_family.distribution(store[f"{name}|posterior"])
                for name, node in random.items()
                if isinstance(node, Latent) and f"{name}|posterior" in store
            },
        )

    def samples(self, noise: Values, inputs: Values | None = None, *, sampler: Sampler = hard_sample) -> Tensor:
        """Return the samples that the model generates from noise, in the layout of the data.

        A target that no other node depends on is represented by its mean, unless it has noise: the noise of pixels
        around their mean is not part of what an image model has learned.

        Args:
            noise: Noise by node.
            inputs: Values of the inputs, by node.
            sampler: Turns a network's output and noise into a value.
        """
        trace = self.rollout(noise, inputs, sampler=sampler)
        drawn = {name: trace.values.get(name) for name in self.targets()}
        return self.as_data(
            {name: trace.distributions[name].mean if value is None else value for name, value in drawn.items()}
        )

    def as_data(self, values: Values) -> Tensor:
        """Return targets in the layout of the data: concatenated along the last dimension, in their order."""
        return torch.cat(list(values.values()), -1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Draw as many samples as there are inputs, whose values are not used; inputs of the graph are drawn too."""
        n = len(inputs)
        given = {name: value.to(self.like) for name, value in self.draw_inputs(n).items()}
        return self.samples(self.noise(n), given)

    # ---------------------------------------------------------------- training on data

    def elbo_noise(self, n: int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw the noise that :meth:`negative_elbo` needs for n samples."""
        return self.noise(n, generator=generator)

    def observed_targets(self, batch: Values, noise: Values) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the values of the targets that the bound is computed of; a model may draw them with the noise."""
        return self.observed(batch, self.targets())

    def infer(self, batch: Values, noise: Values) -> Trace:
        """Return the rollout that draws latents from their posteriors, given a batch's inputs and targets.

        Args:
            batch: Batch that the nodes read their observations from.
            noise: Noise as :meth:`elbo_noise` draws it.

        Raises:
            ConfigError: If a latent has no posterior.
        """
        inputs, targets = self.observed(batch, self.inputs()), self.observed_targets(batch, noise)
        uninferred = [name for name, node in self.latents().items() if node.posterior is None]
        if uninferred:
            raise ConfigError(f"latent {uninferred[0]!r} has no posterior: the model cannot be trained on data")
        # The values of targets are given here, so noise of targets in the middle of the graph has no effect.
        own_noise = {name: value for name, value in noise.items() if name not in targets}
        return self.rollout(own_noise, inputs, forced=targets, infer=True)

    def negative_elbo(self, batch: Values, noise: Values, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Return the terms of the negative evidence lower bound by node, ``[b]`` each, in nats.

        The terms of targets are -log p(target | parents), those of latents KL(posterior || prior) (Kingma & Welling
        2014, Auto-encoding variational Bayes, equation 3).

        Args:
            batch: Batch that the nodes read their observations from.
            noise: Noise as :meth:`elbo_noise` draws it.
            lengths: Number of valid steps of sequences, int64 ``[b]``.

        Raises:
            ConfigError: If a latent has no posterior.
        """
        trace, targets = self.infer(batch, noise), self.targets()
        terms = {}
        for name in self.random_nodes():
            if name in targets:
                values = -trace.distributions[name].log_prob(trace.values[name])
            else:
                values = _kl(name, trace.posteriors[name], trace.distributions[name])
            terms[name] = per_sample(values, "sum", lengths=lengths if self.in_sequence(name) else None)
        return terms

    # ---------------------------------------------------------------- checks

    def _generative(self) -> Iterator[Conditional]:
        """Yield the conditionals that generate values."""
        for node in self.nodes():
            if isinstance(node, Hidden | Random):
                yield node.conditional

    def _check(self) -> None:
        """Reject entries that are not nodes, duplicate names, parents that come later, and several sequences."""
        earlier: set[str] = set()
        for entry in self.entries:
            inside = isinstance(entry, Scan)
            for node in entry.nodes if isinstance(entry, Scan) else [entry]:
                if not isinstance(node, Node):
                    raise ConfigError(f"a graph is made of nodes, got {type(node).__name__}")
                if node.name in earlier:
                    raise ConfigError(f"two nodes are named {node.name!r}")
                parents = node.conditional.parents if isinstance(node, Hidden | Random) else ()
                for parent in parents:
                    if parent not in earlier | ({STATE} if inside else set()):
                        raise ConfigError(
                            f"node {node.name!r}: parent {parent!r} is not an earlier node; allowed: {sorted(earlier)}"
                        )
                earlier.add(node.name)
        if sum(isinstance(entry, Scan) for entry in self.entries) > 1:
            raise ConfigError("a graph may have one sequence, got several")


def _kl(name: str, posterior: Distribution, prior: Distribution) -> Tensor:
    """Return KL(posterior || prior); errors name the node."""
    try:
        return divergence("kl", posterior, prior)
    except ConfigError as error:
        raise ConfigError(f"node {name!r}: {error}") from None


def _needed(task: Task, store: Values) -> list[Tensor]:
    """Return the arguments of a task."""
    missing = [name for name in task.needs if name not in store]
    if missing:
        raise ConfigError(f"{task.provides!r} needs {missing[0]!r}, which has no value: give its noise, or force it")
    return [store[name] for name in task.needs]
