"""The nodes of a directed graphical model: conditional distributions with a name and a role.

=======  ==============================================================================================================
Input    given from outside, such as a condition
Latent   random and unobserved; it may define how it is inferred (``posterior``)
Target   random and observed, at the end or in the middle of the graph
Hidden   a deterministic value inside the model, which no loss compares
=======  ==============================================================================================================
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import Family, MergedNormal, Normal

Source = str | Callable[[dict[str, Tensor]], Tensor]
"""Key of the batch that holds observations, or a function of the batch that returns them."""
STATE = "state"
"""Parent name by which nodes of a sequence read the state that is carried from step to step."""


class Constant(nn.Module):
    """A network without inputs: one learned tensor for all samples.

    Args:
        *shape: Shape of the tensor, which is initialised with zeros.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        # Zeros are the neutral start of raw parameters: probability 1/2, mean 0 and deviation 1.
        self.value = nn.Parameter(torch.zeros(*shape))

    def forward(self) -> Tensor:
        """Return the tensor ``[*shape]``."""
        return self.value


class Conditional(nn.Module):
    """A network and the names of the values that it is called with.

    Args:
        net: Network that is called with the parents' values ``[n, ...]`` in their order. Without parents it is called
            without arguments and its result holds for all samples. None, only without parents: the result is 0, which
            makes a fixed distribution.
        parents: Names of the parents, or one name.
        shape: Shape of the result for one sample, needed if ``net`` is None.

    Raises:
        ConfigError: If ``net`` is None although there are parents or there is no shape.
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
        """Return the network's result ``[rows, ...]``; ``like`` gives a fixed result its dtype and device."""
        if self.net is None:
            assert self.shape is not None
            return like.new_zeros(rows, *self.shape)
        if not self.parents:
            value = self.net()
            return value.expand(rows, *value.shape)  # a view: kl_normal recognises repeated values by their stride
        return self.net(*values)


class Node(nn.Module):
    """A named value.

    Args:
        name: Name, unique in its graph.

    Raises:
        ConfigError: If the name is empty, contains ``.`` or ``|``, or is ``state``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        # "." ends the prefix of a batch key (``noise.z``), and "|" separates the keys of the store.
        if not name or "." in name or "|" in name or name == STATE:
            raise ConfigError(f"name of a node must be a word without '.' and '|' and not {STATE!r}, got {name!r}")
        self.name = name


class Input(Node):
    """A value that is given from outside.

    Args:
        name: Name, unique in its graph.
        family: How observations become values, and the distribution that values are drawn from if none are given.
        source: Key of the batch, or a function of the batch, that gives the observations ``[b, ...]``.
    """

    def __init__(self, name: str, family: Family, source: Source = "input") -> None:
        super().__init__(name)
        self.family, self.source = family, source


class Hidden(Node):
    """A deterministic value inside the model.

    Args:
        name: Name, unique in its graph.
        net: Network that is called with the parents' values.
        parents: Names of earlier nodes; in a sequence also ``state``.
    """

    def __init__(self, name: str, net: nn.Module, parents: str | Sequence[str]) -> None:
        super().__init__(name)
        self.conditional = Conditional(net, parents)


class Random(Node):
    """A random value whose distribution belongs to a family.

    Args:
        name: Name, unique in its graph.
        family: Family of the distribution.
        net: Network that returns ``[n, *family.raw_shape]``; None, without parents, makes a fixed distribution.
        parents: Names of earlier nodes; in a sequence also ``state``.
    """

    def __init__(
        self, name: str, family: Family, net: nn.Module | None = None, parents: str | Sequence[str] = ()
    ) -> None:
        super().__init__(name)
        self.family = family
        self.conditional = Conditional(net, parents, family.raw_shape)

    @property
    def is_learned(self) -> bool:
        """Whether the distribution has parameters."""
        return self.conditional.net is not None


class Latent(Random):
    """A random value that is not observed.

    Args:
        name: Name, unique in its graph.
        family: See :class:`Random`.
        net: See :class:`Random`.
        parents: See :class:`Random`.
        posterior: Network of the inferred distribution, of the same family; None: the latent is not inferred.
        posterior_parents: Names that the posterior is called with: targets, recognition nodes, earlier nodes,
            ``state``.
        merged: Whether the posterior's network returns a likelihood, which is combined with the prior (normal families:
            the precision-weighted mean; Sonderby et al. 2016, Ladder variational autoencoders, equations 17 to 19).

    Raises:
        ConfigError: If ``merged`` is set without a posterior, or for a family other than a normal one with learned
            deviations.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        net: nn.Module | None = None,
        parents: str | Sequence[str] = (),
        *,
        posterior: nn.Module | None = None,
        posterior_parents: str | Sequence[str] = (),
        merged: bool = False,
    ) -> None:
        super().__init__(name, family, net, parents)
        self.posterior = None if posterior is None else Conditional(posterior, posterior_parents)
        self.merged = merged
        if merged and not (isinstance(family, Normal) and family.scale is None and posterior is not None):
            raise ConfigError(f"node {name!r}: merged needs a normal family with a free scale and a posterior")
        # The posterior's network then returns the likelihood alone; MergedNormal takes the raw values of both.
        self.posterior_family: Family = MergedNormal(family.shape) if merged else family


class Target(Random):
    """A random value that is observed.

    Args:
        name: Name, unique in its graph.
        family: See :class:`Random`.
        net: See :class:`Random`.
        parents: See :class:`Random`.
        source: Key of the batch, or a function of the batch, that gives the observations ``[b, ...]``.
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
