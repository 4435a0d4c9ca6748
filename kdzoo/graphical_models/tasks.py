"""What a rollout has to compute for a node, as tasks that name what they need and what they provide.

Tasks exchange tensors through a store, a dictionary by name. The value of a node is stored under the node's name. The
store also holds, where they exist,

=====================  ==========================================================================
``name|prior``         output of the node's network, the raw parameters of its distribution
``name|posterior``     output of the posterior's network
``name|noise``         noise of the node
``name|other``         value of the node in another model, which replaces that of some samples
``name|is_other``      the samples whose value is replaced
=====================  ==========================================================================

Node names cannot contain ``|``, so these keys never collide with values. Stating needs and results explicitly lets
:func:`kdzoo.graphical_models.scan.plan` move work out of the loop over time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.graphical_models.families import Family
from kdzoo.graphical_models.nodes import Conditional, Hidden, Latent, Node, Random

Sampler = Callable[[Family, Tensor, Tensor], Tensor]
"""Turns a family, the network's output and noise into a value."""


def hard_sample(family: Family, raw: Tensor, noise: Tensor) -> Tensor:
    """Return the value that the family itself makes of the noise; values of discrete families have no gradient."""
    return family.sample(raw, noise)


@dataclass(frozen=True)
class RolloutOptions:
    """How a rollout computes the values of random nodes.

    Attributes:
        forced: Names of nodes whose values are given.
        mixed: Names of latents of which some samples take the value of another model.
        noisy: Names of nodes that have noise; a random node without noise has a distribution but no value.
        infer: Whether latents are drawn from their posterior, where they have one.
        sampler: Turns the network's output and noise into a value.
    """

    forced: frozenset[str] = frozenset()
    mixed: frozenset[str] = frozenset()
    noisy: frozenset[str] = frozenset()
    infer: bool = False
    sampler: Sampler = hard_sample


@dataclass(frozen=True)
class Task:
    """One computation of a rollout.

    Attributes:
        provides: Key of the result in the store.
        needs: Keys of the arguments in the store.
        run: Called with the arguments, the number of rows, and a tensor of the right dtype and device.
    """

    provides: str
    needs: tuple[str, ...]
    run: Callable[[Sequence[Tensor], int, Tensor], Tensor]


def node_tasks(node: Node, options: RolloutOptions) -> list[Task]:
    """Return the tasks of a node in the order of computation; an empty list for inputs."""
    if isinstance(node, Hidden):
        return [Task(node.name, node.conditional.parents, node.conditional)]
    if not isinstance(node, Random):
        return []
    # The prior is computed even when the value is forced or inferred: every loss needs its distribution.
    tasks = [_raw_task(f"{node.name}|prior", node.conditional)]
    family = node.family
    if options.infer and isinstance(node, Latent) and node.posterior is not None:
        tasks.append(_posterior_task(node, node.posterior))
        family = node.posterior_family
    if node.name not in options.forced and (node.name in options.noisy or not family.is_random):
        tasks.append(_value_task(node.name, family, tasks[-1].provides, options))
    return tasks


def _raw_task(name: str, conditional: Conditional) -> Task:
    """Return the task that calls a network."""
    return Task(name, conditional.parents, conditional)


def _posterior_task(node: Latent, posterior: Conditional) -> Task:
    """Return the task that computes the raw parameters of a posterior."""
    name = f"{node.name}|posterior"
    if not node.merged:
        return _raw_task(name, posterior)

    def merge(values: Sequence[Tensor], rows: int, like: Tensor) -> Tensor:
        # MergedNormal multiplies both densities; it takes the raw parameters of the prior first.
        prior, *parents = values
        return torch.cat([prior, posterior(parents, rows, like)], dim=prior.ndim - len(node.family.shape))

    return Task(name, (f"{node.name}|prior", *posterior.parents), merge)


def _value_task(name: str, family: Family, source: str, options: RolloutOptions) -> Task:
    """Return the task that turns the raw parameters ``source``, and noise if there is any, into a value."""
    if not family.is_random:
        return Task(name, (source,), lambda values, rows, like: values[0])  # noqa: ARG005
    needs = (source, f"{name}|noise")
    if name not in options.mixed:
        return Task(name, needs, lambda values, rows, like: options.sampler(family, *values))  # noqa: ARG005

    def mixture(values: Sequence[Tensor], rows: int, like: Tensor) -> Tensor:  # noqa: ARG001
        raw, noise, other, is_other = values
        sampled = options.sampler(family, raw, noise)
        return torch.where(is_other.reshape(-1, *[1] * (sampled.ndim - 1)), other, sampled)

    return Task(name, (*needs, f"{name}|other", f"{name}|is_other"), mixture)
