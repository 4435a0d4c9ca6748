"""Conversion of a user's batches to dictionaries, and what is refused."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from kdzoo.core.batch import IGNORE
from kdzoo.data.loading.convert import BatchFormat, ConvertedBatches, to_batch
from kdzoo.errors import DataError

X, Y, INDEX = torch.rand(2, 3), torch.tensor([1, 0], dtype=torch.int32), torch.tensor([4, 9])


@pytest.mark.parametrize(
    ("batch", "keys"),
    [
        ((X, Y), BatchFormat()),
        ([X.double(), Y], BatchFormat()),
        ({"image": X, "label": Y}, BatchFormat()),
        ({"x": X.double(), "y": Y}, BatchFormat()),
        ({"a": X, "b": Y, "x": 0}, BatchFormat("a", "b")),
    ],
)
def test_forms_of_batches(batch, keys):
    batch_dict = to_batch(batch, INDEX, keys)
    assert batch_dict["target"].tolist() == [1, 0]
    assert batch_dict["target"].dtype == torch.int64
    torch.testing.assert_close(batch_dict["input"], X)
    assert batch_dict["index"] is INDEX


def test_missing_labels_and_other_tensors():
    assert to_batch((X,), INDEX, BatchFormat())["target"].tolist() == [IGNORE, IGNORE]
    assert to_batch(X, INDEX, BatchFormat())["target"].tolist() == [IGNORE, IGNORE]
    batch_dict = to_batch({"inputs": X, "mask": Y, "name": "text"}, INDEX, BatchFormat())
    assert set(batch_dict) == {"input", "target", "index", "mask"}


@pytest.mark.parametrize(
    ("batch", "keys", "message"),
    [
        ("text", BatchFormat(), "a batch is str"),
        ((X, Y, Y), BatchFormat(), "a batch is tuple"),
        ({"z": X}, BatchFormat(), "input_key=None finds nothing in a batch with the keys ['z']"),
        ({"x": X}, BatchFormat(target_key="y"), "target_key='y' finds nothing"),
        ((X[:1], Y[:1]), BatchFormat(), "a batch's inputs are [1, 3]; allowed: a tensor with 2 samples"),
        (([1, 2], Y), BatchFormat(), "a batch's inputs are list"),
        ((X, X), BatchFormat(), "a batch's targets are torch.float32 [2, 3]; allowed: integers [2]"),
        ((X, [1, 2]), BatchFormat(), "a batch's targets are list"),
    ],
)
def test_bad_batches(batch, keys, message):
    with pytest.raises(DataError) as caught:
        to_batch(batch, INDEX, keys)
    assert message in str(caught.value)


class Stream(IterableDataset):
    """Seven samples without a known length."""

    def __iter__(self):
        yield from ((torch.full((2,), float(number)), number) for number in range(7))


def test_index_counts_the_samples_of_a_loader():
    batches = list(ConvertedBatches(DataLoader(Stream(), batch_size=3), BatchFormat()))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert all(torch.equal(batch["target"], batch["index"]) for batch in batches)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(TensorDataset(torch.rand(7, 2)), batch_size=3),
        DataLoader(Stream(), batch_size=3),
        [torch.rand(4, 2), torch.rand(3, 2)],
    ],
    ids=["sized", "stream", "list"],
)
def test_samples_are_counted(loader):
    assert ConvertedBatches(loader, BatchFormat()).count() == 7


def test_length_is_that_of_the_loader_if_it_has_one():
    assert len(ConvertedBatches([X, X], BatchFormat())) == 2
    with pytest.raises(TypeError, match="generator has no length"):
        len(ConvertedBatches((X for _ in range(2)), BatchFormat()))


def test_a_label_that_stands_for_a_missing_one_becomes_that_of_torch():
    batch = to_batch((X, torch.tensor([255, 1])), INDEX, BatchFormat(ignore_index=255))
    assert batch["target"].tolist() == [IGNORE, 1]
