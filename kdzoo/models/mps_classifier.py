"""Matrix product states of images and vectors: the order in which a chain visits the numbers of an input."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdzoo.core import validation
from kdzoo.models.mps_base import MPSBase
from kdzoo.tensor_networks.features import FeatureMap, as_feature_map
from kdzoo.tensor_networks.orders import mutual_information_order, site_order


class MPSClassifier(MPSBase):
    """Matrix product state of images or vectors, one site for each number; modules to hook are those of :class:`MPS`.

    Args:
        in_shape: Shape of one input without the batch, such as (1, 28, 28) or (64,).
        num_classes: Number of logits, >= 1.
        feature_map: As for :class:`MPS`, like ``degree`` and ``domain``.
        degree: Degree of a feature map that is given by name, >= 1.
        domain: Smallest and largest input of a feature map that is given by name.
        order: ``raster``, ``snake``, ``hilbert``, or ``mutual_information``, which follows the training data.
        **options: ``bond_dim``, ``out_site``, ``boundary``, ``noise``, ``probes`` and ``engine``, see
            :class:`kdzoo.models.mps_base.MPSBase`.

    Raises:
        ConfigError: An argument is outside its range.

    Example:
        >>> import torch
        >>> model = MPSClassifier(in_shape=(1, 28, 28), num_classes=10, bond_dim=8, order="hilbert")
        >>> model(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int,
        feature_map: str | FeatureMap = "polynomial",
        degree: int = 1,
        domain: Sequence[float] | None = None,
        order: str = "snake",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        positions = site_order(order, validation.integers("in_shape", in_shape))
        self._build(
            len(positions),
            validation.integer("num_classes", num_classes),
            as_feature_map(feature_map, len(positions), degree, domain),
            positions,
        )
        self.order_name = order

    def calibrate(self, inputs: Tensor) -> None:
        """Fit the order of the sites, the feature map and its scale to training inputs ``[samples, ...]``."""
        if self.order_name == "mutual_information":
            self.order.copy_(mutual_information_order(inputs.flatten(1)))
        super().calibrate(inputs)
