"""Metrics of generative models as torchmetrics: how far generated samples are from real ones, by their features.

Nothing is downloaded and nothing is written. The features are those of any network, in eval mode and without gradients;
without a network they are the flattened samples.
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
    """Base of the metrics that compare two sets of samples.

    Args:
        extractor: Network that maps samples ``[n, ...]`` to features ``[n, ...]``, which are flattened. None takes the
            samples themselves.
    """

    # ``update`` does not read the state, so that torchmetrics may compute a batch's value without a second update.
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
        """Add a batch of samples.

        Args:
            inputs: Samples, ``[n, ...]``.
            real: Whether they are from the data, and not from the model.
        """
        with inference(self.extractor):
            features = inputs if self.extractor is None else self.extractor(inputs)
        # Distances subtract large numbers that are almost equal, hence float64.
        (self.real if real else self.generated).append(features.flatten(1).detach().double())

    def features(self) -> tuple[Tensor, Tensor]:
        """Return the features of all samples so far: of real ones, ``[n, d]``, and of generated ones, ``[m, d]``."""
        return dim_zero_cat(self.real), dim_zero_cat(self.generated)

    def compute(self) -> Any:
        """Return the metric of all samples so far."""
        return self.between(*self.features())

    @abstractmethod
    def between(self, real: Tensor, generated: Tensor) -> Any:
        """Return the metric between features of real samples, ``[n, d]``, and of generated ones, ``[m, d]``."""


class FrechetDistance(SampleMetric):
    """Frechet distance of normal distributions with the features' means and covariances; FID if they are Inception's.

    Args:
        extractor: See :class:`SampleMetric`.
        squared: Whether to return the squared distance, as FID is, or its root, which some papers print.

    Raises:
        ConfigError: If ``squared`` is not a bool.

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
    """Unbiased squared maximum mean discrepancy under a cubic kernel; KID if the features are those of Inception.

    Args:
        extractor: See :class:`SampleMetric`.
    """

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the distance, which may be negative; see :func:`kdzoo.functional.sample_distances.kernel_distance`."""
        return sample_distances.kernel_distance(real, generated)


class MeanDiscrepancy(SampleMetric):
    """Maximum mean discrepancy under a Gaussian kernel.

    Args:
        extractor: See :class:`SampleMetric`.
        bandwidth: Width of the kernel, > 0; see :func:`kdzoo.functional.sample_distances.mean_discrepancy`.

    Raises:
        ConfigError: If the bandwidth is not positive.
    """

    def __init__(self, extractor: nn.Module | None = None, *, bandwidth: float = 1.0) -> None:
        super().__init__(extractor)
        self.bandwidth = validation.positive("bandwidth", bandwidth)

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the discrepancy, >= 0."""
        return sample_distances.mean_discrepancy(real, generated, bandwidth=self.bandwidth)


class EarthMoversDistance(SampleMetric):
    """Mean Euclidean distance by which optimal transport moves one set of features to the other.

    Args:
        extractor: See :class:`SampleMetric`.
    """

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the distance, >= 0; see :func:`kdzoo.functional.sample_distances.earth_movers_distance`."""
        return sample_distances.earth_movers_distance(real, generated)


class NearestNeighbourAccuracy(SampleMetric):
    """Leave-one-out accuracy of a nearest-neighbour classifier of real and generated samples; 1/2 is ideal.

    Args:
        extractor: See :class:`SampleMetric`.
    """

    # Neither direction is better: above 1/2 the sets can be told apart, below it samples come in pairs.
    higher_is_better: bool | None = None

    def between(self, real: Tensor, generated: Tensor) -> Tensor:
        """Return the accuracy in [0, 1]; see :func:`kdzoo.functional.sample_distances.nearest_neighbour_accuracy`."""
        return sample_distances.nearest_neighbour_accuracy(real, generated)


class PrecisionRecallDensityCoverage(SampleMetric):
    """How well balls around the samples of one set cover the other set: four numbers by name.

    Args:
        extractor: See :class:`SampleMetric`.
        neighbours: Number of neighbours that a ball reaches to, >= 1; see
            :func:`kdzoo.functional.sample_distances.precision_recall_density_coverage`.

    Raises:
        ConfigError: If the number of neighbours is not a positive integer.
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
    """Return the ends of a confidence interval for a metric that is one number, by resampling its samples.

    A sample that is drawn twice is its own nearest neighbour: metrics of neighbours come out too large, and only the
    width of their interval is meaningful.

    Args:
        metric: A metric to which all samples were added.
        resamples: Number of resamples, >= 1.
        level: Share of the resampled values inside of the interval, in [0, 1].
        paired: Whether generated sample i belongs to real sample i, and is drawn together with it.
        seed: Seed of the draws.

    Returns:
        The lower and the upper end.

    Raises:
        ConfigError: If an argument is outside its range.
        DataError: If paired sets have different sizes.

    References:
        Efron, Tibshirani: An introduction to the bootstrap. 1993, section 13.3 (percentiles).
    """
    real, generated = metric.features()
    if paired and len(real) != len(generated):
        raise DataError(f"paired samples must be as many, got {len(real)} and {len(generated)}")
    # A separate generator: a report must not change the random numbers of the training that continues after it.
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(validation.integer("resamples", resamples)):
        # Both are drawn in either case, so that the real draws do not depend on ``paired``.
        rows = [torch.randint(len(features), (len(features),), generator=generator) for features in (real, generated)]
        values.append(metric.between(real[rows[0]], generated[rows[0] if paired else rows[1]]))
    tail = (1 - validation.number("level", level, 0.0, 1.0)) / 2
    low, high = torch.stack(values).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return low, high
