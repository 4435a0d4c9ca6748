import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.data.images.augment import Augment
from kdzoo.errors import ConfigError

ALL = Augment(shift=1, crop=2, flip=True)


def images(n, channels=1, height=6, width=7):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(n))


def shifted(image, dy, dx):
    """Translate one [h, w] array by (dy, dx), pixel by pixel."""
    out = np.zeros_like(image)
    height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - dy < height and 0 <= x - dx < width:
                out[y, x] = image[y - dy, x - dx]
    return out


def test_shift_is_a_uniform_translation_with_zero_fill():
    k, n = 2, 300
    x = images(n)
    out = Augment(shift=k)(x, 0, 0, torch.arange(n)).numpy()
    counts = {}
    for before, after in zip(x[:, 0].numpy(), out[:, 0], strict=True):
        moves = [
            (dy, dx)
            for dy in range(-k, k + 1)
            for dx in range(-k, k + 1)
            if np.array_equal(shifted(before, dy, dx), after)
        ]
        assert len(moves) == 1
        counts[moves[0]] = counts.get(moves[0], 0) + 1
    assert len(counts) == (2 * k + 1) ** 2
    assert max(counts.values()) < 35  # 12 expected


def test_crop_is_a_window_of_the_reflected_image():
    k, n = 3, 100
    x = images(n, channels=2)
    out = Augment(crop=k)(x, 0, 0, torch.arange(n)).numpy()
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (k, k), (k, k)), mode="reflect")
    corners = set()
    for before, after in zip(padded, out, strict=True):
        found = [
            (top, left)
            for top in range(2 * k + 1)
            for left in range(2 * k + 1)
            if np.array_equal(before[:, top : top + 6, left : left + 7], after)
        ]
        assert found
        corners.add(found[0])
    assert len(corners) > 30


def test_flip_mirrors_about_half_of_the_images():
    x = images(400)
    out = Augment(flip=True)(x, 0, 0, torch.arange(400))
    mirrored = (out == x.flip(-1)).flatten(1).all(1)
    same = (out == x).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 160 < int(mirrored.sum()) < 240


@settings(max_examples=30)
@given(st.permutations(range(10)), st.integers(1, 10), st.integers(0, 3), st.integers(0, 50))
def test_independent_of_batch_composition(order, size, seed, epoch):
    x = images(10, channels=3)
    complete = ALL(x, seed, epoch, torch.arange(10))
    rows = torch.tensor(order[:size])
    assert torch.equal(ALL(x[rows], seed, epoch, rows), complete[rows])


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epoch": 1}, {"index": torch.arange(20, 40)}])
def test_every_key_matters(changed):
    key = {"seed": 0, "epoch": 0, "index": torch.arange(20)}
    x = images(20)
    assert not torch.equal(ALL(x, **key), ALL(x, **{**key, **changed}))
    assert torch.equal(ALL(x, **key), ALL(x, **key))


def test_without_channels_and_without_change():
    x = images(5)
    index = torch.arange(5)
    assert torch.equal(ALL(x[:, 0], 0, 0, index), ALL(x, 0, 0, index)[:, 0])
    assert Augment()(x, 0, 0, index) is x
    assert not Augment().is_random
    assert ALL.is_random


def test_global_random_state_and_inputs_are_untouched():
    x = images(5)
    copy, before = x.clone(), torch.get_rng_state()
    ALL(x, 0, 0, torch.arange(5))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(x, copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift": -1}, "augment.shift must be an integer >= 0, got -1"),
        ({"crop": 1.5}, "augment.crop must be an integer"),
        ({"flip": 1}, "augment.flip must be true or false, got 1"),
        ({"rotate": 1}, "augment has the unknown key 'rotate'; allowed: ['shift', 'crop', 'flip']"),
        ("shift", "augment='shift' is not allowed; allowed: null or a mapping"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        Augment.from_options(options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("augment", "shape", "message"),
    [
        (Augment(shift=6), (1, 6, 7), "augment.shift=6 is too large for inputs [1, 6, 7]; allowed: 0..5"),
        (Augment(crop=6), (1, 6, 7), "augment.crop=6 is too large"),
        (Augment(flip=True), (8,), "needs images [h, w] or [c, h, w], got [8]"),
    ],
)
def test_unfit_inputs(augment, shape, message):
    with pytest.raises(ConfigError) as caught:
        augment(torch.zeros(2, *shape), 0, 0, torch.arange(2))
    assert message in str(caught.value)
