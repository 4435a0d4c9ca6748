"""Metrics of generative models as torchmetrics: batches, extractors and confidence intervals."""

import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from kdzoo.errors import ConfigError, DataError
from kdzoo.functional import sample_distances
from kdzoo.metrics import (
    EarthMoversDistance,
    FrechetDistance,
    KernelDistance,
    MeanDiscrepancy,
    NearestNeighbourAccuracy,
    PrecisionRecallDensityCoverage,
    bootstrap,
)

CLASSES = {
    FrechetDistance: sample_distances.frechet_distance,
    KernelDistance: sample_distances.kernel_distance,
    MeanDiscrepancy: sample_distances.mean_discrepancy,
    EarthMoversDistance: sample_distances.earth_movers_distance,
    NearestNeighbourAccuracy: sample_distances.nearest_neighbour_accuracy,
    PrecisionRecallDensityCoverage: sample_distances.precision_recall_density_coverage,
}


def images(n, seed, shift=0.0):
    return torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) + shift


def extractor(width=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Dropout(0.5), nn.Tanh())


class OfBytes(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        return self.network(pixels.float() / 255)


def filled(metric, real, generated, batch=7):
    for part in real.split(batch):
        metric.update(part, real=True)
    for part in generated.split(batch):
        metric.update(part, real=False)
    return metric


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_batches_and_an_extractor_give_the_function_of_the_features(kind):
    network = extractor()
    real, generated = images(20, 1), images(25, 2, shift=0.3)
    with torch.no_grad():
        features = [network.eval()(x).double() for x in (real, generated)]
    network.train()
    metric = filled(kind(network), real, generated)
    assert metric.compute() == CLASSES[kind](*features)
    assert network.training
    metric.reset()
    assert filled(metric, real, real).compute() != CLASSES[kind](*features)


def test_without_an_extractor_samples_are_their_own_features():
    real, generated = images(9, 1), images(8, 2)
    expected = sample_distances.earth_movers_distance(real.flatten(1), generated.flatten(1))
    assert filled(EarthMoversDistance(), real, generated).compute() == expected


def test_frechet_distance_is_that_of_torchmetrics_where_there_are_more_samples_than_features():
    network = OfBytes(extractor()).eval()
    expected = FrechetInceptionDistance(feature=network, input_img_size=(1, 4, 4))
    metric = FrechetDistance(network)
    for distance in (expected, metric):
        filled(distance, *((x.sigmoid() * 255).byte() for x in (images(60, 1), images(50, 2, shift=0.3))))
    assert float(metric.compute()) == pytest.approx(float(expected.compute()), rel=1e-3)


def test_an_interval_covers_the_truth_at_its_level():
    truth, inside = 4.0, 0
    for seed in range(60):
        real, generated = (images(150, number)[:, :, :1, :1] for number in (seed, 1000 + seed))
        metric = filled(FrechetDistance(squared=False), real, generated + truth)
        low, high = bootstrap(metric, resamples=100, level=0.9, seed=seed)
        inside += bool(low <= truth <= high)
    assert 45 <= inside <= 60


def test_pairs_are_drawn_together():
    real = images(30, 1)
    metric = filled(EarthMoversDistance(), real, real)
    assert bootstrap(metric, resamples=5, paired=True) == (0, 0)
    assert bootstrap(metric, resamples=5)[0] > 0
    with pytest.raises(DataError, match="must be as many, got 30 and 29"):
        bootstrap(filled(EarthMoversDistance(), real, real[:29]), paired=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: MeanDiscrepancy(bandwidth=0.0), "bandwidth must be finite and > 0", id="bandwidth"),
        pytest.param(
            lambda: PrecisionRecallDensityCoverage(neighbours=0), "neighbours must be an integer >= 1", id="neighbours"
        ),
        pytest.param(lambda: FrechetDistance(squared=1), "squared must be true or false, got 1", id="squared"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_extractor_keeps_the_modes_of_its_parts():
    network = extractor().train()
    network[2].eval()
    FrechetDistance(network).update(images(3, 1), real=True)
    assert [part.training for part in network] == [True, True, False, True]
