"""Points of a mixture of Gaussians in the plane, whose density and modes are known."""

import math
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.randomness import mix_seed
from kdzoo.core.validation import choice, integer, positive
from kdzoo.data.loading.split_data import DataSplits
from kdzoo.data.points.point_data import PointData, Points
from kdzoo.errors import ConfigError
from kdzoo.functional.gaussian_mixture import mixture_log_density, mode_counts

RING, SIDE = 8, 5
"""Modes of the ring, and of each side of the grid, as in Srivastava et al. 2017."""
# Mixed into the seed of the data, so that they are independent of other random numbers with this seed.
_STREAM = 11


class GaussianMixture(PointData):
    """Eight modes on a circle, or 25 on a grid, as in tests of mode collapse (Srivastava et al. 2017, VEEGAN).

    All modes have the same probability. The points have mean 0, and their deviation is 1 in each direction, since the
    modes are placed accordingly. A sample's density and its mode are known, so that the report contains the number of
    modes that a model has found.

    Args:
        layout: ``ring`` (8 modes) or ``grid`` (5 x 5 modes).
        deviation: Deviation of each mode in each direction, in (0, 1).
        n_train: Points for training.
        n_val: Points for val; 0 for none.
        n_test: Points for test.
        target_seed: Seed of the points; they are the same for every seed of a run.
        batch_size: See :class:`kdzoo.data.loading.split_data.SplitDataModule`.
        options: See :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: If an option is out of range.

    Example:
        >>> data = GaussianMixture(layout="grid")
        >>> data.means.shape, data.sizes if data.setup() is None else None
        (torch.Size([25, 2]), {'in_shape': (2,)})

    References:
        Srivastava, Valkov, Russell, Gutmann, Sutton: VEEGAN. NeurIPS 2017, section 5.
    """

    def __init__(
        self,
        *,
        layout: str = "ring",
        deviation: float = 0.05,
        n_train: int = 8192,
        n_val: int = 0,
        n_test: int = 1024,
        target_seed: int = 0,
        batch_size: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **options)
        self.layout = choice("layout", layout, ("ring", "grid"))
        self.deviation = positive("deviation", deviation)
        if self.deviation >= 1:
            raise ConfigError(f"deviation must be below 1, the deviation of all points, got {self.deviation}")
        self.n_train, self.n_test = integer("n_train", n_train), integer("n_test", n_test)
        self.n_val = integer("n_val", n_val, 0)
        self.target_seed = integer("target_seed", target_seed, 0)

    @property
    def means(self) -> Tensor:
        """Means of the modes, float32 ``[modes, 2]``."""
        # The variance of the points is that of the means plus that of a mode.
        spread = math.sqrt(1 - self.deviation**2)
        if self.layout == "grid":
            side = torch.arange(SIDE) - (SIDE - 1) / 2
            return torch.cartesian_prod(side, side) * (spread / side.square().mean().sqrt())
        angles = 2 * math.pi * torch.arange(RING) / RING
        # On a circle of radius r the variance is r^2 / 2 in each direction.
        return spread * math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], 1)

    def load_splits(self) -> DataSplits[Points]:
        """Draw the points."""
        counts = (self.n_train, self.n_val, self.n_test)
        return DataSplits(*(Points(self._draw(n, split)) for split, n in enumerate(counts)))

    def _draw(self, n: int, split: int) -> Tensor:
        """Return points ``[n, 2]`` of a split."""
        generator = torch.Generator().manual_seed(mix_seed(self.target_seed, _STREAM, split))
        modes = torch.randint(len(self.means), (n,), generator=generator)
        return self.means[modes] + self.deviation * torch.randn(n, 2, generator=generator)

    def log_density(self, points: Tensor) -> Tensor:
        """Return the log density of points ``[n, 2]`` in nats, ``[n]``."""
        return mixture_log_density(points, self.means.to(points), self.deviation)

    def mode_counts(self, points: Tensor) -> Tensor:
        """Return the number of points ``[n, 2]`` within three deviations of each mode, int64 ``[modes]``."""
        return mode_counts(points, self.means.to(points), self.deviation)
