"""Scores of generated samples: their names, known values, and the bootstrap interval."""

import pytest
import torch

from kdzoo.functional import sample_distances
from kdzoo.kinds import sample_scores


def features(n=60, d=3, shift=0.0, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_the_frechet_distance_of_a_shift_is_its_length():
    real = features()
    assert sample_scores.frechet(real, real + torch.tensor([3.0, 0.0, 4.0])) == pytest.approx(5)


def test_the_distances_are_those_of_the_functional_module():
    real, generated = features(), features(shift=0.5, seed=1)
    assert sample_scores.distances(real, generated) == {
        "frechet": float(sample_distances.frechet_distance(real, generated, squared=False)),
        "emd": float(sample_distances.earth_movers_distance(real, generated)),
        "mmd": float(sample_distances.mean_discrepancy(real, generated)),
        "one_nn": float(sample_distances.nearest_neighbour_accuracy(real, generated)),
    }


def test_the_nearest_neighbour_tells_distant_samples_apart():
    assert sample_scores.one_nn(features(), features(shift=100.0, seed=1)) == 1


def test_further_distances_of_a_set_to_itself():
    real = features()
    scores = sample_scores.further_distances(real, real)
    assert scores.keys() == {"frechet_squared", "kid", "precision", "recall", "density", "coverage"}
    assert scores["frechet_squared"] == pytest.approx(0, abs=1e-9)
    assert scores["precision"] == scores["recall"] == scores["coverage"] == 1


def test_the_interval_contains_the_distance_and_shrinks_with_the_number_of_samples():
    widths = []
    for n in (50, 800):
        real, generated = features(n), features(n, shift=0.5, seed=1)
        interval = sample_scores.frechet_interval(real, generated)
        assert interval["frechet_low"] < sample_scores.frechet(real, generated) < interval["frechet_high"]
        widths.append(interval["frechet_high"] - interval["frechet_low"])
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.5)


def test_the_interval_is_a_function_of_the_samples():
    real, generated = features(), features(seed=1)
    torch.manual_seed(0)
    first = sample_scores.frechet_interval(real, generated)
    torch.manual_seed(1)
    assert sample_scores.frechet_interval(real, generated) == first
