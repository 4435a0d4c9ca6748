"""Figures of synthetic sets: the tests inspect the figure objects, not the pixels of the files."""

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PolyCollection
from torch import nn

from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet, synthetic_set_plots
from kdzoo.dataset_distillation.protocols import ProtocolMatrix
from kdzoo.errors import ConfigError


def make_set(*in_shape, num_classes=3, inner_networks=("net",), **options):
    torch.manual_seed(0)
    size = int(np.prod(in_shape))
    inner_network = {
        name: InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(size, num_classes))) for name in inner_networks
    }
    return SyntheticSet(in_shape=in_shape, num_classes=num_classes, inner_network=inner_network, **options)


def plot_examples(synthetic_set, path):
    return synthetic_set_plots.plot_examples(synthetic_set, path, title="t")


def names(figure):
    """Return the names of the classes and where they stand, (x, y) in pixels of the examples."""
    return {text.get_text(): text.get_position() for text in figure.axes[0].texts}


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def grid(figure):
    """Return the pixels [h, w, 3] of the grid of examples."""
    (image,) = figure.axes[0].get_images()
    return image.get_array()


def bars(figure, axes=0):
    """Return the outlines of all bars, one collection after the other."""
    collections = [found for found in figure.axes[axes].collections if isinstance(found, PolyCollection)]
    return [path.vertices for collection in collections for path in collection.get_paths()]


def heights(outline, count):
    """Return the heights of the bars of an outline, from its baseline up."""
    return outline[0, 1] - outline[1 : 2 * count : 2, 1]


# ---------------------------------------------------------------- what is shown


def test_the_first_example_of_each_class_is_shown_however_labels_move():
    synthetic_set = make_set(1, 2, 3, per_class=4)
    assert torch.equal(synthetic_set_plots.first_of_each_class(synthetic_set), synthetic_set.images[[0, 4, 8]])
    synthetic_set.labels.data.copy_(synthetic_set.labels.flip(1))
    assert torch.equal(synthetic_set_plots.first_of_each_class(synthetic_set), synthetic_set.images[[0, 4, 8]])
    assert not synthetic_set_plots.first_of_each_class(synthetic_set).requires_grad
    assert len(synthetic_set_plots.first_of_each_class(make_set(2, num_classes=30))) == 20
    synthetic_set = make_set(5, num_classes=4, examples=2, labels="simplex")
    assert torch.equal(synthetic_set_plots.first_of_each_class(synthetic_set), synthetic_set.images)


# ---------------------------------------------------------------- examples


