"""Kanji as pen strokes, from a small archive and from the real one."""

import numpy as np
import pytest
import torch

from kdzoo.data import KanjiStrokes
from kdzoo.data.sequences.strokes import stroke_images
from kdzoo.errors import DataError


def ready(data):
    data.setup()
    return data


def drawing(batch, offsets):
    """Return pen states and offsets of all steps as they were before they were standardised."""
    steps = batch["input"][batch["mask"]]
    moves = steps[:, 1:] * torch.tensor(offsets["std"]) + torch.tensor(offsets["mean"])
    return torch.cat([steps[:, :1], moves], 1)


LENGTHS = {"train": [2, 5, 3, 4], "valid": [3], "test": [6, 1]}


def archive(folder, **changes):
    """Write a small archive; return its strokes (dx, dy, pen) for each part."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, lengths in LENGTHS.items():
        n = sum(lengths)
        strokes = np.column_stack([rng.integers(-99, 99, (n, 2)), rng.integers(0, 2, n)]).astype(np.int16)
        arrays |= {f"{part}_strokes": strokes, f"{part}_lengths": np.array(lengths, np.int16)}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "short_kanji.npz", **{**arrays, **changes})
    return arrays


@pytest.mark.parametrize("folder", ["", "kanji_strokes"], ids=["root", "own_folder"])
def test_the_strokes_of_the_file_can_be_recovered(tmp_path, folder):
    arrays = archive(tmp_path / folder)
    data = ready(KanjiStrokes(root=tmp_path, batch_size=2))
    assert data.sizes == {"in_shape": (6, 3)}
    assert data.lengths.tolist() == LENGTHS["train"]
    assert data.summary() == {"n_train": 4, "n_labelled": 0, "n_val": 1, "n_test": 2, "num_classes": 0}
    train = arrays["train_strokes"][:, :2].astype(float)
    assert data.offsets["mean"] == pytest.approx(train.mean(0))
    assert data.offsets["std"] == pytest.approx(train.std(0))
    loaders = {"train": data.train_eval_dataloader(), "valid": data.val_dataloader(), "test": data.test_dataloader()}
    for part, loader in loaders.items():
        (batch,) = loader
        expected = torch.from_numpy(arrays[f"{part}_strokes"][:, [2, 0, 1]]).float()
        torch.testing.assert_close(drawing(batch, data.offsets), expected, rtol=0, atol=1e-4)


def test_the_scaling_is_that_of_the_full_training_split(tmp_path):
    archive(tmp_path)
    one, other = (
        KanjiStrokes(root=tmp_path, batch_size=2),
        KanjiStrokes(root=tmp_path, train_size=2, max_steps=1, batch_size=2),
    )
    with pytest.raises(RuntimeError, match=r"call KanjiStrokes.setup\(\) first"):
        one.offsets  # noqa: B018
    assert ready(one).offsets == ready(other).offsets


def test_invalid_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"kanji_strokes: not all of short_kanji.npz are in"):
        KanjiStrokes(root=tmp_path).setup()
    archive(tmp_path, valid_strokes=np.zeros((3, 2), np.int16))
    with pytest.raises(DataError, match=r"short_kanji.npz: valid_strokes is \[3, 2\]; allowed: \[n, 3\] with n >= 1"):
        KanjiStrokes(root=tmp_path).setup()
    archive(tmp_path, test_lengths=np.array([6, 2]))
    with pytest.raises(DataError, match=r"steps are \[7, 3\] for lengths that add up to 8"):
        KanjiStrokes(root=tmp_path).setup()


def test_the_published_file_has_the_documented_sizes(real_root):
    if not (real_root / "kanji_strokes").is_dir():
        pytest.skip("no kanji")
    data = ready(KanjiStrokes(root=real_root))
    assert data.summary() == {"n_train": 10000, "n_labelled": 0, "n_val": 600, "n_test": 500, "num_classes": 0}
    assert data.sizes == {"in_shape": (88, 3)}
    steps = data.splits.train.sequences.steps
    assert steps[:, 0].unique().tolist() == [0, 1]
    assert steps[:, 1:].mean(0).abs().max() < 1e-5
    assert (steps[:, 1:].std(0) - 1).abs().max() < 1e-5
    ends = data.lengths.cumsum(0) - 1
    assert steps[ends, 0].mean() == 1  # the pen is lifted after the last point
    drawn = drawing(next(iter(data.test_dataloader())), data.offsets)
    torch.testing.assert_close(drawn, drawn.round(), rtol=0, atol=1e-3)


def test_pictures_undo_the_standardisation(tmp_path):
    archive(tmp_path)
    kanji = ready(KanjiStrokes(root=tmp_path, batch_size=4))
    (batch,) = kanji.train_eval_dataloader()
    lengths = batch["mask"].sum(1)
    to_container = torch.zeros_like(batch["input"])
    to_container[batch["mask"]] = drawing(batch, kanji.offsets)
    torch.testing.assert_close(
        kanji.pictures(batch["input"], lengths), stroke_images(to_container, lengths), rtol=0, atol=1e-3
    )
    assert kanji.pictures(batch["input"], lengths, 40).shape == (4, 1, 40, 40)
