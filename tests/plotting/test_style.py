"""The settings that figures share."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from kdzoo.plotting.style import (
    DPI,
    OTHER_STYLES,
    ROLE_STYLES,
    TITLE_INCHES,
    axes_row,
    cluster_style,
    display_name,
    log_ticks,
    save_figure,
    styles,
    without_math,
)

# Linear RGB as people without red, green or blue cones see it, at full severity: Machado, Oliveira & Fernandes 2009, "A
# physiologically-based model for simulation of color vision deficiency", table 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    """Return linear RGB of an sRGB colour."""
    value = np.array(to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Return CIE L*a*b* of linear RGB, D65; L* is the lightness in [0, 100] that grey print keeps."""
    to_xyz = [[0.412456, 0.357576, 0.180438], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]]
    x, y, z = (
        value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116
        for value in np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.950470, 1, 1.088830]
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_lightness_is_that_of_known_colours():
    assert lab(linear("white"))[0] == pytest.approx(100, abs=0.1)
    assert lab(linear("#777777"))[0] == pytest.approx(50, abs=0.5)
    assert lab(linear("red")) == pytest.approx([53.2, 80.1, 67.2], abs=0.2)


def test_roles_are_distinct_greys_and_stand_out_from_white_paper():
    lightness = sorted(lab(linear(style.colour))[0] for style in ROLE_STYLES.values())
    assert min(np.diff([*lightness, 100])) > 18  # two greys that differ by 10 are told apart side by side
    for style in ROLE_STYLES.values():
        # The contrast ratio of WCAG 2.1, which asks for 3 between graphics and their background.
        assert 1.05 / (linear(style.colour) @ [0.2126, 0.7152, 0.0722] + 0.05) > 2.99


@pytest.mark.parametrize("vision", VISION)
def test_the_colour_blind_tell_all_models_apart(vision):
    colours = [lab(VISION[vision] @ linear(style.colour)) for style in (*ROLE_STYLES.values(), *OTHER_STYLES)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours[:3], 2)) > 40
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 15


def test_models_differ_without_any_colour():
    every = [*ROLE_STYLES.values(), *OTHER_STYLES]
    for look in ("marker", "line"):
        assert len({getattr(style, look) for style in every}) == len(every)


def test_roles_keep_their_style_and_others_take_the_next_one():
    found = styles(["mean", "control", "herding", *map(str, range(3)), "student"])
    assert found["control"] is ROLE_STYLES["control"]
    assert found["student"] is ROLE_STYLES["student"]
    assert [found[name] for name in ("mean", "herding", "0", "1", "2")] == [*OTHER_STYLES, OTHER_STYLES[0]]


def test_a_figure_is_written_into_a_new_folder_at_the_common_resolution(tmp_path):
    path = tmp_path / "a" / "b" / "figure.png"
    assert save_figure(Figure(figsize=(2, 1)), path, title="Empty", caption="An empty page.") == path
    assert imread(path).shape[:2] == (DPI, 2 * DPI)


def test_a_png_holds_its_caption_and_other_formats_are_written_too(tmp_path):
    save_figure(Figure(figsize=(2, 1)), tmp_path / "a.png", title="t", caption="Loss ± deviation.")
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["Description"] == "Loss ± deviation."
    for ending in ("svg", "pdf"):
        assert save_figure(Figure(figsize=(2, 1)), tmp_path / f"a.{ending}", title="t", caption="x").stat().st_size > 9


@pytest.mark.parametrize("layout", [None, "constrained"])
@pytest.mark.parametrize("size", [(2, 1), (8, 12)])
def test_a_title_is_on_the_page_and_above_the_axes(layout, size, figures, tmp_path):
    figure = Figure(figsize=size, layout=layout)
    if layout is None:
        figure.add_axes((0.2, 0.2, 0.7, 0.8 - TITLE_INCHES / size[1])).set_axis_off()
    else:
        figure.subplots()
    save_figure(figure, tmp_path / "a.png", title="A $ig title", caption="x")
    title = figures[0].get_suptitle()
    assert title == r"A \$ig title"
    figure.set_dpi(DPI)  # matplotlib goes back to its own after saving, but keeps the sizes of texts
    box = figure._suptitle.get_window_extent()
    page = figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert figure.axes[0].get_window_extent().y1 <= box.y0 < box.y1 <= page.y1


def test_a_long_title_is_wrapped(figures, tmp_path):
    save_figure(Figure(figsize=(3, 3), layout="constrained"), tmp_path / "a.png", title="word " * 20, caption="x")
    (figure,) = figures
    figure.set_dpi(DPI)  # matplotlib goes back to its own after saving, but keeps the sizes of texts
    box = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1


def test_one_panel_is_a_list_too():
    for count in (1, 3):
        figure = Figure()
        assert axes_row(figure, count) == figure.axes
        assert len(figure.axes) == count


def test_display_names_have_spaces():
    assert display_name("teacher_free_baseline") == "teacher free baseline"


def test_dollar_signs_start_no_formula():
    assert without_math("a $x$ b") == r"a \$x\$ b"


@pytest.mark.parametrize(
    ("limits", "major", "minor"),
    [((0.5, 5), {"1"}, {"0.5", "2", "5"}), ((1e-4, 20), {"0.0001", "0.001", "0.01", "0.1", "1", "10"}, set())],
)
def test_numbers_of_a_logarithmic_axis_are_plain(limits, major, minor):
    axes = Figure().subplots()
    axes.set(yscale="log", ylim=limits)
    log_ticks(axes.yaxis)
    texts = {label.get_text() for label in axes.yaxis.get_majorticklabels()}
    assert major <= texts
    assert not any("$" in text for text in texts)
    assert {label.get_text() for label in axes.yaxis.get_minorticklabels()} - {""} >= minor
    assert not minor or {label.get_text() for label in axes.yaxis.get_minorticklabels()} <= {"", "0.2", *minor, "20"}


def test_clusters_differ_without_any_colour():
    assert len({cluster_style(i).marker for i in range(7)}) == 7
    assert len({(cluster_style(i).marker, cluster_style(i).colour) for i in range(28)}) == 28
    assert cluster_style(28) == cluster_style(0)
