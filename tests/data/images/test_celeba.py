"""Faces: small pictures in the layout of CelebA, the labels, and the file that keeps them decoded."""

import numpy as np
import pytest
import torch
from PIL import Image

from kdzoo.data import CelebA
from kdzoo.errors import ConfigError, DataError

NAMES = ("Bald", "Eyeglasses", "Young")
PARTS = [0, 0, 1, 0, 2, 0, 2, 0]
FILES = [f"{number + 1:06d}.jpg" for number in range(len(PARTS))]


def picture(number):
    """A picture that is red above and blue below, brighter from one to the next."""
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[:109, :, 0] = pixels[109:, :, 2] = 30 * number + 20
    return Image.fromarray(pixels)


def values(number):
    return [1 if number % 2 else -1, 1 if number % 3 == 0 else -1, 1]


def write(folder):
    (folder / "img_align_celeba").mkdir(parents=True)
    for number, file in enumerate(FILES):
        picture(number).save(folder / "img_align_celeba" / file, quality=95)
    rows = [f"{file}  {' '.join(f'{one:2d}' for one in values(number))}" for number, file in enumerate(FILES)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(FILES)), " ".join(NAMES) + " ", *rows]) + "\n")
    parts = [f"{file} {part}\n" for file, part in zip(FILES, PARTS, strict=True)]
    (folder / "list_eval_partition.txt").write_text("".join(parts))
    return folder


@pytest.fixture
def root(offline_home, tmp_path):
    """A root with eight pictures, and an empty cache."""
    write(tmp_path / "data" / "celeba")
    return tmp_path / "data"


def made(root, **options):
    data = CelebA(root=root, **{"size": 16, "batch_size": 2, **options})
    data.prepare_data()
    data.setup()
    return data


def test_parts_labels_and_pixels(root):
    data = made(root)
    assert data.sizes == {"in_shape": (3, 16, 16), "num_classes": 2}
    assert data.summary() == {"n_train": 5, "n_labelled": 5, "n_val": 1, "n_test": 2, "num_classes": 2}
    assert data.pixels == {"mean": (0.0,), "std": (1.0,)}
    for part, loader in enumerate((data.train_eval_dataloader(), data.val_dataloader(), data.test_dataloader())):
        (batch,) = loader
        numbers = [number for number, one in enumerate(PARTS) if one == part]
        assert list(batch) == ["input", "target", "index"]
        assert [batch[key].dtype for key in batch] == [torch.float32, torch.int64, torch.int64]
        assert batch["target"].tolist() == [int(number % 3 == 0) for number in numbers]
        assert batch["index"].tolist() == list(range(len(numbers)))
        for number, one in zip(numbers, batch["input"], strict=True):
            level = (30 * number + 20) / 255
            above, below = one[:, :7].mean((1, 2)), one[:, 9:].mean((1, 2))
            assert above.tolist() == pytest.approx([level, 0, 0], abs=0.03)
            assert below.tolist() == pytest.approx([0, 0, level], abs=0.03)


def test_resized_as_by_pillow(root):
    with Image.open(root / "celeba" / "img_align_celeba" / FILES[2]) as image:
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
    (batch,) = made(root).val_dataloader()
    assert torch.equal(batch["input"][0], torch.from_numpy(expected.copy()).permute(2, 0, 1) / 255)


def test_the_chosen_attribute_is_the_label(root):
    (batch,) = made(root, attribute="Bald").test_dataloader()
    assert batch["target"].tolist() == [0, 0]
    (batch,) = made(root, attribute="Young").test_dataloader()
    assert batch["target"].tolist() == [1, 1]
    with pytest.raises(ConfigError, match="attribute='Hat' is not allowed; allowed: Bald, Eyeglasses, Young"):
        made(root, attribute="Hat")


