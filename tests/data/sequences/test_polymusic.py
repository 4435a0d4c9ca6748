"""Piano rolls and the MATLAB files that hold them."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from kdzoo.data import PolyphonicMusic
from kdzoo.data.files.mat import read_mat
from kdzoo.data.sequences import polymusic
from kdzoo.errors import ConfigError, DataError

LENGTHS = {"traindata": [4, 9, 2], "validdata": [3], "testdata": [5, 11]}


@pytest.fixture(autouse=True)
def _any_file(request, monkeypatch):
    """Accept the small files of these tests, unlike the published ones."""
    if "published" not in request.node.name and "real" not in request.node.name:
        monkeypatch.setattr(polymusic, "check_published", lambda path, sha256: None)


def test_a_file_that_is_not_the_published_one_is_not_read(tmp_path):
    write(tmp_path / "JSB_Chorales.mat")
    with pytest.raises(DataError, match=r"JSB_Chorales\.mat has the SHA-256 .*; allowed: ac0e6085"):
        PolyphonicMusic(root=tmp_path).setup()


def ready(data):
    data.setup()
    return data


def cells(pieces):
    found = np.empty((1, len(pieces)), object)
    found[0] = pieces
    return found


def rolls(seed=0):
    rng = np.random.default_rng(seed)
    return {
        part: [(rng.random((length, 88)) < 0.1).astype(np.uint8) for length in lengths]
        for part, lengths in LENGTHS.items()
    }


def write(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {part: cells(pieces) for part, pieces in {**rolls(), **changes}.items()})
    return path


@pytest.mark.parametrize("folder", ["", "polymusic"], ids=["root", "own_folder"])
def test_rolls_are_those_of_the_file(tmp_path, folder):
    write(tmp_path / folder / "Piano_midi.mat")
    data = ready(PolyphonicMusic(name="piano_midi", root=tmp_path, batch_size=2))
    assert data.sizes == {"in_shape": (11, 88)}
    assert data.lengths.tolist() == LENGTHS["traindata"]
    assert data.summary() == {"n_train": 3, "n_labelled": 0, "n_val": 1, "n_test": 2, "num_classes": 0}
    loaders = zip(LENGTHS, (data.train_eval_dataloader(), data.val_dataloader(), data.test_dataloader()), strict=True)
    for part, loader in loaders:
        (batch,) = loader
        for one, mask, roll in zip(batch["input"], batch["mask"], rolls()[part], strict=True):
            assert torch.equal(one[mask], torch.from_numpy(roll).float())


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (np.zeros((4, 87)), r"traindata has a piece float64 \[4, 87\]; allowed: numbers \[T, 88\]"),
        (np.full((4, 88), 2), "traindata has a piece with other values than 0 and 1; allowed: 0 and 1"),
        (np.full((4, 88), np.nan), "traindata has a piece with other values than 0 and 1"),
        (np.full((1, 88), "a"), r"traindata has a piece <U1 \[1, 88\]"),
    ],
    ids=["too_narrow", "twos", "nan", "text"],
)
def test_bad_pieces(tmp_path, piece, message):
    write(tmp_path / "JSB_Chorales.mat", traindata=[piece, piece])
    with pytest.raises(DataError, match=message):
        PolyphonicMusic(root=tmp_path).setup()


def test_missing_music_and_bad_options(tmp_path):
    with pytest.raises(DataError, match=r"polymusic: not all of MuseData\.mat are in"):
        PolyphonicMusic(name="musedata", root=tmp_path).setup()
    with pytest.raises(ConfigError, match="name must be one of jsb, nottingham, musedata, piano_midi, got 'bach'"):
        PolyphonicMusic(name="bach")


def test_bad_matlab_files(tmp_path):
    with pytest.raises(DataError, match=r"none.mat does not exist; allowed: a .mat file with \['x'\]"):
        read_mat(tmp_path / "none.mat", ["x"])
    path = write(tmp_path / "a.mat")
    with pytest.raises(DataError, match=r"a.mat has no array 'x'; allowed: a .mat file with \['testdata', 'x'\]"):
        read_mat(path, ["testdata", "x"])
    content = path.read_bytes()
    for name, damaged in {
        "short": content[:700],
        "empty": b"",
        "text": b"hello " * 100,
        "hdf": b"\x89HDF" * 200,
    }.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name} is damaged or not a .mat file of version 5 to 7") as caught:
            read_mat(tmp_path / name, ["traindata"])
        assert "\n" not in str(caught.value)


REAL = {
    "jsb": (160, (229, 76, 77), 13807),
    "nottingham": (1793, (694, 173, 170), 176561),
    "musedata": (4273, (524, 135, 124), 245202),
    "piano_midi": (3857, (87, 12, 25), 75911),
}


@pytest.mark.parametrize("name", REAL)
def test_real_music(real_root, name):
    if not (real_root / "polymusic").is_dir():
        pytest.skip("no music")
    longest, counts, steps = REAL[name]
    data = ready(PolyphonicMusic(name=name, root=real_root))
    assert data.sizes == {"in_shape": (longest, 88)}
    assert tuple(data.summary()[key] for key in ("n_train", "n_val", "n_test")) == counts
    assert int(data.lengths.sum()) == steps
    assert data.splits.train.sequences.steps.unique().tolist() == [0, 1]
    cut = ready(PolyphonicMusic(name=name, root=real_root, max_steps=50, batch_size=4))
    batch = next(iter(cut.train_dataloader()))
    assert batch["input"].shape == (4, 50, 88)


def test_summaries_of_a_small_piece():
    roll = torch.zeros(2, 4, 88)
    roll[0, :, 5] = 1
    roll[0, 2:, 7] = 1
    roll[1, 0, 5] = 1  # the steps after this one are padding
    found = polymusic.summaries(roll, torch.tensor([4, 1]))
    assert found.shape == (2, 178)
    assert found[0, [5, 7]].tolist() == [1.0, 0.5]
    assert found[0, [88 + 5, 88 + 7]].tolist() == [0.25, 0.25]
    assert found[0, 176:].tolist() == [1.5, 0.5]
    assert found[1, [5, 88 + 5, 176, 177]].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert found.sum(1).tolist() == pytest.approx([1.5 + 0.5 + 1.5 + 0.5, 3.0])
    assert torch.equal(polymusic.summaries(roll)[0], found[0])
