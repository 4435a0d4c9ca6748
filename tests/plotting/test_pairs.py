"""Strengths of pairs as lines and as matrices."""

import numpy as np

from kdzoo import plotting


def test_pairs_are_lines_on_their_images(figures, tmp_path):
    positions = np.array([[[0, 1], [2, 3]], [[1, 1], [1, 1]]], dtype=float)
    cells = [(positions, np.array([0.5, 0.25])), (positions[:0], np.zeros(0))]
    images = np.random.default_rng(0).random((2, 3, 4))
    path = plotting.pairs_on_images(
        images, {"a_b": cells}, ["first", "second"], tmp_path / "a.png", title="t", caption="c"
    )
    assert path.exists()
    full, empty = figures[0].axes
    assert [line.get_xydata().tolist() for line in full.get_lines()] == [[[1, 0], [3, 2]], [[1, 1], [1, 1]]]
    assert full.get_lines()[0].get_linewidth() > full.get_lines()[1].get_linewidth()
    assert (full.get_ylabel(), full.get_xlabel(), empty.get_xlabel()) == ("a b", "0.5", "0")
    assert (full.get_title(), empty.get_title()) == ("first", "second")
    assert not empty.get_lines()
    np.testing.assert_array_equal(empty.get_images()[0].get_array(), images[1])


def test_matrices_of_pairs_name_their_inputs(figures, tmp_path):
    strengths = np.arange(40 * 40.0).reshape(40, 40)
    plotting.pair_matrices({"a": ([f"x{i}" for i in range(40)], strengths)}, tmp_path / "a.png", title="t", caption="c")
    axes = figures[0].axes[0]
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), strengths)
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["x0", "x3", "x6"]
