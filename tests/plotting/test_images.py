"""The pixels of images are found again in the file."""

import numpy as np
import pytest
from matplotlib.image import imread

from kdzoo import plotting
from kdzoo.plotting.images import PANEL_GAP, ROW_GAP


def positions(file, image, zoom):
    """Return where an enlarged image [h, w, 3] lies in a file, as (row, column); all positions."""
    enlarged = image.repeat(zoom, 0).repeat(zoom, 1)
    height, width = enlarged.shape[:2]
    corners = np.argwhere((np.abs(file - enlarged[0, 0]) < 0.005).all(2)).tolist()
    windows = [(y, x, file[y : y + height, x : x + width]) for y, x in corners]
    return [
        (y, x)
        for y, x, window in windows
        if window.shape == enlarged.shape and (np.abs(window - enlarged) < 0.005).all()
    ]


@pytest.mark.parametrize("channels", [1, 2, 3], ids=["grey", "two", "colours"])
def test_images_lie_in_rows_and_columns_pixel_by_pixel(channels, tmp_path):
    images = np.random.default_rng(0).random((3, channels, 32, 16))
    path = plotting.image_rows({"one_name": images[:2], "b": images[2:]}, tmp_path / "new" / "a.png")
    file = imread(path)[..., :3]
    drawn = [(image if channels == 3 else image[:1].repeat(3, 0)).transpose(1, 2, 0) for image in images]
    ((y, x),), ((second_y, second_x),), ((below, left),) = (positions(file, image, 2) for image in drawn)
    assert (second_y, second_x) == (y, x + 2 * 16 + ROW_GAP)
    assert (below, left) == (y + 2 * 32 + ROW_GAP, x)


def test_a_shorter_row_is_followed_by_white_and_nan_is_black(tmp_path):
    images = np.full((2, 1, 8, 8), np.nan)
    file = imread(plotting.image_rows({"a": images, "b": images[:1]}, tmp_path / "a.png"))[..., :3]
    black = (file == 0).all(2)[:, -(2 * 64 + 12) :]  # without the labels
    assert black.sum() == 3 * 64 * 64


def test_values_out_of_range_are_clipped(tmp_path):
    values = np.array([[[[-7.0, 0.0], [1.0, 9.0]]]])
    clipped = plotting.image_rows({"a": values.clip(0, 1)}, tmp_path / "a.png")
    path = plotting.image_rows({"a": values}, tmp_path / "b.png")
    np.testing.assert_array_equal(imread(path), imread(clipped))


def test_panels_lie_side_by_side_under_their_names(figures, tmp_path):
    panels = np.random.default_rng(0).random((2, 1, 160, 160))
    path = plotting.image_panels({"a_b": panels[0], "c": panels[1]}, tmp_path / "a.png", xlabel="x", ylabel="y")
    file = imread(path)[..., :3]
    (first,), (second,) = (positions(file, panel[0, :, :, None].repeat(3, 2), 2) for panel in panels)
    assert second == (first[0], first[1] + 2 * 160 + PANEL_GAP)
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
