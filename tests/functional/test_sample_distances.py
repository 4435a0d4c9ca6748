"""Distances between sets of samples against SciPy, plain loops and known cases."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment
from torch.autograd import gradcheck

from kdzoo.errors import DataError
from kdzoo.functional import sample_distances

some = settings(max_examples=40, deadline=None, derandomize=True)
DISTANCES = {
    "frechet": sample_distances.frechet_distance,
    "kernel": sample_distances.kernel_distance,
    "mean discrepancy": sample_distances.mean_discrepancy,
    "earth mover": sample_distances.earth_movers_distance,
    "neighbour": sample_distances.nearest_neighbour_accuracy,
}


def random_samples(n, m, d, seed=0, shift=0.5):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=g, dtype=torch.double)
    x, y = (torch.randn(k, d, generator=g, dtype=torch.double) for k in (n, m))
    return x @ mix, y + shift


def pairwise_distances(x, y):
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in y.numpy()] for a in x.numpy()])


# ---------------------------------------------------------------- Frechet distance


@given(st.integers(12, 60), st.integers(12, 60), st.integers(1, 10), st.integers(0, 99))
@some
def test_frechet_distance_is_that_of_the_matrix_root(n, m, d, seed):
    x, y = random_samples(n, m, d, seed)
    means, covariances = zip(
        *[(sample.mean(0).numpy(), np.atleast_2d(np.cov(sample.numpy().T))) for sample in (x, y)], strict=True
    )
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert float(sample_distances.frechet_distance(x, y)) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert float(sample_distances.frechet_distance(x, y, squared=False)) == pytest.approx(
        expected**0.5, rel=1e-6, abs=1e-6
    )


def test_fewer_samples_than_dimensions_agree_with_the_embedding_in_their_span():
    x, y = random_samples(7, 9, 5)
    rotated = torch.linalg.qr(torch.randn(40, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1))).Q.T
    small, large = sample_distances.frechet_distance(x, y), sample_distances.frechet_distance(x @ rotated, y @ rotated)
    assert float(large) == pytest.approx(float(small), rel=1e-9)


def test_frechet_distance_has_a_gradient():
    x, y = random_samples(6, 8, 3)
    assert gradcheck(sample_distances.frechet_distance, (x, y.requires_grad_()))
    wide, other = random_samples(4, 5, 7)
    assert gradcheck(sample_distances.frechet_distance, (wide, other.requires_grad_()))


# ---------------------------------------------------------------- the others


@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 4), st.integers(0, 99))
@some
def test_kernel_distances_are_sums_over_pairs(n, m, d, seed):
    x, y = random_samples(n, m, d, seed)

    def cubic(a, b):
        return (float(a @ b) / d + 1) ** 3

    within = [
        sum(cubic(a, b) for i, a in enumerate(sample) for j, b in enumerate(sample) if i != j)
        / len(sample)
        / (len(sample) - 1)
        for sample in (x, y)
    ]
    across = sum(cubic(a, b) for a in x for b in y) / n / m
    assert float(sample_distances.kernel_distance(x, y)) == pytest.approx(sum(within) - 2 * across, rel=1e-9, abs=1e-9)
    squares = [pairwise_distances(*pair) ** 2 for pair in ((x, x), (y, y), (x, y))]
    width = 2 * 0.7**2 * squares[0].mean()
    kernels = [np.exp(-square / width).mean() for square in squares]
    expected = max(kernels[0] + kernels[1] - 2 * kernels[2], 0) ** 0.5
    assert float(sample_distances.mean_discrepancy(x, y, bandwidth=0.7)) == pytest.approx(expected, abs=1e-7)


def test_earth_movers_distance_is_an_assignment():
    x, y = random_samples(40, 40, 6)
    cost = pairwise_distances(x, y)
    expected = cost[linear_sum_assignment(cost)].mean()
    assert float(sample_distances.earth_movers_distance(x, y)) == pytest.approx(expected, abs=1e-9)
    split = sample_distances.earth_movers_distance(torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0]]))
    assert float(split) == pytest.approx((1 + 3) / 2)


def test_neighbours_of_equal_pairs_far_and_tied_samples():
    x, y = random_samples(30, 30, 4)
    assert float(sample_distances.nearest_neighbour_accuracy(x, x + 1000)) == 1
    paired = sample_distances.nearest_neighbour_accuracy(x, x + 1e-6)
    assert float(paired) == 0
    same = torch.zeros(5, 2)
    assert float(sample_distances.nearest_neighbour_accuracy(same, same)) == pytest.approx(4 / 9)
    pooled = torch.cat([x, y])
    distances = pairwise_distances(pooled, pooled)
    np.fill_diagonal(distances, np.inf)
    right = (distances.argmin(1) < 30) == (np.arange(60) < 30)
    assert float(sample_distances.nearest_neighbour_accuracy(x, y)) == pytest.approx(right.mean())


@given(st.integers(5, 12), st.integers(5, 12), st.integers(1, 4), st.integers(0, 99))
@some
def test_balls_agree_with_counting_one_by_one(n, m, k, seed):
    real, generated = random_samples(n, m, 3, seed)
    across = pairwise_distances(real, generated)
    radii = [np.sort(pairwise_distances(sample, sample), axis=1)[:, k] * (1 + 1e-12) for sample in (real, generated)]
    expected = {
        "precision": np.mean([any(across[i, j] <= radii[0][i] for i in range(n)) for j in range(m)]),
        "recall": np.mean([any(across[i, j] <= radii[1][j] for j in range(m)) for i in range(n)]),
        "density": sum(across[i, j] <= radii[0][i] for i in range(n) for j in range(m)) / (k * m),
        "coverage": np.mean([any(across[i, j] <= radii[0][i] for j in range(m)) for i in range(n)]),
    }
    result = sample_distances.precision_recall_density_coverage(real, generated, neighbours=k)
    assert {name: float(value) for name, value in result.items()} == pytest.approx(expected)


# ---------------------------------------------------------------- all


@pytest.mark.parametrize("name", ["frechet", "mean discrepancy", "earth mover"])
@given(seed=st.integers(0, 99))
@some
def test_distances_are_symmetric_zero_for_equal_samples_and_do_not_depend_on_rotation(name, seed):
    distance = DISTANCES[name]
    x, y = random_samples(14, 14, 3, seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.double, generator=torch.Generator().manual_seed(seed))).Q
    assert float(distance(x, x)) == pytest.approx(0, abs=1e-6)
    assert float(distance(x, y)) > 0
    assert float(distance(x @ rotation + 3, y @ rotation + 3)) == pytest.approx(float(distance(x, y)), rel=1e-6)
    if name != "mean discrepancy":  # its kernel is scaled by the first sample
        assert float(distance(y, x)) == pytest.approx(float(distance(x, y)), rel=1e-6)


@pytest.mark.parametrize("name", sorted({*DISTANCES} - {"kernel"}))
@given(
    seed=st.integers(0, 99),
    exponent=st.integers(-30, 30),
    offset=st.floats(-1e6, 1e6),  # in units of the samples' spread
)
@some
def test_distances_follow_the_scale_of_the_features_and_not_their_common_part(name, seed, exponent, offset):
    distance = DISTANCES[name]
    x, y = random_samples(12, 11, 3, seed)
    scale = 10.0**exponent
    power = {"frechet": 2, "earth mover": 1}.get(name, 0)
    moved = distance((x + offset) * scale, (y + offset) * scale)
    assert float(moved) == pytest.approx(float(distance(x, y)) * scale**power, rel=1e-6)


@given(seed=st.integers(0, 99), exponent=st.integers(-30, 30), offset=st.floats(-1e6, 1e6))
@some
def test_neighbourhoods_follow_neither_scale_nor_common_part(seed, exponent, offset):
    x, y = random_samples(12, 11, 3, seed)
    expected = sample_distances.precision_recall_density_coverage(x, y)
    scaled = [(sample + offset) * 10.0**exponent for sample in (x, y)]
    assert sample_distances.precision_recall_density_coverage(*scaled) == expected


@given(seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.float64]))
@some
def test_ties_of_binary_images_are_those_of_the_integers(seed, dtype):
    g = torch.Generator().manual_seed(seed)
    images = [(torch.rand(n, 16, generator=g) < share).to(dtype) for n, share in ((20, 0.5), (17, 0.4))]
    pooled = torch.cat(images).int()
    differing = (pooled[:, None] != pooled).sum(2).fill_diagonal_(99)
    nearest = differing == differing.amin(1, keepdim=True)
    is_first = torch.arange(37) < 20
    expected = ((nearest & (is_first[:, None] == is_first)).sum(1) / nearest.sum(1)).double().mean()
    normalised = [(image - 0.1307) / 0.3081 for image in images]
    for x, y in (images, normalised):
        assert float(sample_distances.nearest_neighbour_accuracy(x, y)) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", DISTANCES)
def test_float32_and_the_order_of_samples_change_nothing(name):
    distance = DISTANCES[name]
    x, y = (sample.float() for sample in random_samples(20, 17, 4))
    rotated = distance(x.flip(0).double(), y[torch.randperm(17, generator=torch.Generator().manual_seed(0))].double())
    assert float(distance(x, y)) == pytest.approx(float(rotated), rel=1e-9)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        pytest.param(torch.zeros(3, 2), torch.zeros(3, 4), "features must be", id="columns"),
        pytest.param(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), "features must be", id="images"),
        pytest.param(torch.zeros(0, 2), torch.zeros(3, 2), "features must be", id="none"),
        pytest.param(torch.tensor([[0.0], [torch.nan]]), torch.zeros(2, 1), "must be finite", id="nan"),
    ],
)
def test_wrong_features_are_refused(name, x, y, message):
    with pytest.raises(DataError, match=message):
        DISTANCES[name](x, y)


def test_a_kernel_without_width_is_refused():
    with pytest.raises(DataError, match="no width"):
        sample_distances.mean_discrepancy(torch.zeros(3, 1), torch.ones(3, 1))
