"""Random transforms that are seeded for each sample, and the global generators that they leave unchanged."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, default_collate

from kdzoo.data.loading.convert import BatchFormat
from kdzoo.data.loading.replay import ReplayedBatches, preserved_randomness, seed_everywhere
from kdzoo.errors import ConfigError


class RandomSamples(Dataset):
    """Samples with a number from each of the three global generators."""

    def __len__(self):
        return 5

    def __getitem__(self, row):
        return torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()]), row


def jittered(samples):
    """Collate, and add noise to the batch as mixup would."""
    inputs, targets = default_collate(samples)
    return inputs + torch.rand(()), targets


def replayed(seed=0, collate=default_collate):
    return ReplayedBatches(RandomSamples(), collate, BatchFormat(), seed, is_random=True)


def draws():
    return torch.rand(()).item(), np.random.rand(), random.random()


def test_a_sample_is_a_function_of_seed_epoch_and_index():
    together = replayed()[1, torch.tensor([3, 0, 4])]["input"]
    alone = replayed()[1, torch.tensor([0])]["input"]
    assert torch.equal(together[1], alone[0])
    others = [
        replayed()[2, torch.tensor([0])],
        replayed(seed=1)[1, torch.tensor([0])],
        replayed()[1, torch.tensor([1])],
    ]
    for other in others:
        assert not torch.isin(other["input"], alone).any()


def test_the_collate_function_is_seeded_too():
    index = torch.tensor([2, 1])
    first, again = (replayed(collate=jittered)[0, index]["input"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, replayed()[0, index]["input"])


def test_the_global_generators_go_on_as_if_nothing_had_been_drawn():
    seed_everywhere(5)
    expected = draws()
    seed_everywhere(5)
    replayed()[0, torch.arange(5)]
    assert draws() == expected


def test_the_generators_are_restored_after_an_error():
    seed_everywhere(5)
    expected = draws()
    seed_everywhere(5)
    with pytest.raises(ZeroDivisionError), preserved_randomness():
        _ = draws()[0] / 0
    assert draws() == expected


def test_large_seeds_are_taken_and_decide_all_three():
    seed_everywhere(2**63 - 1)
    first = draws()
    seed_everywhere(2**63 - 1)
    assert draws() == first
    seed_everywhere(1)
    assert not set(draws()) & set(first)


def test_nothing_is_seeded_for_data_that_do_not_change():
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    dataset = ReplayedBatches(RandomSamples(), default_collate, BatchFormat(), 0, is_random=False)
    assert dataset[0, torch.tensor([0])]["input"][0, 0] == expected


def test_length_and_a_replaced_sampler():
    assert len(replayed()) == 5
    with pytest.raises(ConfigError, match="sampler was replaced"):
        replayed()[0]
