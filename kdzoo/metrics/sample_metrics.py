"""Metrics of generative models: how far generated samples are from real ones, by features of any network.

Nothing is downloaded and nothing written: tensors go in. The features are those of a network of yours, in eval mode and
without gradients; without one they are the flattened samples.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from kdzoo.core import validation
from kdzoo.core.inference import inference
from kdzoo.errors import DataError
from kdzoo.functional import sample_distances


class SampleMetric(Metric):
    """Base of the metrics that compare two samples.

    Args:
        extractor: maps samples [n, ...] to features [n, ...], which are flattened; None takes the samples.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better: bool | None = False
    real: list[Tensor]
    generated: list[Tensor]

    def __init__(self, extractor: nn.Module | None = None) -> None:
        super().__init__()
        self.extractor = extractor
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, inputs: Tensor, *, real: bool) -> None:
        """Add samples [n, ...] of the data, or of the model."""
        with inference(self.extractor):
            features = inputs if self.extractor is None else self.extractor(inputs)
        (self.real if real else self.generated).append(features.flatten(1).detach().double())

    def features(self) -> tuple[Tensor, Tensor]:
        """Return the features of all samples so far, real ones [n, d] and generated ones [m, d]."""
        return dim_zero_cat(self.real), dim_zero_cat(self.generated)

    def compute(self) -> Any:
        """Return the metric of all samples so far."""
        return self.between(*self.features())

    @abstractmethod
    def between(self, real: Tensor, generated: Tensor) -> Any:
        """Return the metric between features [n, d] and [m, d]."""


class FrechetDistance(SampleMetric):
    """Frechet distance of the normal distributions of the features: FID, with Inception as extractor.

    Args:
        extractor: see :class:`SampleMetric`.
        squared: whether to return the square, as FID is, or its root, as some papers print.

    Example:
        >>> metric = FrechetDistance(squared=False)
        >>> metric.update(torch.tensor([[0.0], [2.0]]), real=True)
        >>> metric.update(torch.tensor([[3.0], [5.0]]), real=False)
        >>> float(metric.compute())
        3.0
    """

    def __init__(self, extractor: nn.Module | None = None, *, squared: bool = True) -> None:
        super().__init__(extractor)
        self.squared = validation.flag("squared", squared)

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the distance; see :func:`kdzoo.functional.sample_distances.frechet_distance`."""
        return sample_distances.frechet_distance(real, generated, squared=self.squared)


class KernelDistance(SampleMetric):
    """Unbiased squared discrepancy under a cubic kernel: KID; see :func:`kdzoo.functional.sample_distances.kernel_distance`."""

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the distance, which may be negative."""
        return sample_distances.kernel_distance(real, generated)


class MeanDiscrepancy(SampleMetric):
    """Maximum mean discrepancy under a Gaussian kernel.

    Args:
        extractor: see :class:`SampleMetric`.
        bandwidth: of the kernel; see :func:`kdzoo.functional.sample_distances.mean_discrepancy`.
    """

    def __init__(self, extractor: nn.Module | None = None, *, bandwidth: float = 1.0) -> None:
        super().__init__(extractor)
        self.bandwidth = validation.positive("bandwidth", bandwidth)

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the discrepancy, >= 0."""
        return sample_distances.mean_discrepancy(real, generated, bandwidth=self.bandwidth)


class EarthMoversDistance(SampleMetric):
    """Mean Euclidean distance of optimal transport; see :func:`kdzoo.functional.sample_distances.earth_movers_distance`."""

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the distance, >= 0."""
        return sample_distances.earth_movers_distance(real, generated)


class NearestNeighbourAccuracy(SampleMetric):
    """Leave-one-out accuracy of one nearest neighbour, 1/2 for equal distributions.

    Below 1/2 the samples of both come in pairs: see :func:`kdzoo.functional.sample_distances.nearest_neighbour_accuracy`.
    """

    higher_is_better: bool | None = None

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the accuracy, in [0, 1]."""
        return sample_distances.nearest_neighbour_accuracy(real, generated)


class PrecisionRecallDensityCoverage(SampleMetric):
    """How well balls around samples cover the other sample: four numbers by name.

    Args:
        extractor: see :class:`SampleMetric`.
        neighbours: see :func:`kdzoo.functional.sample_distances.precision_recall_density_coverage`.
    """

    higher_is_better: bool | None = True

    def __init__(self, extractor: nn.Module | None = None, *, neighbours: int = 5) -> None:
        super().__init__(extractor)
        self.neighbours = validation.integer("neighbours", neighbours)

    def between(self, real: Tensor, generated: Tensor) -> dict[str, Tensor]:
        """Return ``precision``, ``recall``, ``density`` and ``coverage``."""
        return sample_distances.precision_recall_density_coverage(real, generated, neighbours=self.neighbours)


def bootstrap(
    metric: SampleMetric, *, resamples: int = 200, level: float = 0.95, paired: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the ends of an interval for a metric of one number, by drawing its samples again with replacement.

    A sample that is drawn twice has itself as nearest neighbour: metrics of neighbours come out too large, and their
    interval is of use for its width only.

    Args:
        metric: with all samples.
        resamples: how often to draw, >= 1.
        level: share of the resampled values in the interval, in (0, 1).
        paired: whether sample i of the model belongs to sample i of the data, and is drawn with it.
        seed: of the draws.

    References:
        Efron, Tibshirani: An introduction to the bootstrap. 1993, section 13.3 (percentiles).
    """
    real, generated = metric.features()
    if paired and len(real) != len(generated):
        raise DataError(f"paired samples must be as many, got {len(real)} and {len(generated)}")
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(validation.integer("resamples", resamples)):
        rows = [torch.randint(len(one), (len(one),), generator=generator) for one in (real, generated)]
        values.append(metric.between(real[rows[0]], generated[rows[0] if paired else rows[1]]))
    tail = (1 - validation.number("level", level, 0.0, 1.0)) / 2
    low, high = torch.stack(values).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return low, high
