"""Matrix product states (tensor trains) of vectors: a chain of small tensors, linear in the features of every input."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.models.mps_base import MPSBase
from kdzoo.tensor_networks.features import FeatureMap, as_feature_map


class MPS(MPSBase):
    """Matrix product state with one site for each number of the input and one output core.

    Modules to hook: ``left`` and ``right`` give the states ``[batch, bond]`` of both sides next to the output,
    ``bonds.<b>`` gives the state at bond b (between sites b - 1 and b) for each b of ``probes``.

    Args:
        n_sites: Number of sites, >= 1; an input has as many numbers.
        n_outputs: Number of outputs, >= 1.
        bond_dim: Bond dimension, >= 1, or the dimensions of all n_sites + 2 bonds.
        feature_map: A name in ``kdzoo.tensor_networks.FEATURE_MAPS``, or a :class:`kdzoo.tensor_networks.FeatureMap`.
        degree: Degree of a feature map that is given by name, >= 1; the local dimension is one more.
        domain: Smallest and largest input of a feature map that is given by name. None: the default of the map.
        order: Position in the flat input of each site. None: the order of the input.
        **options: ``out_site``, ``boundary``, ``noise``, ``probes`` and ``engine``, see
            :class:`kdzoo.models.mps_base.MPSBase`.

    Raises:
        ConfigError: An argument is outside its range.

    Example:
        >>> model = MPS(n_sites=784, n_outputs=10, bond_dim=8)
        >>> model(torch.rand(2, 784)).shape
        torch.Size([2, 10])

    References:
        Stoudenmire, Schwab: Supervised learning with tensor networks. NeurIPS 2016, arXiv:1605.05775.
        Novikov, Trofimov, Oseledets: Exponential machines. ICLR workshop 2017, arXiv:1605.03795.
    """

    def __init__(
        self,
        n_sites: int,
        n_outputs: int,
        bond_dim: int | Sequence[int] = 16,
        *,
        feature_map: str | FeatureMap = "polynomial",
        degree: int = 1,
        domain: Sequence[float] | None = None,
        order: Sequence[int] | Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(bond_dim=bond_dim, **options)
        n_sites = validation.integer("n_sites", n_sites)
        self._build(
            n_sites,
            validation.integer("n_outputs", n_outputs),
            as_feature_map(feature_map, n_sites, degree, domain),
            _permutation(order, n_sites),
        )


def _permutation(order: Sequence[int] | Tensor | None, n_sites: int) -> Tensor:
    """Return an order of the inputs after checking that every input is there once."""
    positions = torch.arange(n_sites) if order is None else torch.as_tensor(order)
    if sorted(positions.tolist()) != list(range(n_sites)):
        raise ConfigError(f"order must hold each of 0..{n_sites - 1} once, got {positions.tolist()[:8]}...")
    return positions
