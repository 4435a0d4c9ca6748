"""Heat maps of sequences."""

import numpy as np

from kdzoo import plotting


def test_time_goes_to_the_right_and_elements_upwards(figures, tmp_path):
    sequences = np.zeros((2, 5, 9))
    sequences[0, 1, 3], sequences[1, 4, 6] = 1, 1
    path = plotting.sequence_heatmaps({"a": sequences, "b": 0 * sequences}, tmp_path / "a.png", ylabel="key", title="t")
    assert path.exists()
    first, second, third, _ = figures[0].axes
    assert first.get_ylabel() == "a\nkey"
    cells = [axes.get_images()[0].get_array() for axes in (first, second, third)]
    assert [array.shape for array in cells] == [(4, 5)] * 3  # elements 3 to 6
    assert first.get_images()[0].get_extent() == [-0.5, 4.5, 2.5, 6.5]
    assert np.argwhere(cells[0]).tolist() == [[0, 1]]
    assert np.argwhere(cells[1]).tolist() == [[3, 4]]
    assert not cells[2].any()
    assert first.get_images()[0].origin == "lower"


def test_sequences_of_zeros_keep_all_elements(figures, tmp_path):
    plotting.sequence_heatmaps({"a": np.zeros((1, 2, 3))}, tmp_path / "a.png", ylabel="key", title="t")
    assert figures[0].axes[0].get_images()[0].get_extent() == [-0.5, 1.5, -0.5, 2.5]


def test_nan_is_drawn_as_zero(figures, tmp_path):
    sequences = np.full((1, 2, 3), np.nan)
    sequences[0, 1, 1] = 0.5
    plotting.sequence_heatmaps({"a": sequences}, tmp_path / "a.png", ylabel="key", title="t")
    np.testing.assert_array_equal(figures[0].axes[0].get_images()[0].get_array(), [[0, 0.5]])
