"""Matrix product states of images and vectors: the order in which a chain visits the numbers of an input."""

from collections.abc import Sequence

from torch import Tensor

from kdzoo.core import validation
from kdzoo.models.mps import MPS
from kdzoo.tensor_networks import orders
from kdzoo.tensor_networks.features import FeatureMap


class MPSClassifier(MPS):
    """Matrix product state of images or vectors, one site for each number.

    Args:
        in_shape: Shape of one input without the batch, such as (1, 28, 28) or (64,).
        num_classes: Number of logits, >= 1.
        bond_dim: As of `MPS`, like all that is not named here.
        feature_map: As of `MPS`.
        degree: As of `MPS`.
        domain: As of `MPS`.
        order: `raster`, `snake`, `hilbert`, or `mutual_information`, by the training data.
        out_site: As of `MPS`.
        boundary: As of `MPS`.
        noise: As of `MPS`.
        probes: As of `MPS`.
        engine: As of `MPS`.

    Raises:
        ConfigError: If an argument is outside its range.

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
        bond_dim: int | Sequence[int] = 16,
        feature_map: str | FeatureMap = "polynomial",
        degree: int = 1,
        domain: Sequence[float] | None = None,
        order: str = "snake",
        out_site: int | None = None,
        boundary: str = "open",
        noise: float = 0.5,
        probes: Sequence[int] = (),
        engine: str = "auto",
    ) -> None:
        walk = orders.site_order(order, validation.integers("in_shape", in_shape))
        super().__init__(
            len(walk),
            validation.integer("num_classes", num_classes),
            bond_dim,
            feature_map=feature_map,
            degree=degree,
            domain=domain,
            order=walk,
            out_site=out_site,
            boundary=boundary,
            noise=noise,
            probes=probes,
            engine=engine,
        )
        self.order_name = order

    def calibrate(self, inputs: Tensor) -> None:
        """Look at training inputs (samples, ...) before the training: their order, feature maps, scale."""
        if self.order_name == "mutual_information":
            self.order.copy_(orders.mutual_information_order(inputs.flatten(1)))
        super().calibrate(inputs)