def test_the_examples_of_each_class_stand_side_by_side_below_its_name(figures, tmp_path):
    synthetic_set = make_set(1, 4, 5, per_class=2, labels="fixed")
    synthetic_set.images.data.copy_(torch.arange(6.0).view(6, 1, 1, 1).expand(-1, 1, 4, 5))
    path = tmp_path / "new" / "examples.png"
    assert plot_examples(synthetic_set, path) == path
    assert is_png(path)
    canvas = grid(figures[0])
    top = len(canvas) - 4 - 1  # a gap of one pixel below the examples
    for i in range(6):
        x = 6 * (i + i // 2)  # with an empty column after each class
        np.testing.assert_allclose(canvas[top : top + 4, x : x + 5], i / 5, atol=0.03)
    assert (canvas[:top] == 1).all()
    found = names(figures[0])
    assert [found[f"class {i}"][0] for i in range(3)] == [0, 18, 36]
    assert all(0 < y <= top for _, y in found.values())
    assert bars(figures[0]) == []


def test_classes_of_many_examples_take_several_lines(figures, tmp_path):
    synthetic_set = make_set(1, 4, 5, per_class=8, labels="fixed")
    synthetic_set.images.data.copy_(torch.arange(24.0).view(24, 1, 1, 1).expand(-1, 1, 4, 5))
    plot_examples(synthetic_set, tmp_path / "a.png")
    canvas = grid(figures[0])
    assert canvas.shape[1] == (2 * 8 + 1) * 6  # two classes on the first line, one on the second
    down = len(canvas) // 2
    np.testing.assert_allclose(canvas[[down - 2, 2 * down - 2], 0, 0], [0, 16 / 23], atol=0.03)
    assert (canvas[down:, 48:] == 1).all()


def test_colours_are_drawn_as_they_are(figures, tmp_path):
    synthetic_set = make_set(3, 4, 4, num_classes=2, labels="fixed")
    synthetic_set.images.data.zero_()
    synthetic_set.images.data[0, 0] = 1
    synthetic_set.images.data[1, 2] = 1
    plot_examples(synthetic_set, tmp_path / "a.png")
    canvas = grid(figures[0])
    np.testing.assert_allclose(canvas[-3, 1], [1, 0, 0])
    np.testing.assert_allclose(canvas[-3, 6], [0, 0, 1])


def test_learned_labels_are_bars_below_their_image_at_the_class_of_the_largest(figures, tmp_path):
    synthetic_set = make_set(1, 10, 10)
    labels = torch.tensor([[0.1, 0.9, 0.0], [1.0, 0.0, -0.5], [0.2, 0.4, 0.5]])
    synthetic_set.labels.data.copy_(labels)
    synthetic_set.images.data.copy_(torch.arange(3.0).view(3, 1, 1, 1).expand_as(synthetic_set.images))
    plot_examples(synthetic_set, tmp_path / "a.png")
    canvas = grid(figures[0])
    top = int(np.argmin(canvas[:, 0, 0]))  # white above the first image
    np.testing.assert_allclose(canvas[top, [0, 11, 22], 0], [0.5, 0, 1], atol=0.03)
    outlines = bars(figures[0])
    (zeros,) = [lines for lines in figures[0].axes[0].collections if isinstance(lines, LineCollection)]
    assert [outline[0, 1] for outline in outlines] == pytest.approx([line[0, 1] for line in zeros.get_segments()])
    assert list(names(figures[0])) == ["class 0", "class 1", "class 2"]
    assert min(outline[:, 1].min() for outline in outlines) > top + 10  # below the images
    assert max(outline[:, 1].max() for outline in outlines) <= len(canvas)
    unit = heights(outlines[0], 3)[0]  # of the label 1.0
    for i, (outline, row) in enumerate(zip(outlines, labels[[1, 0, 2]], strict=True)):
        np.testing.assert_allclose(heights(outline, 3) / unit, row, atol=1e-6)
        assert (outline[:, 0].min(), outline[:, 0].max()) == (11 * i, 11 * i + 10)


def test_at_most_ten_examples_of_twenty_classes(figures, tmp_path):
    plot_examples(make_set(2, num_classes=25, per_class=12), tmp_path / "a.png")
    assert len(names(figures[0])) == 20
    assert len(bars(figures[0])) == 2 * 20 * 10  # of inputs and labels


def test_inputs_that_are_not_images_are_drawn_as_bars(figures, tmp_path):
    synthetic_set = make_set(4, num_classes=2, labels="fixed")
    synthetic_set.images.data.copy_(torch.tensor([[1.0, -1.0, 0.5, 0.0], [0.0, 1.0, 0.0, -0.25]]))
    assert is_png(plot_examples(synthetic_set, tmp_path / "a.png"))
    assert figures[0].axes[0].get_images() == []
    outlines = bars(figures[0])
    unit = heights(outlines[0], 4)[0]
    assert unit > 0
    for outline, row in zip(outlines, synthetic_set.images.detach(), strict=True):
        np.testing.assert_allclose(heights(outline, 4) / unit, row, atol=1e-6)
    plot_examples(make_set(2, 4, 4, labels="fixed"), tmp_path / "b.png")  # two channels are not an image
    assert figures[1].axes[0].get_images() == []


def test_the_step_sizes_of_every_inner_network_are_drawn_below_the_grid(figures, tmp_path):
    synthetic_set = make_set(1, 3, 3, inner_networks=("one", "two"), steps=3)
    synthetic_set.step_sizes["one"].data.copy_(torch.tensor([0.1, 0.3, 0.2]))
    plot_examples(synthetic_set, tmp_path / "a.png")
    _, panel = figures[0].axes
    assert [line.get_label() for line in panel.get_lines()] == ["one", "two"]
    assert panel.get_lines()[0].get_xdata().tolist() == [1, 2, 3]
    assert panel.get_lines()[0].get_ydata() == pytest.approx([0.1, 0.3, 0.2])
    assert panel.get_lines()[1].get_ydata() == pytest.approx([0.05] * 3)
    assert {text.get_text() for text in panel.get_legend().get_texts()} == {"one", "two"}


def test_the_grid_and_the_panel_do_not_overlap_and_are_on_the_page(figures, tmp_path):
    for synthetic_set in (
        make_set(1, 8, 8, per_class=10, num_classes=10),
        make_set(1, 8, 8, num_classes=2),
        make_set(1, 30, 4),
    ):
        plot_examples(synthetic_set, tmp_path / "a.png")
        grid_box, panel = (axes.get_position() for axes in figures[-1].axes)
        assert 0 < panel.y0 < panel.y1 < grid_box.y0 < grid_box.y1 < 1
        assert all(0 < box.x0 < box.x1 < 1 for box in (grid_box, panel))
        width, height = figures[-1].get_size_inches()
        assert 3 < width < 11
        assert 1 < height < 9


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0])
def test_a_set_that_diverged_or_is_empty_can_be_drawn(value, tmp_path):
    for synthetic_set in (make_set(1, 3, 3), make_set(3)):
        synthetic_set.images.data.fill_(value)
        synthetic_set.labels.data.fill_(value)
        assert is_png(plot_examples(synthetic_set, tmp_path / "a.png"))