def test_pictures_are_decoded_once_for_each_size(root, offline_home, monkeypatch):
    cache = offline_home / ".cache" / "kdzoo" / "celeba"
    first = made(root).splits.train.pixels
    assert len(list(cache.iterdir())) == 1
    assert isinstance(first, np.memmap)
    with monkeypatch.context() as patch:
        patch.setattr("kdzoo.data.images.image_files.decode_image", None)
        assert np.array_equal(made(root).splits.train.pixels, first)
    assert made(root, size=8).sizes["in_shape"] == (3, 8, 8)
    assert sorted(path.name.rsplit("_", 1)[0] for path in cache.iterdir()) == ["pixels_16", "pixels_8"]


def test_other_pictures_are_decoded_anew(root, offline_home):
    before = made(root).fingerprint()
    picture(7).save(root / "celeba" / "img_align_celeba" / FILES[0], quality=50)
    assert made(root).fingerprint() != before
    assert len(list((offline_home / ".cache" / "kdzoo" / "celeba").iterdir())) == 2


def test_nothing_is_left_when_a_picture_is_damaged(root, offline_home):
    path = root / "celeba" / "img_align_celeba" / FILES[4]
    complete = path.read_bytes()
    for content in (complete[: len(complete) // 2], b"no picture", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"000005.jpg is missing or not a complete JPEG"):
            CelebA(root=root, size=16).prepare_data()
        assert not list((offline_home / ".cache" / "kdzoo" / "celeba").iterdir())
    path.unlink()
    with pytest.raises(DataError, match=r"000005.jpg is missing or cannot be read"):
        CelebA(root=root, size=16).setup()


def test_a_damaged_cache_is_named(root, offline_home):
    made(root)
    (path,) = (offline_home / ".cache" / "kdzoo" / "celeba").iterdir()
    for content in (path.read_bytes()[:-5], b"text", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{path.name} is damaged .*; delete it, and it is made again"):
            made(root)
    np.save(path, np.zeros((2, 2)))
    with pytest.raises(DataError, match=rf"{path.name} is float64 \[2, 2\]; allowed: uint8 \[8, 3, 16, 16\]"):
        made(root)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_continues_at_any_batch(root, workers):
    data = made(root)
    data.train_sampler.set_epoch(1)
    complete = list(data.train_dataloader())
    data = made(root, num_workers=workers)
    data.train_sampler.set_position(3 + 1)
    for batch, expected in zip(data.train_dataloader(), complete[1:], strict=True):
        assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_fingerprint_is_of_the_training_pictures(root):
    base = made(root).fingerprint()
    assert made(root, attribute="Bald", seed=3, batch_size=1).fingerprint() == base
    assert made(root, train_size=4).fingerprint() != base
    assert made(root, size=8).fingerprint() != base


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "list_eval_partition.txt",
            "000001.jpg 0\n000002.jpg 3\n",
            "line 2 is '000002.jpg 3'; allowed: a name and 0, 1",
        ),
        ("list_eval_partition.txt", "other.jpg 0\n", "has no attributes of other.jpg; allowed: all of list_eval"),
        (
            "list_attr_celeba.txt",
            "1\nEyeglasses Young\n000001.jpg 1\n",
            "line 3 is '000001.jpg 1'; allowed: a name and 2",
        ),
        ("list_attr_celeba.txt", "1\nEyeglasses\n000001.jpg 0\n", "line 3 is '000001.jpg 0'; allowed: a name and 1"),
    ],
    ids=["part_3", "unknown_picture", "too_few_values", "value_0"],
)
def test_bad_lists(root, file, text, message):
    (root / "celeba" / file).write_text(text)
    with pytest.raises(DataError) as caught:
        CelebA(root=root, size=16).setup()
    assert message in str(caught.value)


def test_missing_lists_and_bad_options(tmp_path):
    with pytest.raises(DataError, match=r"celeba: not all of list_attr_celeba\.txt, list_eval_partition\.txt are in"):
        CelebA(root=tmp_path).setup()
    with pytest.raises(ConfigError, match="size must be an integer >= 1, got 0"):
        CelebA(size=0)
