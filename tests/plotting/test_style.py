"""The settings that figures share."""

from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from kdzoo.plotting.style import DPI, axes_row, display_name, save_figure


def test_a_figure_is_written_into_a_new_folder_at_the_common_resolution(tmp_path):
    path = tmp_path / "a" / "b" / "figure.png"
    assert save_figure(Figure(figsize=(2, 1)), path, caption="An empty page.") == path
    assert imread(path).shape[:2] == (DPI, 2 * DPI)


def test_a_png_holds_its_caption_and_other_formats_are_written_too(tmp_path):
    save_figure(Figure(figsize=(2, 1)), tmp_path / "a.png", caption="Loss ± deviation.")
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["Description"] == "Loss ± deviation."
    for ending in ("svg", "pdf"):
        assert save_figure(Figure(figsize=(2, 1)), tmp_path / f"a.{ending}", caption="x").stat().st_size > 100


def test_one_panel_is_a_list_too():
    for count in (1, 3):
        figure = Figure()
        assert axes_row(figure, count) == figure.axes
        assert len(figure.axes) == count


def test_display_names_have_spaces():
    assert display_name("teacher_free_baseline") == "teacher free baseline"
