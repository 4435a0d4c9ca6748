"""Selections of real examples: shared properties, independent references and refusals."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.core.batch import IGNORE
from kdzoo.dataset_distillation.selection import SELECTIONS, herding, k_center, select
from kdzoo.errors import ConfigError, DataError
from tests.reference import selection as reference

CHOOSE = ("random", "herding", "k_center")
MAKE = ("mean", "kmeans")
SHAPE = (2, 3)

some = settings(max_examples=30, deadline=None, derandomize=True)


@st.composite
def labelled(draw, most=12):
    """Samples [n, 2, 3] of up to three classes, some without a label, and a number of examples that each class has."""
    sizes = draw(st.lists(st.integers(1, most), min_size=1, max_size=3))
    unlabelled = draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    targets = torch.cat(
        [torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), torch.full((unlabelled,), IGNORE)]
    )
    targets = targets[torch.randperm(len(targets), generator=generator)]
    inputs = torch.randn(len(targets), *SHAPE, generator=generator)
    return inputs, targets, draw(st.integers(1, min(sizes))), len(sizes)


@st.composite
def clouds(draw, most=9):
    """Points [n, d] on a grid, often several on one place, and a number of them."""
    n, d = draw(st.integers(1, most)), draw(st.integers(1, 3))
    values = draw(st.lists(st.integers(-4, 4), min_size=n * d, max_size=n * d))
    return torch.tensor(values, dtype=torch.float64).view(n, d), draw(st.integers(1, n))


def rows(images):
    return {tuple(row.tolist()) for row in images.flatten(1)}


def test_names():
    assert set(SELECTIONS) == {*CHOOSE, *MAKE}


# ---------------------------------------------------------------- properties of all selections


@pytest.mark.parametrize("name", SELECTIONS)
@some
@given(data=labelled(), seed=st.integers(0, 100))
def test_every_class_gets_its_number_in_order(name, data, seed):
    inputs, targets, per_class, num_classes = data
    images, classes = select(name, inputs, targets, per_class, num_classes, seed)
    assert images.shape == (per_class * num_classes, *SHAPE)
    assert images.dtype == inputs.dtype
    assert classes.tolist() == sorted(list(range(num_classes)) * per_class)


@pytest.mark.parametrize("name", CHOOSE)
@some
@given(data=labelled(), seed=st.integers(0, 100))
def test_chosen_examples_are_different_samples_of_their_class(name, data, seed):
    inputs, targets, per_class, num_classes = data
    images, classes = select(name, inputs, targets, per_class, num_classes, seed)
    for c in range(num_classes):
        assert rows(images[classes == c]) <= rows(inputs[targets == c])
        assert len(rows(images[classes == c])) == per_class


@pytest.mark.parametrize("name", MAKE)
@some
@given(data=labelled(), seed=st.integers(0, 100))
def test_a_single_averaged_example_is_the_mean_of_its_class(name, data, seed):
    inputs, targets, _, num_classes = data
    images, _ = select(name, inputs, targets, 1, num_classes, seed)
    for c in range(num_classes):
        expected = inputs.double().numpy()[targets.numpy() == c].mean(0)
        np.testing.assert_allclose(images[c].numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", SELECTIONS)
@some
@given(data=labelled(), seed=st.integers(0, 100))
def test_the_seed_alone_decides(name, data, seed):
    torch.rand(1)
    assert torch.equal(select(name, *data, seed)[0], select(name, *data, seed)[0])


@pytest.mark.parametrize("name", ["random", "mean"])
def test_another_seed_gives_other_examples(name):
    inputs, targets = torch.randn(50, *SHAPE), torch.zeros(50, dtype=torch.long)
    assert rows(select(name, inputs, targets, 3, 1, 0)[0]) != rows(select(name, inputs, targets, 3, 1, 1)[0])


@pytest.mark.parametrize("name", SELECTIONS)
@some
@given(data=labelled())
def test_samples_without_a_label_have_no_effect(name, data):
    inputs, targets, per_class, num_classes = data
    known = targets != IGNORE
    everything = select(name, inputs, targets, per_class, num_classes, 0)[0]
    assert torch.equal(everything, select(name, inputs[known], targets[known], per_class, num_classes, 0)[0])


@pytest.mark.parametrize("rule", [herding, k_center])
@some
@given(seed=st.integers(0, 1000), n=st.integers(3, 15), d=st.integers(1, 5))
def test_the_choice_is_invariant_to_order_scale_rotation_and_shift(rule, seed, n, d):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, d, generator=generator, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    expected = rule(points, n - 2).tolist()  # the last two are as good in either order
    assert order[rule(points[order], n - 2)].tolist() == expected
    assert rule(3.7 * points @ rotation + 2.0, n - 2).tolist() == expected


@pytest.mark.parametrize("rule", [herding, k_center])
@some
@given(points=clouds())
def test_no_sample_is_taken_twice(rule, points):
    assert sorted(rule(points[0], len(points[0])).tolist()) == list(range(len(points[0])))


@pytest.mark.parametrize("name", SELECTIONS)
def test_classes_may_have_different_numbers(name):
    torch.manual_seed(0)
    inputs, targets = torch.randn(30, *SHAPE), torch.arange(30) % 4
    images, classes = select(name, inputs, targets, [0, 2, 1, 0], 4)
    assert classes.tolist() == [1, 1, 2]
    assert images.shape == (3, *SHAPE)
    if name != "mean":  # a class's random parts depend on what was drawn before
        torch.testing.assert_close(select(name, inputs, targets, [0, 2, 0, 0], 4)[0], images[:2])


@pytest.mark.parametrize("name", SELECTIONS)
def test_samples_are_compared_by_features_where_given(name):
    torch.manual_seed(0)
    features, targets = torch.randn(12, 4), torch.arange(12) % 2
    by_position = torch.eye(12)
    mixed, _ = select(name, by_position, targets, 2, 2, features=features)
    made, _ = select(name, features, targets, 2, 2)
    torch.testing.assert_close(mixed @ features, made)


# ---------------------------------------------------------------- single selections


def test_random_samples_are_all_as_likely():
    inputs, targets = torch.arange(5.0).view(5, 1), torch.zeros(5, dtype=torch.long)
    draws = torch.cat([select("random", inputs, targets, 2, 1, seed)[0] for seed in range(2000)]).flatten().long()
    assert draws.bincount().sub(800).abs().max() < 120  # five deviations of a binomial of 2000 and 0.4


@some
@given(data=labelled(), seed=st.integers(0, 100))
def test_random_parts_keep_the_mean_of_the_class(data, seed):
    inputs, targets, count, num_classes = data
    images, classes = select("mean", inputs, targets, count, num_classes, seed)
    for c in range(num_classes):
        n = int((targets == c).sum())
        sizes = torch.tensor([n // count + (part < n % count) for part in range(count)])
        mean = (sizes.view(-1, 1, 1) * images[classes == c]).sum(0) / n
        torch.testing.assert_close(mean, inputs[targets == c].mean(0), rtol=1e-5, atol=1e-6)


@some
@given(data=labelled(most=20), seed=st.integers(0, 100))
def test_centres_of_k_means_are_the_means_of_what_is_nearest_to_them(data, seed):
    inputs, targets, count, num_classes = data
    images, classes = select("kmeans", inputs.double(), targets, count, num_classes, seed)
    for c in range(num_classes):
        points, centres = inputs.double()[targets == c].flatten(1), images[classes == c].flatten(1)
        nearest = torch.cdist(points, centres).argmin(1)
        means = torch.stack([points[nearest == k].mean(0) for k in range(count)])
        torch.testing.assert_close(centres, means)


@some
@given(points=clouds(), seed=st.integers(0, 100))
def test_k_means_of_samples_that_are_alike(points, seed):
    points, count = points
    images, _ = select("kmeans", points, torch.zeros(len(points), dtype=torch.long), count, 1, seed)
    assert len(images) == count
    if len(rows(points)) <= count:
        assert rows(images) == rows(points)


def test_k_means_finds_groups_that_lie_apart():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    images, _ = select(
        "kmeans", centres.repeat(20, 1) + 0.01 * torch.randn(60, 2), torch.zeros(60, dtype=torch.long), 3, 1
    )
    assert torch.cdist(centres, images).min(1).values.max() < 0.02


@some
@given(points=clouds())
def test_herding_is_greedy_also_among_equals(points):
    points, count = points[0].numpy(), points[1]
    chosen = herding(torch.from_numpy(points), count).tolist()
    for t in range(count):
        left = [i for i in range(len(points)) if i not in chosen[:t]]
        least = min(reference.mean_error(points, [*chosen[:t], i]) for i in left)
        assert reference.mean_error(points, chosen[: t + 1]) == pytest.approx(least, abs=1e-12)


@some
@given(st.integers(0, 1000), st.integers(3, 15), st.integers(1, 5))
def test_herding_is_the_reference(seed, n, d):
    points = np.random.default_rng(seed).normal(size=(n, d))
    assert herding(torch.from_numpy(points), n - 2).tolist() == reference.herding(points, n - 2)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(4, 30), st.integers(1, 4))
def test_herding_of_up_to_half_is_closer_to_the_mean_than_random_samples_are(seed, n, d):
    points = np.random.default_rng(seed).normal(size=(n, d))
    variance = points.var(0, ddof=1).sum()
    chosen = herding(torch.from_numpy(points), n // 2).tolist()
    for count in range(1, n // 2 + 1):
        expected = variance / count * (1 - count / n)  # mean square of the error of samples without replacement
        assert reference.mean_error(points, chosen[:count]) ** 2 <= expected


@some
@given(points=clouds(most=8))
def test_k_center_is_at_most_twice_as_far_as_the_best(points):
    points, count = points
    chosen = k_center(points, count).tolist()
    assert len(set(chosen)) == count
    best = reference.least_radius(points.numpy(), count)
    assert reference.radius(points.numpy(), chosen) <= 2 * best + 1e-12


@some
@given(points=clouds())
def test_k_center_takes_the_farthest_each_time(points):
    points, count = points
    chosen = k_center(points, count).tolist()
    first = (points - points.mean(0)).norm(dim=1)
    assert first[chosen[0]] == pytest.approx(float(first.min()))
    for t in range(1, count):
        near = torch.cdist(points, points[chosen[:t]]).min(1).values
        assert float(near[chosen[t]]) == pytest.approx(reference.radius(points.numpy(), chosen[:t]))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_class_with_too_few_samples(name):
    inputs, targets = torch.randn(6, *SHAPE), torch.tensor([0, 0, 0, 1, 1, IGNORE])
    with pytest.raises(DataError, match=r"^class 1 has 2 labelled samples, per_class needs 3$"):
        select(name, inputs, targets, 3, 2)
    with pytest.raises(DataError, match=r"^class 2 has 0 labelled samples, per_class needs 1$"):
        select(name, inputs, targets, 1, 3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"name": "best"},
            ConfigError,
            "selection must be one of random, mean, kmeans, herding, k_center, got 'best'",
        ),
        ({"per_class": 0}, ConfigError, "per_class must be an integer >= 1, got 0"),
        ({"per_class": [1, 1]}, ConfigError, "per_class must be an integer or 3 of them, got 2"),
        ({"per_class": [1, -1, 0]}, ConfigError, "per_class[1] must be an integer >= 0, got -1"),
        ({"per_class": [0, 0, 0]}, ConfigError, "per_class must be >= 1 for at least one class, got zeros only"),
        ({"num_classes": 0}, ConfigError, "num_classes must be an integer >= 1, got 0"),
        ({"num_classes": 2}, DataError, "targets must be in 0..1 or -100 for no label, got 2"),
        ({"seed": -1}, ConfigError, "seed must be an integer >= 0, got -1"),
        (
            {"features": torch.zeros(5, 2)},
            DataError,
            "inputs, targets and features must have as many rows each, got 6, 6 and 5",
        ),
    ],
)
def test_invalid_arguments_are_refused(changes, error, message):
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    options = {"name": "random", "inputs": torch.zeros(6, 2), "targets": targets, "per_class": 1, "num_classes": 3}
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        select(**{**options, **changes})
