"""k-means against separate groups, distances and its own promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata import clustering
from kdzoo.automata.clustering import consecutive_labels, kmeans_labels, nearest
from kdzoo.errors import ConfigError


def test_kmeans_finds_separate_groups_from_a_sample_as_well():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    owner = torch.arange(3000) % 3
    points = centres[owner] + 0.1 * torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"sample": 60}, {"init": "random", "n_init": 20}):
        labels = kmeans_labels(points, 3, seed=1, **options)
        assert len({(int(one), int(other)) for one, other in zip(owner, labels, strict=True)}) == 3
        assert torch.equal(labels, kmeans_labels(points, 3, seed=1, **options))


def test_nearest_is_the_least_distance_and_labels_have_no_gaps():
    generator = torch.Generator().manual_seed(0)
    points, centres = torch.randn(50, 3, generator=generator), torch.randn(7, 3, generator=generator)
    assert torch.equal(nearest(points, centres), torch.cdist(points, centres).argmin(1))
    assert consecutive_labels(torch.tensor([9, 3, 9, 5])).tolist() == [2, 0, 2, 1]
    with pytest.raises(ConfigError, match="n_clusters must be at most the number of points 50, got 51"):
        kmeans_labels(points, 51)


@settings(max_examples=30, deadline=None)
@given(labels=st.lists(st.integers(-5, 5), min_size=1, max_size=20))
def test_consecutive_labels_keep_classes_and_order(labels):
    renumbered = consecutive_labels(torch.tensor(labels)).tolist()
    assert sorted(set(renumbered)) == list(range(len(set(labels))))
    for (old, new), (other_old, other_new) in zip(
        zip(labels, renumbered, strict=True), list(zip(labels, renumbered, strict=True))[1:], strict=False
    ):
        assert (old < other_old) == (new < other_new)


def test_blocks_do_not_change_the_nearest_centre(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    points, centres = torch.randn(50, 3, generator=generator), torch.randn(7, 3, generator=generator)
    at_once = nearest(points, centres)
    monkeypatch.setattr(clustering, "BLOCK", 20)
    assert torch.equal(nearest(points, centres), at_once)


def test_fewer_different_points_give_fewer_clusters_without_a_warning(recwarn):
    labels = kmeans_labels(torch.tensor([[0.0], [1.0], [0.0], [1.0]]), 3)
    assert sorted(set(labels.tolist())) == [0, 1]
    assert not recwarn.list


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 0}, "n_clusters must be an integer >= 1, got 0"),
        ({"n_clusters": 2, "sample": 0}, "sample must be an integer >= 1, got 0"),
        ({"n_clusters": 2, "init": "first"}, r"init must be one of k-means\+\+, random, got 'first'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        kmeans_labels(torch.zeros(4, 1), **options)
