"""The pixels of images are found again in the file."""

import numpy as np
import pytest
from matplotlib.image import imread

from kdzoo import plotting
from kdzoo.plotting.images import GAP, GROUP_GAP, PAGE, PANEL_GAP, SMALL_SIDE, TITLE, Sheet

TEXTS = {"title": "t", "caption": "c"}


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
    path = plotting.image_rows({"one_name": images[:2], "b": images[2:]}, tmp_path / "new" / "a.png", **TEXTS)
    file = imread(path)[..., :3]
    drawn = [(image if channels == 3 else image[:1].repeat(3, 0)).transpose(1, 2, 0) for image in images]
    # The longer side has at most 200 pixels, as two images do not fill a page: six pixels of the file for each.
    ((y, x),), ((second_y, second_x),), ((below, left),) = (positions(file, image, 6) for image in drawn)
    assert (second_y, second_x) == (y, x + 6 * 16 + GAP)
    assert (below, left) == (y + 6 * 32 + GROUP_GAP, x)


def test_a_shorter_row_is_followed_by_white_and_nan_is_black(tmp_path):
    images = np.full((2, 1, 8, 8), np.nan)
    file = imread(plotting.image_rows({"a": images, "b": images[:1]}, tmp_path / "a.png", **TEXTS))[..., :3]
    black = (file == 0).all(2)[TITLE:, -(2 * 200 + 12) :]  # without title and labels
    assert black.sum() == 3 * 200 * 200


def test_values_out_of_range_are_clipped(tmp_path):
    values = np.array([[[[-7.0, 0.0], [1.0, 9.0]]]])
    clipped = plotting.image_rows({"a": values.clip(0, 1)}, tmp_path / "a.png", **TEXTS)
    path = plotting.image_rows({"a": values}, tmp_path / "b.png", **TEXTS)
    np.testing.assert_array_equal(imread(path), imread(clipped))


def test_panels_lie_side_by_side_under_their_names(figures, tmp_path):
    panels = np.random.default_rng(0).random((2, 1, 160, 160))
    path = plotting.image_panels(
        {"a_b": panels[0], "c": panels[1]}, tmp_path / "a.png", xlabel="x", ylabel="y", **TEXTS
    )
    file = imread(path)[..., :3]
    (first,), (second,) = (positions(file, panel[0, :, :, None].repeat(3, 2), 2) for panel in panels)
    assert second == (first[0], first[1] + 2 * 160 + PANEL_GAP)
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.texts] == ["a b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")


def test_panels_that_do_not_fit_on_a_line_continue_below(tmp_path):
    panels = np.random.default_rng(0).random((4, 1, 320, 320))
    names = {str(i): panel for i, panel in enumerate(panels)}
    file = imread(plotting.image_panels(names, tmp_path / "a.png", xlabel="x", ylabel="y", **TEXTS))[..., :3]
    corners = [positions(file, panel[0, :, :, None].repeat(3, 2), 1)[0] for panel in panels]
    (y, x), step = corners[0], 320 + PANEL_GAP
    assert corners == [(y, x), (y, x + step), (y + step, x), (y + step, x + step)]


@pytest.mark.parametrize("count", [1, 2, 7, 12, 13, 40, 100])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 16), (84, 420), (224, 224)], ids=str)
def test_a_sheet_fills_its_page_with_images_of_a_sensible_size(count, size):
    room = 880
    sheet = Sheet.fitting(size, count, room)
    n_lines = -(-count // sheet.columns)
    width = sheet.columns * (sheet.width * sheet.zoom + GAP) - GAP
    assert width <= room
    assert sheet.columns * n_lines - count < n_lines  # the last line is as long as the others, up to one each
    assert sheet.zoom * max(size) >= min(SMALL_SIDE, max(size))
    is_enlarged = sheet.zoom > 1
    assert not is_enlarged or sheet.zoom * max(size) <= 200
    if n_lines > 1:  # a line is full, up to what another zoom or another image would need
        assert width + sheet.columns * sheet.width > room or width + sheet.width * sheet.zoom + GAP > room


@pytest.mark.parametrize("count", [1, 12, 100])
def test_a_contact_sheet_has_no_large_margins(count, tmp_path):
    images = np.zeros((count, 1, 28, 28))
    file = imread(plotting.image_rows({"student": images}, tmp_path / "a.png", **TEXTS))[..., :3]
    assert file.shape[1] <= PAGE
    black = np.argwhere((file == 0).all(2)[TITLE:])
    low, high = black.min(0), black.max(0)
    bottom, right = np.array(file.shape[:2]) - [TITLE, 0] - high - 1
    assert low[0] < 10  # below the title
    assert bottom <= 10
    assert right <= 10
    sheet = Sheet.fitting((28, 28), count, PAGE - 75 - 8)
    labels = 500  # pixels of the name of the row
    assert count * (28 * sheet.zoom) ** 2 <= len(black) <= count * (28 * sheet.zoom) ** 2 + labels
