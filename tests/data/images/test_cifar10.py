import hashlib
import io
import tarfile
import urllib.request

import numpy as np
import pytest
import torch

from kdzoo.data import CIFAR10
from kdzoo.data.images import cifar10
from kdzoo.data.images.cifar10 import read_records
from kdzoo.errors import ConfigError, DataError

TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)


def made(n, seed):
    rng = np.random.default_rng(seed)
    # Every class from the seed on, so that several files together have all ten.
    return rng.integers(0, 256, (n, 3, 32, 32), np.uint8), ((np.arange(n) + 2 * seed) % 10).astype(np.uint8)


def records(images, labels):
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


def binary_files():
    return {name: records(*made(8, seed)) for seed, name in enumerate([*TRAIN, "test_batch.bin"])}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("folder", ["", "cifar10", "cifar-10-batches-bin"])
def test_binary_files(tmp_path, folder):
    write(tmp_path / folder, binary_files())
    data = CIFAR10(root=tmp_path, val_size=0, batch_size=8, normalise=False)
    data.setup()
    assert data.sizes["in_shape"] == (3, 32, 32)
    assert data.summary()["n_train"] == 40
    images = np.concatenate([made(8, seed)[0] for seed in range(5)])
    labels = np.concatenate([made(8, seed)[1] for seed in range(5)])
    assert torch.equal(data.splits.train.inputs, torch.from_numpy(images) / 255)
    assert data.splits.train.targets.tolist() == labels.tolist()
    assert torch.equal(data.splits.test.inputs, torch.from_numpy(made(8, 5)[0]) / 255)


@pytest.mark.parametrize("folder", ["", "cifar10"])
def test_archive_comes_first_and_is_normalised(tmp_path, folder):
    write(tmp_path / folder, binary_files())
    (x, y), (test_x, test_y) = made(20, 0), made(6, 1)
    y[:10], test_y[:] = np.arange(10), 0
    last = {"x_train": x.transpose(0, 2, 3, 1), "x_test": test_x.transpose(0, 2, 3, 1)}
    np.savez(tmp_path / folder / "cifar10_subset.npz", **last, y_train=y, y_test=test_y)
    data = CIFAR10(root=tmp_path, val_size=0, batch_size=8)
    data.setup()
    assert data.summary()["n_test"] == 6
    torch.testing.assert_close(data.splits.train.inputs, (torch.from_numpy(x) / 255 - MEAN) / STD)


def test_the_second_held_out_set_is_added_to_the_test_part(tmp_path):
    parts = {"train": made(30, 0), "test": made(5, 1), "holdout": made(7, 2)}
    arrays = {f"x_{part}": x.transpose(0, 2, 3, 1) for part, (x, _) in parts.items()}
    arrays |= {f"y_{part}": y for part, (_, y) in parts.items()}
    np.savez(tmp_path / "cifar10_subset.npz", **arrays)
    both, official = (CIFAR10(root=tmp_path, val_size=0, batch_size=8, held_out=held_out) for held_out in (True, False))
    for data, count in ((both, 12), (official, 5)):
        data.setup()
        assert data.summary()["n_test"] == count
    assert both.splits.test.targets[5:].tolist() == parts["holdout"][1].tolist()
    assert torch.equal(both.splits.test.inputs[:5], official.splits.test.inputs)


def test_the_binary_files_have_no_second_held_out_set(tmp_path):
    write(tmp_path, binary_files())
    with pytest.raises(DataError, match=r"held_out=true needs cifar10_subset.npz"):
        CIFAR10(root=tmp_path, val_size=0, batch_size=8, held_out=True).setup()


def test_download_unpacks_and_removes_the_archive(offline_home, monkeypatch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {**binary_files(), "readme.html": b"text"}.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(cifar10, "_SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(buffer.getvalue()))
    data = CIFAR10(batch_size=8)
    data.prepare_data()
    data.setup()
    assert data.summary()["n_train"] == 36
    assert sorted(p.name for p in (offline_home / ".cache/kdzoo/cifar10").iterdir()) == [*TRAIN, "test_batch.bin"]


def test_missing_and_bad_files(offline_home, tmp_path):
    with pytest.raises(DataError, match=r"cannot download https://www.cs.toronto.edu"):
        CIFAR10().prepare_data()
    with pytest.raises(DataError, match="cifar10: not all of data_batch_1"):
        CIFAR10(root=tmp_path).setup()
    (tmp_path / "odd.bin").write_bytes(b"\x00" * 3074)
    with pytest.raises(DataError, match=r"odd.bin has 3074 bytes; allowed: a positive multiple of 3073"):
        read_records(tmp_path / "odd.bin")
    with pytest.raises(DataError, match=r"none.bin cannot be read"):
        read_records(tmp_path / "none.bin")
    flat = {"x_train": np.zeros((4, 3072), np.uint8), "x_test": np.zeros((4, 3072), np.uint8)}
    np.savez(tmp_path / "cifar10_subset.npz", **flat, y_train=np.arange(4), y_test=np.arange(4))
    with pytest.raises(DataError, match=r"x_train is uint8 \[4, 3072\]; allowed: uint8 \[n, 32, 32, 3\]"):
        CIFAR10(root=tmp_path).setup()
    with pytest.raises(ConfigError, match="normalise must be true or false, got 2"):
        CIFAR10(normalise=2)


def test_real_archive(real_root):
    if not (real_root / "cifar10" / "cifar10_subset.npz").is_file():
        pytest.skip("no cifar10_subset.npz")
    data = CIFAR10(root=real_root, val_size=0)
    data.setup()
    assert data.summary() == {"n_train": 10000, "n_labelled": 10000, "n_val": 0, "n_test": 1000, "num_classes": 10}
    assert data.splits.train.targets[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert data.splits.train.inputs.mean((0, 2, 3)).abs().max() < 0.02
    assert (data.splits.train.inputs.std((0, 2, 3)) - 1).abs().max() < 0.02
