import gzip
import hashlib
import io
import struct
import urllib.request

import numpy as np
import pytest
import torch

from kdzoo.data import MNIST, SVHN, FashionMNIST, TinyShakespeare
from kdzoo.errors import ConfigError, DataError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def tiny_files(n=40, n_test=10, side=28):
    """The four files in small: name -> bytes; pixel (0, 0) is the row's number."""
    files = {}
    for (images, labels), rows in zip((NAMES[:2], NAMES[2:]), (n, n_test), strict=True):
        pixels = np.zeros((rows, side, side), np.uint8)
        pixels[:, 0, 0] = np.arange(rows)
        files[images] = struct.pack(">I3I", 0x803, *pixels.shape) + pixels.tobytes()
        files[labels] = struct.pack(">II", 0x801, rows) + (np.arange(rows) % 10).astype(np.uint8).tobytes()
    return files


def write(folder, files, zipped):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("in_own_folder", [True, False])
def test_tiny_files(tmp_path, zipped, in_own_folder):
    write(tmp_path / "mnist" if in_own_folder else tmp_path, tiny_files(), zipped)
    data = MNIST(root=tmp_path, batch_size=8)
    data.prepare_data()
    data.setup()
    assert data.sizes == {"in_shape": (1, 28, 28), "num_classes": 10}
    assert data.summary() == {"n_train": 36, "n_labelled": 36, "n_val": 4, "n_test": 10, "num_classes": 10}
    assert torch.equal(data.splits.test.inputs[:, 0, 0, 0], torch.arange(10, dtype=torch.float32) / 255)


@pytest.mark.parametrize(("kind", "mean", "std"), [(MNIST, 0.1307, 0.3081), (FashionMNIST, 0.2860, 0.3530)])
def test_normalise(tmp_path, kind, mean, std):
    write(tmp_path, tiny_files(), zipped=False)
    data = kind(root=str(tmp_path), normalise=True, batch_size=8)
    data.setup()
    expected = (torch.arange(10) / 255 - mean) / std
    torch.testing.assert_close(data.splits.test.inputs[:, 0, 0, 0], expected)


def test_download_when_nowhere(offline_home, monkeypatch):
    served = {f"{MNIST.url}/{name}.gz": gzip.compress(content) for name, content in tiny_files().items()}
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(served[url]))
    monkeypatch.setattr(MNIST, "sha256", tuple(hashlib.sha256(content).hexdigest() for content in served.values()))
    data = MNIST(batch_size=8)
    data.prepare_data()
    data.setup()
    assert sorted(p.name for p in (offline_home / ".cache/kdzoo/mnist").iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    monkeypatch.delattr(urllib.request, "urlopen")
    MNIST(batch_size=8).prepare_data()  # now they are there


def test_no_network(offline_home):
    with pytest.raises(DataError, match=r"cannot download https://raw.*/fashion-mnist.*set data.root or KDZOO_DATA"):
        FashionMNIST().prepare_data()


def test_a_given_root_is_never_filled(offline_home, tmp_path):
    data = MNIST(root=tmp_path)
    data.prepare_data()
    with pytest.raises(DataError, match="mnist: not all of train-images-idx3-ubyte"):
        data.setup()


def test_bad_files_and_options(tmp_path):
    files = tiny_files()
    write(tmp_path, {**files, NAMES[0]: files[NAMES[1]]}, zipped=False)
    with pytest.raises(DataError, match=r"has images uint8 \[40\]; allowed: uint8 \[n, height, width\]"):
        MNIST(root=tmp_path).setup()
    with pytest.raises(ConfigError, match="normalise must be true or false, got 'yes'"):
        MNIST(normalise="yes")


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_real_files(real_root, kind):
    folder = real_root / kind.folder
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for name, sha256 in zip(NAMES, kind.sha256, strict=True):
        assert hashlib.sha256((folder / f"{name}.gz").read_bytes()).hexdigest() == sha256
    data = kind(root=real_root, val_size=5000)
    data.setup()
    assert data.summary() == {
        "n_train": 55000,
        "n_labelled": 55000,
        "n_val": 5000,
        "n_test": 10000,
        "num_classes": 10,
    }
    inputs = torch.cat([data.splits.train.inputs, data.splits.val.inputs])
    assert float(inputs.mean()) == pytest.approx(kind.mean, abs=1e-4)
    assert float(inputs.std()) == pytest.approx(kind.std, abs=1e-4)


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, SVHN, TinyShakespeare])
def test_downloads_are_encrypted(kind):
    assert kind.url.startswith("https://")
