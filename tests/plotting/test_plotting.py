"""Figures: pixels of pictures are found again in the file; levels hold the mass that they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread

from kdzoo import plotting


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    saved = []
    save = Figure.savefig

    def remember(figure, *args, **kwargs):
        saved.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return saved


def place(file, picture, zoom):
    """Return where a picture [h, w, 3], its pixels made large, lies in a file, as (row, column); all places."""
    large = picture.repeat(zoom, 0).repeat(zoom, 1)
    height, width = large.shape[:2]
    corners = np.argwhere((np.abs(file - large[0, 0]) < 0.005).all(2)).tolist()
    windows = [(y, x, file[y : y + height, x : x + width]) for y, x in corners]
    return [(y, x) for y, x, one in windows if one.shape == large.shape and (np.abs(one - large) < 0.005).all()]


@pytest.mark.parametrize("channels", [1, 2, 3], ids=["grey", "two", "colours"])
def test_pictures_lie_in_rows_and_columns_pixel_by_pixel(channels, tmp_path):
    pictures = np.random.default_rng(0).random((3, channels, 32, 16))
    path = plotting.picture_rows({"one_name": pictures[:2], "b": pictures[2:]}, tmp_path / "new" / "a.png")
    file = imread(path)[..., :3]
    shown = [(one if channels == 3 else one[:1].repeat(3, 0)).transpose(1, 2, 0) for one in pictures]
    ((y, x),), ((other_y, other_x),), ((below, left),) = (place(file, one, 2) for one in shown)
    assert (other_y, other_x) == (y, x + 2 * 16 + 4)
    assert (below, left) == (y + 2 * 32 + 4, x)


def test_pictures_of_a_shorter_row_are_followed_by_paper_and_nan_is_black(tmp_path):
    pictures = np.full((2, 1, 8, 8), np.nan)
    file = imread(plotting.picture_rows({"a": pictures, "b": pictures[:1]}, tmp_path / "a.png"))[..., :3]
    black = (file == 0).all(2)[:, -(2 * 64 + 12) :]  # without the names
    assert black.sum() == 3 * 64 * 64


def test_panels_lie_side_by_side_under_their_names(figures, tmp_path):
    panels = np.random.default_rng(0).random((2, 1, 160, 160))
    path = plotting.picture_panels({"a_b": panels[0], "c": panels[1]}, tmp_path / "a.png", xlabel="x", ylabel="y")
    file = imread(path)[..., :3]
    (first,), (second,) = (place(file, one[0, :, :, None].repeat(3, 2), 2) for one in panels)
    assert second == (first[0], first[1] + 2 * 160 + 24)
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")


def test_pairs_are_lines_on_their_pictures(figures, tmp_path):
    places = np.array([[[0, 1], [2, 3]], [[1, 1], [1, 1]]], dtype=float)
    cells = [(places, np.array([0.5, 0.25])), (places[:0], np.zeros(0))]
    pictures = np.random.default_rng(0).random((2, 3, 4))
    path = plotting.pairs_on_pictures(pictures, {"a_b": cells}, ["one", "two"], tmp_path / "a.png", title="t")
    assert path.exists()
    full, empty = figures[0].axes
    assert [line.get_xydata().tolist() for line in full.get_lines()] == [[[1, 0], [3, 2]], [[1, 1], [1, 1]]]
    assert full.get_lines()[0].get_linewidth() > full.get_lines()[1].get_linewidth()
    assert (full.get_ylabel(), full.get_xlabel(), empty.get_xlabel()) == ("a b", "0.5", "0")
    assert not empty.get_lines()
    np.testing.assert_array_equal(empty.get_images()[0].get_array(), pictures[1])


def test_tables_of_pairs_name_their_inputs(figures, tmp_path):
    strengths = np.arange(40 * 40.0).reshape(40, 40)
    plotting.pair_tables({"a": ([f"x{i}" for i in range(40)], strengths)}, tmp_path / "a.png", title="t")
    axes = figures[0].axes[0]
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), strengths)
    assert [label.get_text() for label in axes.get_xticklabels()][:3] == ["x0", "x3", "x6"]


def test_time_goes_to_the_right_and_elements_upwards(figures, tmp_path):
    sequences = np.zeros((2, 5, 9))
    sequences[0, 1, 3], sequences[1, 4, 6] = 1, 1
    path = plotting.roll_rows({"a": sequences, "b": 0 * sequences}, tmp_path / "a.png", ylabel="key")
    assert path.exists()
    first, second, third, _ = figures[0].axes
    assert first.get_ylabel() == "a\nkey"
    cells = [axes.get_images()[0].get_array() for axes in (first, second, third)]
    assert [one.shape for one in cells] == [(4, 5)] * 3  # elements 3 to 6
    assert first.get_images()[0].get_extent() == [-0.5, 4.5, 2.5, 6.5]
    assert np.argwhere(cells[0]).tolist() == [[0, 1]]
    assert np.argwhere(cells[1]).tolist() == [[3, 4]]
    assert not cells[2].any()
    assert first.get_images()[0].origin == "lower"


def test_silent_rolls_keep_all_elements(figures, tmp_path):
    plotting.roll_rows({"a": np.zeros((1, 2, 3))}, tmp_path / "a.png", ylabel="key")
    assert figures[0].axes[0].get_images()[0].get_extent() == [-0.5, 1.5, -0.5, 2.5]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0.01, 0.99))
def test_a_level_bounds_the_smallest_region_of_a_mass(density, mass):
    density = np.array(density)
    levels = plotting.mass_levels(density, [mass])
    if not density.sum():
        assert not len(levels)
        return
    (level,) = levels
    assert density[density >= level].sum() >= mass * density.sum() * (1 - 1e-9)
    assert density[density > level].sum() <= mass * density.sum() * (1 + 1e-9)


def test_levels_of_a_normal_density(figures, tmp_path):
    x = np.linspace(-5, 5, 201)
    normal = np.exp(-(x[:, None] ** 2 + x**2) / 2)
    level = plotting.mass_levels(normal, [0.95])
    assert level == pytest.approx([0.05], rel=0.02)  # 1 - exp(-r^2 / 2) = 0.95
    nothing = np.full_like(normal, np.nan)
    points = np.array([[0.5, -1.5]])
    plotting.density_panels({"teacher": normal, "student": nothing}, x, x, points, tmp_path / "a.png")
    first, second = figures[0].axes
    assert (first.get_title(), second.get_title()) == ("teacher", "student: no density here")
    points, lines = first.collections
    assert points.get_offsets().tolist() == [[0.5, -1.5]]
    outer = lines.get_paths()[0].vertices
    assert np.hypot(*outer.T) == pytest.approx(np.sqrt(2 * np.log(20)), rel=0.02)
    assert len(second.collections) == 1
