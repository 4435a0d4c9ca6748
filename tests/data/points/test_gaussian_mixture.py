"""Mixtures of Gaussians: their points, modes and density."""

import pytest
import torch

from kdzoo.data import GaussianMixture
from kdzoo.errors import ConfigError


def ready(**options):
    data = GaussianMixture(**options)
    data.setup()
    return data


@pytest.mark.parametrize(("layout", "modes"), [("ring", 8), ("grid", 25)])
def test_points_are_standardised_and_lie_at_equally_many_modes(layout, modes):
    data = ready(layout=layout, n_train=20_000)
    points = data.splits.train.inputs
    # Four standard errors of means and deviations of 20,000 points are 0.028.
    torch.testing.assert_close(points.mean(0), torch.zeros(2), rtol=0, atol=0.028)
    torch.testing.assert_close(points.std(0), torch.ones(2), rtol=0, atol=0.028)
    counts = data.mode_counts(points)
    assert counts.shape == (modes,)
    assert int(counts.sum()) / 20_000 == pytest.approx(0.9889, abs=0.003)  # 1 - exp(-9 / 2)
    assert counts.max() < 1.2 * counts.min()


def test_the_density_of_the_points_is_near_their_entropy():
    data = ready()
    # Modes far apart: the entropy of a normal distribution in the plane, and log 8 for the choice of the mode.
    entropy = 1 + torch.tensor(2 * torch.pi * 0.05**2).log() + torch.tensor(8.0).log()
    assert float(-data.log_density(data.splits.train.inputs).mean()) == pytest.approx(float(entropy), abs=0.05)


def test_splits_differ_and_do_not_depend_on_the_seed_of_a_run():
    first, second = ready(n_val=50, seed=0), ready(n_val=50, seed=1)
    assert torch.equal(first.splits.train.inputs, second.splits.train.inputs)
    assert first.summary() == {"n_train": 8192, "n_labelled": 0, "n_val": 50, "n_test": 1024, "num_classes": 0}
    assert not torch.equal(first.splits.val.inputs, first.splits.test.inputs[:50])
    assert not torch.equal(first.splits.train.inputs, ready(target_seed=1).splits.train.inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "line"}, "layout must be one of ring, grid, got 'line'"),
        ({"deviation": 0.0}, "deviation must be finite and > 0, got 0.0"),
        ({"deviation": 1.0}, "deviation must be below 1, the deviation of all points, got 1.0"),
        ({"n_train": 0}, "n_train must be an integer >= 1, got 0"),
        ({"n_val": -1}, "n_val must be an integer >= 0, got -1"),
        ({"target_seed": -1}, "target_seed must be an integer >= 0, got -1"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_bad_options_raise(options, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        GaussianMixture(**options)
