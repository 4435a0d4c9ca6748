"""Loaders over data sets whose values are whole batches."""

import pytest
import torch

from kdzoo.core.samplers import EpochBatches
from kdzoo.data.loading.batch_loader import BatchDataset, batch_loader, identity_collate
from kdzoo.errors import ConfigError


class Squares(BatchDataset):
    """Squares of the indices plus the epoch."""

    def __len__(self):
        return 7

    def get_batch(self, epoch, index):
        return {"input": index.square() + epoch, "index": index}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_sampler_chooses_epoch_and_indices(workers):
    sampler = EpochBatches(7, 3, seed=0, shuffle=False)
    sampler.set_epoch(2)
    batches = list(batch_loader(Squares(), sampler, num_workers=workers))
    assert [batch["input"].tolist() for batch in batches] == [[2, 3, 6], [11, 18, 27], [38]]


def test_iterating_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    list(batch_loader(Squares(), EpochBatches(7, 3, seed=0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_replaced_sampler_is_reported_with_its_remedy():
    with pytest.raises(ConfigError, match=r"sampler was replaced; allowed: Trainer\(use_distributed_sampler=False\)"):
        Squares()[3]


def test_the_collate_function_returns_the_batch_itself():
    batch = {"input": torch.ones(2)}
    assert identity_collate(batch) is batch