# ---------------------------------------------------------------- change


def test_rows_are_ten_epochs_with_the_first_and_the_last(figures, tmp_path):
    epochs = [torch.full((2, 1, 3, 3), float(i)) for i in range(37)]
    assert is_png(synthetic_set_plots.plot_image_history(epochs, tmp_path / "new" / "a.png"))
    (axes,) = figures[0].axes
    numbers = [int(label.get_text().removeprefix("epoch ")) for label in axes.get_yticklabels()]
    assert (numbers[0], numbers[-1], len(numbers)) == (1, 37, 10)
    assert set(np.diff(numbers)) == {4}
    canvas = grid(figures[0])
    assert canvas.shape == (10 * 4, 2 * 4, 3)
    shades = canvas[::4, 0, 0]
    np.testing.assert_allclose(shades, (np.array(numbers) - 1) / 36, atol=0.03)
    np.testing.assert_allclose(canvas[::4, 4, 0], shades)


def test_columns_are_images(figures, tmp_path):
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    synthetic_set_plots.plot_image_history([images, images], tmp_path / "a.png")
    assert [label.get_text() for label in figures[0].axes[0].get_yticklabels()] == ["epoch 1", "epoch 2"]
    np.testing.assert_allclose(grid(figures[0])[0, ::5, 0], [0, 0.5, 1], atol=0.03)


@pytest.mark.parametrize("shape", [(3, 4, 4), (7,)])
def test_one_epoch_of_colours_or_features_is_drawn(shape, tmp_path):
    assert is_png(synthetic_set_plots.plot_image_history([torch.randn(2, *shape)], tmp_path / "a.png"))


def test_an_empty_list_of_epochs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one epoch"):
        synthetic_set_plots.plot_image_history([], tmp_path / "a.png")


# ---------------------------------------------------------------- protocols


def test_the_heat_map_shows_mean_deviation_and_number_of_diverged_networks(figures, tmp_path):
    accuracy = torch.tensor([[[0.5, 0.7]], [[0.25, 0.25]], [[0.9, 0.9]]])
    diverged = torch.zeros(3, 1, 2, dtype=torch.bool)
    diverged[1] = True
    matrix = ProtocolMatrix(("own", "sgd", "hard"), ("linear",), accuracy, diverged)
    assert is_png(synthetic_set_plots.plot_protocol_matrix(matrix, tmp_path / "new" / "a.png"))
    (axes,) = figures[0].axes
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "60.0 ± 10.0", (0, 1): "25.0 ± 0.0\n2 diverged", (0, 2): "90.0 ± 0.0"}
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[0.6], [0.25], [0.9]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["own", "sgd", "hard"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["linear"]


def test_no_figure_stays_open(tmp_path):
    import matplotlib.pyplot as plt

    plot_examples(make_set(1, 3, 3), tmp_path / "a.png")
    assert plt.get_fignums() == []
