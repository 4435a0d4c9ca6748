import hashlib
import io
import urllib.request

import numpy as np
import pytest
import torch
from scipy.io import savemat

from kdzoo.data import SVHN
from kdzoo.data.images import svhn
from kdzoo.data.images.svhn import read_digits
from kdzoo.errors import ConfigError, DataError

FILES = ("train_32x32.mat", "test_32x32.mat")
MEAN = torch.tensor([0.4377, 0.4438, 0.4728]).view(3, 1, 1)
STD = torch.tensor([0.1980, 0.2010, 0.1970]).view(3, 1, 1)


@pytest.fixture(autouse=True)
def _any_file(request, monkeypatch):
    """Accept the small files of these tests, unlike the published ones."""
    if "published" not in request.node.name:
        monkeypatch.setattr(svhn, "check_published", lambda path, sha256: None)


def test_files_that_are_not_the_published_ones_are_not_read(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"train_32x32\.mat has the SHA-256 .*; allowed: 435e94d6"):
        SVHN(root=tmp_path).setup()


def made(n, seed):
    """Images [n, 3, 32, 32] and the file's labels 1..10."""
    images = np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), np.uint8)
    return images, 1 + np.arange(n, dtype=np.uint8) % 10


def content(n, seed):
    images, labels = made(n, seed)
    buffer = io.BytesIO()
    savemat(buffer, {"X": images.transpose(2, 3, 1, 0), "y": labels[:, None]}, do_compression=True)
    return buffer.getvalue()


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, n, seed in zip(FILES, (40, 20), (0, 1), strict=True):
        (folder / name).write_bytes(content(n, seed))


@pytest.mark.parametrize("folder", ["", "svhn"], ids=["root", "own_folder"])
def test_images_and_labels_are_those_of_the_files(tmp_path, folder):
    write(tmp_path / folder)
    data = SVHN(root=tmp_path, val_size=0, batch_size=8, normalise=False)
    data.prepare_data()
    data.setup()
    assert data.sizes == {"in_shape": (3, 32, 32), "num_classes": 10}
    assert data.summary() == {"n_train": 40, "n_labelled": 40, "n_val": 0, "n_test": 20, "num_classes": 10}
    assert torch.equal(data.splits.train.inputs, torch.from_numpy(made(40, 0)[0]) / 255)
    assert data.splits.test.targets.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    assert data.pixels == {"mean": (0.0,), "std": (1.0,)}


def test_normalise(tmp_path):
    write(tmp_path)
    data = SVHN(root=tmp_path, val_size=0, batch_size=8)
    data.setup()
    torch.testing.assert_close(data.splits.test.inputs, (torch.from_numpy(made(20, 1)[0]) / 255 - MEAN) / STD)
    assert torch.equal(torch.tensor(data.pixels["mean"]), MEAN.flatten())


def test_download_when_nowhere(offline_home, monkeypatch):
    served = {f"{SVHN.url}/{name}": content(n, 0) for name, n in zip(FILES, (40, 20), strict=True)}
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(served[url]))
    digests = [hashlib.sha256(one).hexdigest() for one in served.values()]
    monkeypatch.setattr(SVHN, "sha256", dict(zip(FILES, digests, strict=True)))
    data = SVHN(batch_size=8)
    data.prepare_data()
    data.setup()
    assert data.summary()["n_train"] == 36
    assert sorted(path.name for path in (offline_home / ".cache/kdzoo/svhn").iterdir()) == sorted(FILES)


def test_missing_files_and_bad_options(offline_home, tmp_path):
    with pytest.raises(DataError, match=r"cannot download https://ufldl\.stanford\.edu/housenumbers/train_32x32\.mat"):
        SVHN().prepare_data()
    data = SVHN(root=tmp_path)
    data.prepare_data()
    with pytest.raises(DataError, match=r"svhn: not all of train_32x32\.mat, test_32x32\.mat are in"):
        data.setup()
    with pytest.raises(ConfigError, match="normalise must be true or false, got 0"):
        SVHN(normalise=0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((32, 32, 3, 4)), np.ones((4, 1)), r"X is float64 \[32, 32, 3, 4\]; allowed: uint8"),
        (np.zeros((4, 32, 32, 3), np.uint8), np.ones((4, 1)), r"X is uint8 \[4, 32, 32, 3\]"),
        (np.zeros((32, 32, 3, 4), np.uint8), np.ones((3, 1), int), r"y is int64 \[3, 1\]; allowed: integers \[4, 1\]"),
        (np.zeros((32, 32, 3, 4), np.uint8), np.full((4, 1), 0.5), r"y is float64 \[4, 1\]"),
        (np.zeros((32, 32, 3, 4), np.uint8), np.arange(4)[:, None], r"y is in 0..3; allowed: 1..10"),
    ],
    ids=["floats", "samples_first", "too_few_labels", "half_labels", "label_0"],
)
def test_bad_arrays(tmp_path, images, labels, message):
    savemat(tmp_path / "bad.mat", {"X": images, "y": labels})
    with pytest.raises(DataError, match=message):
        read_digits(tmp_path / "bad.mat")
