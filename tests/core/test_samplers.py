import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from kdzoo.core.samplers import EpochBatches
from kdzoo.errors import ConfigError


def as_lists(batches):
    return [(epoch, indices.tolist()) for epoch, indices in batches]


def stream(sampler, epochs):
    """All batches of the first epochs, as a trainer that is never interrupted walks through them."""
    seen = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        seen += as_lists(sampler)
    return seen


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 5), st.integers(0, 9), st.booleans())
def test_every_index_exactly_once_per_epoch(n, batch_size, seed, epoch, shuffle):
    sampler = EpochBatches(n, batch_size, seed, shuffle)
    sampler.set_epoch(epoch)
    batches = as_lists(sampler)
    assert len(batches) == len(sampler)
    assert {number for number, _ in batches} == {epoch}
    assert sorted(itertools.chain.from_iterable(rows for _, rows in batches)) == list(range(n))
    assert all(len(rows) == batch_size for _, rows in batches[:-1])


@given(st.integers(1, 60), st.integers(1, 20))
def test_drop_last_leaves_full_batches(n, batch_size):
    if batch_size > n:
        with pytest.raises(ConfigError, match="the train set has 0 batches"):
            EpochBatches(n, batch_size, 0, drop_last=True)
        return
    batches = as_lists(EpochBatches(n, batch_size, 0, drop_last=True))
    assert [len(rows) for _, rows in batches] == [batch_size] * (n // batch_size)


@given(st.data(), st.integers(1, 4), st.booleans())
def test_ranks_partition_the_batches_of_one_process(data, world_size, drop_last):
    n = data.draw(st.integers(world_size, 60))
    batch_size = data.draw(st.integers(world_size, n))
    single = as_lists(EpochBatches(n, batch_size, 3, drop_last=drop_last))
    ranks = [as_lists(EpochBatches(n, batch_size, 3, True, drop_last, r, world_size)) for r in range(world_size)]
    expected = [rows for _, rows in single if len(rows) >= world_size]
    joined = [list(itertools.chain.from_iterable(rows for _, rows in step)) for step in zip(*ranks, strict=True)]
    assert joined == expected
    assert all(len(rows) > 0 for rank in ranks for _, rows in rank)
    assert len(EpochBatches(n, batch_size, 3, True, drop_last, 0, world_size)) == len(expected)


@settings(max_examples=30)
@given(st.integers(1, 25), st.integers(1, 9), st.booleans())
def test_resume_equals_the_tail_for_every_position_and_both_orders(n, batch_size, epoch_first):
    epochs = 3
    uninterrupted = stream(EpochBatches(n, batch_size, 7), epochs)
    for done in range(len(uninterrupted)):
        sampler = EpochBatches(n, batch_size, 7)
        sampler.set_position(done)
        first = sampler.epoch
        if epoch_first:
            sampler.set_epoch(first)
        iterator = iter(sampler)
        if not epoch_first:
            sampler.set_epoch(first)
        seen = as_lists(iterator)
        for epoch in range(first + 1, epochs):
            sampler.set_epoch(epoch)
            seen += as_lists(sampler)
        assert seen == uninterrupted[done:]


def test_length_does_not_depend_on_start():
    sampler = EpochBatches(10, 3, 0)
    sampler.set_position(6)
    assert (sampler.epoch, sampler.start, len(sampler)) == (1, 2, 4)


def test_start_is_reset_at_the_end_of_the_resumed_epoch_only():
    sampler = EpochBatches(10, 2, 0)
    sampler.start = 3
    sampler.set_epoch(4)
    assert sampler.start == 3
    assert len(as_lists(sampler)) == 2
    assert sampler.start == 0


def test_a_discarded_iterator_does_not_use_up_the_start():
    # With workers, a trainer may fill one iterator in advance and then make another for the same epoch.
    sampler = EpochBatches(10, 2, 0)
    sampler.set_position(8)
    uninterrupted = stream(EpochBatches(10, 2, 0), 2)
    next(iter(sampler))
    assert as_lists(sampler) == uninterrupted[8:]


def test_a_resumed_epoch_that_is_left_early_does_not_shorten_the_next():
    # limit_train_batches leaves every epoch before the sampler has come to its end.
    sampler = EpochBatches(20, 2, 0)
    sampler.set_position(7, per_epoch=5)
    assert (sampler.epoch, sampler.start) == (1, 2)
    assert len(as_lists(itertools.islice(sampler, 3))) == 3
    sampler.set_epoch(2)
    assert len(as_lists(sampler)) == 10


def test_epochs_and_seeds_differ_and_ints_repeat():
    first, second = stream(EpochBatches(30, 30, 0), 2)
    assert first[1] != second[1]
    assert as_lists(EpochBatches(30, 30, 1)) != as_lists(EpochBatches(30, 30, 0))
    assert stream(EpochBatches(30, 7, 0), 2) == stream(EpochBatches(30, 7, 0), 2)


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    as_lists(EpochBatches(30, 7, 0))
    assert torch.equal(before, torch.get_rng_state())


def test_set_share_moves_the_sampler_to_another_world():
    sampler = EpochBatches(9, 4, 0, shuffle=False)
    sampler.set_share(1, 2)
    assert as_lists(sampler) == [(0, [2, 3]), (0, [6, 7])]  # the last batch [8] is smaller than the world
    assert len(sampler) == 2


def test_replicated_batches_go_to_every_rank():
    sampler = EpochBatches(9, 4, 0, shuffle=False, replicated=True)
    sampler.set_share(1, 2)
    assert as_lists(sampler) == [(0, [0, 1, 2, 3]), (0, [4, 5, 6, 7])]
    assert (sampler.share(4), sampler.share(5)) == (slice(2, 4), slice(2, 5))


def test_loader_reports_full_length_after_set_position():
    sampler = EpochBatches(10, 3, 0)
    sampler.set_position(2)
    loader = DataLoader([0] * 10, sampler=sampler, batch_size=None)
    assert len(loader) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer"),
        ({"batch_size": 2.0}, "batch_size must be an integer"),
        ({"replicated": 1}, "replicated must be true or false, got 1"),
        ({"shuffle": 1}, "shuffle must be true or false, got 1"),
        ({"rank": 2, "world_size": 2}, "rank must be an integer in 0..1, got 2"),
        ({"world_size": 0}, "world_size must be an integer"),
        ({"batch_size": 2, "world_size": 3}, "batch_size=2 is the global batch of 3 processes; allowed: >= 3"),
        ({"n": 2, "batch_size": 4, "world_size": 3}, "the train set has 0 batches"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError) as caught:
        EpochBatches(**{"n": 10, "batch_size": 4, "seed": 0, **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("position", [-1, 1.5])
def test_bad_position(position):
    with pytest.raises(ConfigError, match="batches_done must be an integer"):
        EpochBatches(10, 4, 0).set_position(position)
