"""Batches of samples of similar length: every sample once, sorted, resumable and shared among processes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.data.loading.grouping import POOL, LengthBatches, group
from kdzoo.errors import ConfigError


def batches(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [rows for _, rows in sampler]


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, 9), st.booleans(), st.integers(0, 3))
def test_every_sample_is_used_once_and_the_longest_of_a_batch_is_first(n, batch_size, grouped, epoch):
    lengths = torch.randint(1, 30, (n,), generator=torch.Generator().manual_seed(n))
    result = batches(LengthBatches(lengths, grouped, n=n, batch_size=batch_size, seed=1), epoch)
    assert sorted(torch.cat(result).tolist()) == list(range(n))
    assert all((lengths[rows].diff() <= 0).all() for rows in result)
    assert [len(rows) for rows in result[:-1]] == [batch_size] * (len(result) - 1)


def test_grouped_batches_have_similar_lengths_and_their_order_is_random():
    n, size = 4 * POOL * 2 + 3, 4
    lengths = torch.randint(1, 1000, (n,), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    result = group(order, lengths, size, 0, 0)
    spread = [int(lengths[rows].max() - lengths[rows].min()) for rows in result[:-3].split(size)]
    assert sum(spread) / len(spread) < 30
    assert torch.equal(result[-3:], order[-3:])
    for pool in order[:-3].split(POOL * size):
        members = {int(row) for row in pool}
        assert sum(set(rows.tolist()) <= members for rows in result[:-3].split(size)) == POOL
    assert not torch.equal(result, group(order, lengths, size, 0, 1))
    longest = [int(lengths[rows].max()) for rows in result[:-3].split(size)]
    assert longest != sorted(longest)


@given(st.integers(2, 40), st.integers(2, 9), st.booleans())
def test_grouping_is_resumed_and_shared(n, batch_size, grouped):
    batch_size = min(n, batch_size)
    lengths = torch.arange(n) % 7 + 1
    options = {"n": n, "batch_size": batch_size, "seed": 3}
    uninterrupted = batches(LengthBatches(lengths, grouped, **options), 1)
    resumed = LengthBatches(lengths, grouped, **options)
    resumed.start = 1
    rest = batches(resumed, 1)
    assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in uninterrupted[1:]]
    shares = [batches(LengthBatches(lengths, grouped, **options, rank=rank, world_size=2), 1) for rank in (0, 1)]
    for batch, *parts in zip([rows for rows in uninterrupted if len(rows) > 1], *shares, strict=True):
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())


def test_grouped_is_a_switch():
    with pytest.raises(ConfigError, match="group_by_length must be true or false, got 1"):
        LengthBatches(torch.arange(4), 1, n=4, batch_size=2, seed=0)
