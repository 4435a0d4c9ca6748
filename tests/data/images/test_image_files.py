"""Labelled images as bytes, and the file that keeps decoded images."""

import numpy as np
import pytest
import torch
from PIL import Image

from kdzoo.data.images.image_files import LabelledImages, decode_image, decoded_images
from kdzoo.errors import DataError

NAMES = ("b.jpg", "a.jpg", "c.jpg")


@pytest.fixture
def folder(offline_home, tmp_path):
    """Three grey JPEG images, and an empty cache."""
    for number, name in enumerate(NAMES):
        Image.new("RGB", (20, 30), (80 * number,) * 3).save(tmp_path / name, quality=95)
    return tmp_path


def test_a_split_selects_images_and_scales_pixels():
    pixels = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    images = LabelledImages(pixels, torch.tensor([3, 1, 0]), torch.tensor([7, 8, 9]))
    assert len(images) == 3
    batch = images.batch(torch.tensor([2, 0]))
    np.testing.assert_allclose(batch["input"], pixels[[0, 3]] / 255, rtol=1e-6)
    assert batch["target"].tolist() == [9, 7]
    selected = images.select(torch.tensor([1]))
    assert (selected.rows.tolist(), selected.targets.tolist()) == ([1], [8])
    np.testing.assert_array_equal(torch.cat(list(images.content())), pixels[[3, 1, 0]])


@pytest.mark.parametrize("size", [(20, 30), (7, 5)])
def test_images_are_resized_without_cropping(tmp_path, size):
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2, 0] = 200
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    decoded = decode_image(tmp_path / "a.jpg", 4)
    assert (decoded.dtype, decoded.shape) == (np.uint8, (3, 4, 4))
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decoded, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "missing"])
def test_a_damaged_image_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg is missing or not a complete JPEG"):
        decode_image(tmp_path / "a.jpg", 4)


def test_another_format_under_the_name_of_a_jpeg_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", format="PNG")
    with pytest.raises(DataError, match="not a complete JPEG"):
        decode_image(tmp_path / "a.jpg", 4)


def test_the_decoded_file_has_the_images_in_the_order_of_the_names(folder, offline_home):
    pixels = decoded_images(folder, NAMES, name="set", size=4)
    assert isinstance(pixels, np.memmap)
    assert [int(image.mean().round()) for image in pixels] == [0, 80, 160]
    (file,) = (offline_home / ".cache" / "kdzoo" / "set").iterdir()
    assert file.name.startswith("pixels_4_")
    np.testing.assert_array_equal(decoded_images(folder, NAMES, name="set", size=4), pixels)
    decoded_images(folder, NAMES[::-1], name="set", size=4)
    assert len(list(file.parent.iterdir())) == 2


def test_a_damaged_decoded_file_is_reported_with_its_remedy(folder, offline_home):
    decoded_images(folder, NAMES, name="set", size=4)
    (file,) = (offline_home / ".cache" / "kdzoo" / "set").iterdir()
    file.write_bytes(b"text")
    with pytest.raises(DataError, match=rf"{file.name} is damaged .*; delete it, and it is made again"):
        decoded_images(folder, NAMES, name="set", size=4)
