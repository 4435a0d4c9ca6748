"""Pen strokes: standardised steps, and drawings of them as images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.data.sequences import strokes
from kdzoo.data.sequences.strokes import offset_scaling, stroke_images, stroke_steps
from kdzoo.errors import ConfigError, DataError


def test_pen_states_are_0_or_1_and_offsets_change():
    unscaled = {"mean": (0.0, 0.0), "std": (1.0, 1.0)}
    with pytest.raises(DataError, match="pen state 2 at step 1 is not allowed; allowed: 0 or 1"):
        stroke_steps(np.array([1, 2]), np.zeros((2, 2)), unscaled)
    with pytest.raises(DataError, match=r"offsets have the standard deviations \[0.5, 0.0\]; allowed: > 0"):
        offset_scaling(np.array([[0, 1], [1, 1]]))


def by_all_distances(steps, length, height, width):
    """Return the image of one drawing [T, 3], by the distance of every pixel to every line."""
    ends = steps[:length, 1:].double().cumsum(0)
    starts = torch.cat([torch.zeros(1, 2).double(), ends[:-1]])
    lifted = torch.cat([torch.zeros(1), steps[: length - 1, 0]]) > 0.5
    starts[lifted] = ends[lifted]
    corners = torch.cat([starts, ends])
    low, high = corners.amin(0), corners.amax(0)
    pen = max(1, height / 28)
    box = torch.tensor([width, height]).double() - 2 * (int(np.ceil(pen / 2 + 0.5)) + 1)
    scale = min(float(side / extent) if extent else np.inf for side, extent in zip(box, high - low, strict=True))
    scale = 0 if scale == np.inf else scale
    middle = torch.tensor([width - 1, height - 1]) / 2
    starts, ends = ((one - (low + high) / 2) * scale + middle for one in (starts, ends))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    away = torch.stack([x, y], -1)[:, :, None] - starts
    along = ends - starts
    share = ((away * along).sum(-1) / along.square().sum(-1).clamp_min(1e-12)).clamp(0, 1)
    distance = (away - share[..., None] * along).norm(dim=-1).amin(2)
    return (pen / 2 + 0.5 - distance).clamp(0, 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9999), st.integers(1, 9), st.sampled_from([(28, 28), (9, 40), (70, 50)]), st.booleans())
def test_ink_depends_on_the_distance_to_the_nearest_line(seed, length, size, upright):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(9, 3, generator=generator)
    steps[:, 0] = (steps[:, 0] > 0.5).float()
    if upright:
        steps[:, 1] = 0
    expected = by_all_distances(steps, length, *size)
    image = stroke_images(steps[None], torch.tensor([length]), size)
    torch.testing.assert_close(image[0, 0].double(), expected, rtol=0, atol=1e-4)


def test_a_straight_stroke():
    image = stroke_images(torch.tensor([[[0.0, 2, 0], [1, 3, 0]]]))[0, 0]
    assert image.shape == (28, 28)
    rows, columns = image.nonzero().T
    assert rows.unique().tolist() == [13, 14]  # in the middle, between two rows
    assert columns.unique().tolist() == list(range(1, 27))
    torch.testing.assert_close(image[13:15, 2:26], torch.full((2, 24), 0.5))
    upright = stroke_images(torch.tensor([[[0.0, 0, 2], [1, 0, 3]]]))[0, 0]
    torch.testing.assert_close(upright, image.T)


def test_a_lifted_pen_leaves_no_ink():
    steps = torch.tensor([[0.0, 10, 0], [0, 0, 10], [1, -10, 0]])  # open on the left
    lifted = steps.clone()
    lifted[0, 0] = 1  # then the second step is a dot at its end
    drawn, lifted = stroke_images(torch.stack([steps, lifted]))[:, 0]
    assert drawn[14, 20:].max() > 0.4
    assert lifted[14].max() == 0
    torch.testing.assert_close(lifted[:10, :20], drawn[:10, :20])
    assert lifted[-10:].sum() > 10
    assert drawn[14, :10].max() == 0


def test_a_dot_and_drawings_without_ink():
    steps = torch.zeros(4, 2, 3)
    steps[1, :, 1:], steps[2, 1, 2] = 5.0, torch.nan
    steps[3, :, 1:] = torch.tensor([[1e38, 0], [3e38, 0]])
    images = stroke_images(steps, torch.tensor([1, 0, 2, 2]), 9)[:, 0]
    dot = torch.zeros(9, 9)
    dot[4, 4] = 1
    torch.testing.assert_close(images, torch.stack([dot, *[torch.zeros(9, 9)] * 3]))
    assert stroke_images(steps[:0]).shape == (0, 1, 28, 28)


def test_images_do_not_depend_on_size_or_what_follows_the_drawing():
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(20, 6, 3, generator=generator)
    lengths = torch.randint(1, 7, (20,), generator=generator)
    images = stroke_images(steps, lengths)
    larger = steps * torch.tensor([1, 50, 50])
    larger[torch.arange(6) >= lengths[:, None]] = torch.nan
    torch.testing.assert_close(stroke_images(larger, lengths), images, rtol=0, atol=1e-3)
    torch.testing.assert_close(stroke_images(steps, torch.full((20,), 6)), stroke_images(steps))
    parts = [stroke_images(steps[i : i + 1], lengths[i : i + 1]) for i in range(20)]
    torch.testing.assert_close(torch.cat(parts), images, rtol=0, atol=1e-5)


def test_many_segments_are_drawn_in_blocks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(5, 6, 3, generator=generator)
    whole = stroke_images(steps)
    monkeypatch.setattr(strokes, "_BLOCK", 7)
    assert torch.equal(stroke_images(steps), whole)


@pytest.mark.parametrize("size", [7, (28, 0)], ids=["side", "width"])
def test_small_images(size):
    with pytest.raises(ConfigError, match=r"size must be an integer >= 8, got"):
        stroke_images(torch.zeros(1, 1, 3), None, size)
