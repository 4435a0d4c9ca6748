import numpy as np
from sklearn.datasets import load_digits

from kdzoo.data import Digits


def test_defaults():
    data = Digits()
    data.setup()
    assert data.sizes == {"in_shape": (1, 8, 8), "num_classes": 10}
    assert data.summary() == {"n_train": 1077, "n_labelled": 60, "n_val": 120, "n_test": 600, "num_classes": 10}
    assert data.batch_size == 64
    assert float(data.splits.train.inputs.min()) == 0
    assert float(data.splits.train.inputs.max()) == 1


def test_all_images_are_there_once_and_test_is_stratified():
    data = Digits(labels_per_class=None)
    data.setup()
    x, y = load_digits(return_X_y=True)
    parts = (data.splits.train, data.splits.val, data.splits.test)
    found = np.concatenate([np.c_[part.inputs.flatten(1) * 16, part.targets] for part in parts])
    assert sorted(map(tuple, found)) == sorted(map(tuple, np.c_[x, y]))
    share = np.bincount(data.splits.test.targets) / np.bincount(y)
    assert np.allclose(share, 600 / 1797, atol=0.004)


def test_every_seed_has_the_same_val_and_test():
    first, second = Digits(seed=0), Digits(seed=1)
    first.setup()
    second.setup()
    assert first.fingerprint() == second.fingerprint()
    assert np.array_equal(first.splits.val.inputs, second.splits.val.inputs)
    assert np.array_equal(first.splits.test.inputs, second.splits.test.inputs)
    assert not np.array_equal(first.splits.train.targets, second.splits.train.targets)
