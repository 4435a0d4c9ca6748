"""What has to be computed for a node, as tasks that name what they need and what they provide.

A store holds tensors by name: the value of a node by its own name, and beside it ``name|prior`` and ``name|posterior``
(what the nets return), ``name|noise``, and for a mixture with another model's values ``name|other`` and
``name|is_other``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.graphical_models.families import Family
from kdzoo.graphical_models.nodes import Conditional, Hidden, Latent, Node, Random

Sampler = Callable[[Family, Tensor, Tensor], Tensor]
"""Turns the net's output and noise into a value."""


def hard(family: Family, raw: Tensor, noise: Tensor) -> Tensor:
    """Return the family's own value: for discrete families one without gradient."""
    return family.sample(raw, noise)


@dataclass(frozen=True)
class Rules:
    """How the values of random nodes come about.

    Attributes:
        forced: names of nodes whose values are given.
        mixed: names of latents of which some samples take the value of another model.
        noisy: names of nodes that have noise; one without it has only a distribution.
        infer: whether latents are drawn from their posterior where they have one.
        sampler: makes a value of the net's output and noise.
    """

    forced: frozenset[str] = frozenset()
    mixed: frozenset[str] = frozenset()
    noisy: frozenset[str] = frozenset()
    infer: bool = False
    sampler: Sampler = hard


@dataclass(frozen=True)
class Task:
    """One thing to compute.

    Attributes:
        provides: its name in the store.
        needs: names in the store.
        run: called with what it needs, the number of rows, and a tensor of the right dtype and device.
    """

    provides: str
    needs: tuple[str, ...]
    run: Callable[[Sequence[Tensor], int, Tensor], Tensor]


def tasks_of(node: Node, rules: Rules) -> list[Task]:
    """Return what has to be computed for a node; nothing for inputs."""
    if isinstance(node, Hidden):
        return [Task(node.name, node.conditional.parents, node.conditional)]
    if not isinstance(node, Random):
        return []
    found = [_raw(f"{node.name}|prior", node.conditional)]
    family = node.family
    if rules.infer and isinstance(node, Latent) and node.posterior is not None:
        found.append(_posterior(node, node.posterior))
        family = node.posterior_family
    if node.name not in rules.forced and (node.name in rules.noisy or not family.is_random):
        found.append(_value(node.name, family, found[-1].provides, rules))
    return found


def _raw(name: str, conditional: Conditional) -> Task:
    return Task(name, conditional.parents, conditional)


def _posterior(node: Latent, posterior: Conditional) -> Task:
    name = f"{node.name}|posterior"
    if not node.merged:
        return _raw(name, posterior)

    def merge(values: Sequence[Tensor], rows: int, like: Tensor) -> Tensor:
        prior, *given = values
        return torch.cat([prior, posterior(given, rows, like)], dim=prior.ndim - len(node.family.shape))

    return Task(name, (f"{node.name}|prior", *posterior.parents), merge)


def _value(name: str, family: Family, source: str, rules: Rules) -> Task:
    if not family.is_random:
        return Task(name, (source,), lambda values, rows, like: values[0])  # noqa: ARG005
    needs = (source, f"{name}|noise")
    if name not in rules.mixed:
        return Task(name, needs, lambda values, rows, like: rules.sampler(family, *values))  # noqa: ARG005

    def mixture(values: Sequence[Tensor], rows: int, like: Tensor) -> Tensor:  # noqa: ARG001
        raw, noise, other, is_other = values
        own = rules.sampler(family, raw, noise)
        return torch.where(is_other.reshape(-1, *[1] * (own.ndim - 1)), other, own)

    return Task(name, (*needs, f"{name}|other", f"{name}|is_other"), mixture)
