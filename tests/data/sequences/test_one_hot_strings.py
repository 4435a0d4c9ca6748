"""The user's own strings as tables of one-hot vectors."""

import pytest
import torch

from kdzoo.data import OneHotStrings
from kdzoo.errors import ConfigError, DataError


def strings(folder, train="a b a\nb\n\nb b b b\n", test="b a\n", **options):
    for name, text in (("train", train), ("test", test)):
        (folder / name).write_text(text)
    data = OneHotStrings(
        train_file=folder / "train",
        test_file=folder / "test",
        **{"length": 3, "val_size": 0, "batch_size": 2, **options},
    )
    data.setup()
    return data


def test_the_end_fills_short_strings_and_long_ones_are_cut(tmp_path):
    data = strings(tmp_path)
    assert data.sizes == {"in_shape": (3, 3)}
    inputs = torch.cat([batch["input"] for batch in data.train_eval_dataloader()])
    assert inputs.dtype == torch.float32
    assert (inputs.sum(2) == 1).all()
    assert sorted(inputs.argmax(2).tolist()) == [[0, 1, 0], [1, 1, 1], [1, 2, 2], [2, 2, 2]]
    (test,) = data.test_dataloader()
    assert test["input"].argmax(2).tolist() == [[1, 0, 2]]


def test_a_part_is_set_aside(tmp_path):
    assert strings(tmp_path, val_size=1).summary()["n_val"] == 1


def test_the_summaries_are_shares_of_symbols_in_both_halves(tmp_path):
    data = strings(tmp_path)
    (test,) = data.test_dataloader()
    assert data.summaries(test["input"]).tolist() == [[0.5, 0.5, 0, 0.5, 0, 0.5]]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="length must be an integer >= 1, got 0"):
        strings(tmp_path, length=0)
    with pytest.raises(DataError, match=r"test.*has the token 'c'; allowed: the 2 of the training file"):
        strings(tmp_path, test="a c\n")
