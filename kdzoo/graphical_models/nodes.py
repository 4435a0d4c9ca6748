"""The nodes of a directed graphical model: named conditionals with a role.

=======  ==============================================================================================================
Input    given from outside, such as a condition
Latent   random and unobserved; it may name how it is inferred (``posterior``)
Target   random and observed, at the end or in the middle of the graph
Hidden   a deterministic value inside the model, which is compared with nobody's
=======  ==============================================================================================================
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import Family, MergedNormal, Normal

Source = str | Callable[[dict[str, Tensor]], Tensor]
STATE = "state"
"""Name by which nodes of a sequence call what is carried from step to step."""


class Constant(nn.Module):
    """A net without parents: one learned tensor for all samples.

    Args:
        *shape: of the tensor, which begins as zeros.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(*shape))

    def forward(self) -> Tensor:
        """Return the tensor [*shape]."""
        return self.value


class Conditional(nn.Module):
    """A net and the names of the values that it is called with.

    Args:
        net: called with the parents' values [n, ...] in their order; without parents its result is one for all samples.
            None, only without parents: the result is 0, which makes a fixed distribution.
        parents: names, or one name.
        shape: of the result for one sample; None: whatever the net returns.
    """

    def __init__(
        self, net: nn.Module | None, parents: str | Sequence[str] = (), shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.parents = (parents,) if isinstance(parents, str) else tuple(parents)
        self.shape = shape
        if net is None and (self.parents or shape is None):
            raise ConfigError(f"net must be a module for parents {list(self.parents)}, got None")

    def forward(self, values: Sequence[Tensor], rows: int, like: Tensor) -> Tensor:
        """Return the net's result [rows, ...]; ``like`` gives the fixed one its dtype and device."""
        if self.net is None:
            assert self.shape is not None
            return like.new_zeros(rows, *self.shape)
        if not self.parents:
            value = self.net()
            return value.expand(rows, *value.shape)
        return self.net(*values)


class Node(nn.Module):
    """A named value.

    Args:
        name: unique in its graph.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if not name or "." in name or "|" in name or name == STATE:
            raise ConfigError(f"name of a node must be a word without '.' and '|' and not {STATE!r}, got {name!r}")
        self.name = name


class Input(Node):
    """A value that is given from outside.

    Args:
        name: unique in its graph.
        family: how observations become values, and what is drawn where none are given.
        source: key of the batch, or a function of the batch, that gives the observations [b, ...].
    """

    def __init__(self, name: str, family: Family, source: Source = "input") -> None:
        super().__init__(name)
        self.family, self.source = family, source


class Hidden(Node):
    """A deterministic value inside the model.

    Args:
        name: unique in its graph.
        net: called with the parents' values.
        parents: names of earlier nodes; in a sequence also ``state``.
    """

    def __init__(self, name: str, net: nn.Module, parents: str | Sequence[str]) -> None:
        super().__init__(name)
        self.conditional = Conditional(net, parents)


class Random(Node):
    """A random value with a family.

    Args:
        name: unique in its graph.
        family: of the value.
        net: returns [n, *family.raw_shape]; None, without parents, makes a fixed distribution.
        parents: names of earlier nodes; in a sequence also ``state``.
    """

    def __init__(
        self, name: str, family: Family, net: nn.Module | None = None, parents: str | Sequence[str] = ()
    ) -> None:
        super().__init__(name)
        self.family = family
        self.conditional = Conditional(net, parents, family.raw_shape)

    @property
    def is_learned(self) -> bool:
        """Whether the distribution has parameters at all."""
        return self.conditional.net is not None


class Latent(Random):
    """A random value that nobody observes.

    Args:
        name: unique in its graph.
        family: of the value.
        net: see :class:`Random`.
        parents: see :class:`Random`.
        posterior: net of the inferred distribution, of the same family; None: it is not inferred.
        given: names that the posterior is called with: targets, recognition nodes, earlier nodes, ``state``.
        merged: whether the posterior's net returns a likelihood, which is combined with the prior (normal families:
            the precision-weighted mean; Sonderby et al. 2016, Ladder variational autoencoders, equations 17 to 19).
    """

    def __init__(
        self,
        name: str,
        family: Family,
        net: nn.Module | None = None,
        parents: str | Sequence[str] = (),
        *,
        posterior: nn.Module | None = None,
        given: str | Sequence[str] = (),
        merged: bool = False,
    ) -> None:
        super().__init__(name, family, net, parents)
        self.posterior = None if posterior is None else Conditional(posterior, given)
        self.merged = merged
        if merged and not (isinstance(family, Normal) and family.scale is None and posterior is not None):
            raise ConfigError(f"node {name!r}: merged needs a normal family with a free scale and a posterior")
        self.posterior_family: Family = MergedNormal(family.shape) if merged else family


class Target(Random):
    """A random value that is observed.

    Args:
        name: unique in its graph.
        family: of the value.
        net: see :class:`Random`.
        parents: see :class:`Random`.
        source: key of the batch, or a function of the batch, that gives the observations [b, ...].
    """

    def __init__(
        self,
        name: str,
        family: Family,
        net: nn.Module | None = None,
        parents: str | Sequence[str] = (),
        source: Source = "target",
    ) -> None:
        super().__init__(name, family, net, parents)
        self.source = source
