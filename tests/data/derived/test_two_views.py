"""Two views of a training sample: independent, repeatable, and absent from evaluation."""

import pytest
import torch

from kdzoo.data import Digits, OldFaithful
from kdzoo.data.derived.two_views import TwoViews
from kdzoo.errors import ConfigError


@pytest.fixture(scope="module")
def digits():
    data = Digits(labels_per_class=None, batch_size=64, augment={"shift": 1})
    data.setup()
    return data


def batches(data, epoch=0):
    data.train_sampler.set_epoch(epoch)
    return list(data.train_dataloader())


def test_equal_augmentations_give_different_views_of_the_same_samples(digits):
    data = TwoViews(digits, augment={"shift": 2}, input_augment={"shift": 2})
    data.setup()
    batch = batches(data)[0]
    assert batch["input"].shape == batch["view"].shape == (64, 1, 8, 8)
    assert not torch.equal(batch["input"], batch["view"])
    assert torch.equal(batch["target"], digits.splits.train.targets[batch["index"]])


def test_without_an_input_augmentation_the_input_is_the_sample_itself(digits):
    batch = batches(TwoViews(digits, augment={"flip": True}))[0]
    samples = digits.splits.train.inputs[batch["index"]]
    assert torch.equal(batch["input"], samples)
    flipped = (batch["view"] == samples.flip(-1)).flatten(1).all(1)
    assert ((batch["view"] == samples).flatten(1).all(1) | flipped).all()
    assert 10 < int(flipped.sum()) < 54  # half of 64, give or take 5 standard deviations


def test_views_repeat_and_differ_between_epochs_and_seeds(digits):
    first, again, other_seed = (TwoViews(digits, augment={"shift": 2}, seed=seed) for seed in (0, 0, 1))
    dataset = first.train_dataloader().dataset
    views = [dataset[epoch, torch.arange(9)]["view"] for epoch in (0, 1)]
    assert not torch.equal(*views)
    assert torch.equal(again.train_dataloader().dataset[0, torch.tensor([4])]["view"][0], views[0][4])
    assert not torch.equal(other_seed.train_dataloader().dataset[0, torch.arange(9)]["view"], views[0])
    assert first.fingerprint() == again.fingerprint() != other_seed.fingerprint()


def test_evaluation_batches_are_not_augmented(digits):
    data = TwoViews(digits, augment={"shift": 2})
    for loader, source in (
        (data.train_eval_dataloader(), digits.splits.train),
        (data.val_dataloader(), digits.splits.val),
    ):
        inputs = torch.cat([batch["input"] for batch in loader])
        assert torch.equal(inputs, source.inputs)
        assert all(torch.equal(batch["input"], batch["view"]) for batch in loader)
    assert data.is_augmented
    assert data.sizes == digits.sizes


def test_sources_and_options_that_are_not_valid(digits):
    with pytest.raises(ConfigError, match=r"^two views need images in memory .*, got OldFaithful$"):
        TwoViews(OldFaithful(), augment={"shift": 1})
    with pytest.raises(ConfigError, match=r"augment\.shift=8 is too large"):
        TwoViews(digits, augment={"shift": 8})
    with pytest.raises(ConfigError, match="seed must be an integer >= 0, got -1"):
        TwoViews(digits, augment={}, seed=-1)
