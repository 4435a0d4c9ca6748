"""Masked tokens: how many, which, what replaces them, and that every process draws the same."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.core.batch import IGNORE
from kdzoo.core.samplers import EpochBatches
from kdzoo.data.loading.batch_loader import batch_loader
from kdzoo.data.text.blocks import Blocks, MaskedBatches
from kdzoo.data.text.masking import TokenMasker, number_of_targets, select_positions, token_weights
from kdzoo.errors import ConfigError

V, MASK, SPECIAL = 40, 4, (0, 1, 2, 3, 4)


def blocks(n, length, seed=0, short=3):
    """Blocks of [CLS] tokens [SEP], the last one with ``short`` places that are padded."""
    ids = np.random.default_rng(seed).integers(5, V, (n, length)).astype(np.uint16)
    ids[:, 0], ids[:, -1] = 2, 3
    ids[-1, length - short :] = 0
    return Blocks(ids, torch.arange(n), 0)


def masks(rate=0.15, seed=0, is_fixed=True, smoothing=0.7, epoch=None, counts=None):
    counts = np.arange(V) ** 2 if counts is None else counts
    return TokenMasker(token_weights(counts, SPECIAL, smoothing), MASK, rate, seed, is_fixed, epoch)


def masked(split, index, masker, epoch=0):
    return MaskedBatches(split, masker)[epoch, index]


@given(st.integers(1, 12), st.integers(4, 20), st.floats(0, 0.99), st.integers(0, 3), st.booleans())
def test_targets_are_tokens_that_are_not_special(n, length, rate, seed, is_fixed):
    split = blocks(n, length, seed)
    index = torch.arange(n).flip(0)
    batch = masked(split, index, masks(rate, seed, is_fixed))
    original = torch.from_numpy(split.ids[index.numpy()].astype(np.int64))
    selected = batch["target"] != IGNORE
    assert list(batch) == ["input", "target", "index", "mask"]
    assert torch.equal(batch["mask"], original != 0)
    assert torch.equal(batch["target"][selected], original[selected])
    assert torch.equal(batch["input"][~selected], original[~selected])
    assert not torch.isin(original[selected], torch.tensor(SPECIAL)).any()
    assert not torch.isin(batch["input"][selected], torch.tensor([0, 1, 2, 3])).any()
    if is_fixed:
        wanted = math.ceil(rate * int((original != 0).sum()))
        assert int(selected.sum()) == min(wanted, int((original > 4).sum()))


def test_the_number_is_that_of_the_published_recipe():
    # Sanh et al.: math.ceil(mlm_mask_prop * lengths.sum().item()), special tokens counted.
    assert [number_of_targets(n, 0.15) for n in (0, 1, 7, 20, 128 * 64)] == [0, 1, 2, 3, 1229]


def test_weights_of_the_published_recipe():
    # np.maximum(counts, 1) ** -mlm_smoothing, 0 for special tokens.
    weights = token_weights(np.array([7, 0, 1, 100, 10_000]), [0], 0.7)
    assert weights.tolist() == pytest.approx([0.0, 1.0, 1.0, 0.0398107, 0.00158489], rel=1e-5)


def test_positions_are_drawn_in_proportion_to_their_weights():
    """Against torch.multinomial without replacement, which the published code calls."""
    weights = np.array([4.0, 0.0, 2.0, 1.0, 1.0, 0.5])
    rng = np.random.default_rng(0)
    n = 20_000
    frequencies = np.mean([select_positions(weights, 2, rng.random(6)) for _ in range(n)], 0)
    sampled = torch.multinomial(torch.from_numpy(weights).expand(n, 6), 2, generator=torch.Generator().manual_seed(0))
    expected = np.bincount(sampled.flatten().numpy(), minlength=6) / n
    assert frequencies == pytest.approx(expected, abs=5 * math.sqrt(0.5 / n))
    assert frequencies[1] == 0


@given(st.integers(0, 9), st.integers(0, 12))
def test_as_many_as_there_are(number, zeros):
    weights = np.array([1.0] * 4 + [0.0] * zeros)
    selected = select_positions(weights, number, np.linspace(0.1, 0.9, 4 + zeros))
    assert selected.sum() == min(number, 4)
    assert not selected[4:].any()


@pytest.mark.parametrize("is_fixed", [True, False], ids=["fixed", "bernoulli"])
def test_four_fifths_are_masked_a_tenth_is_random_a_tenth_is_kept(is_fixed):
    split = blocks(400, 64)
    batch = masked(split, torch.arange(400), masks(0.15, is_fixed=is_fixed))
    selected = batch["target"] != IGNORE
    before, after = batch["target"][selected], batch["input"][selected]
    n, ordinary = len(before), V - 5
    spread = 5 * math.sqrt(0.8 * 0.2 / n)
    assert float((after == MASK).double().mean()) == pytest.approx(0.8, abs=spread)
    assert float((after == before).double().mean()) == pytest.approx(0.1 + 0.1 / ordinary, abs=spread)
    random = after[(after != MASK) & (after != before)]
    shares = torch.bincount(random, minlength=V)[5:].double() / len(random)
    assert float((shares - 1 / ordinary).abs().max()) < 5 * math.sqrt(1 / ordinary / len(random))
    if not is_fixed:
        eligible = int((split.ids > 4).sum())
        assert n / eligible == pytest.approx(0.15, abs=5 * math.sqrt(0.15 * 0.85 / eligible))


def test_rare_tokens_are_preferred_and_bernoulli_prefers_none():
    counts = np.full(V, 10_000)
    counts[5:10] = 1
    split = blocks(100, 64)
    rare = torch.from_numpy(split.ids < 10) & torch.from_numpy(split.ids > 4)
    for is_fixed, smoothing, least, most in [(True, 0.7, 0.9, 1.0), (True, 0.0, 0.13, 0.19), (False, 0.7, 0.12, 0.18)]:
        batch = masked(split, torch.arange(100), masks(0.15, is_fixed=is_fixed, smoothing=smoothing, counts=counts))
        share = float((batch["target"] != IGNORE)[rare].double().mean())
        assert least < share < most


def test_masks_are_a_function_of_seed_epoch_and_batch():
    split, index = blocks(20, 32), torch.tensor([3, 9, 1])

    def target(epoch=0, seed=0):
        return masked(split, index, masks(0.3, seed), epoch)["target"]

    before = torch.get_rng_state()
    assert torch.equal(target(), target())
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(target(), target(epoch=1))
    assert not torch.equal(target(), target(seed=1))
    always = masks(0.3, is_fixed=False, epoch=-1)
    assert torch.equal(masked(split, index, always, 0)["target"], masked(split, index, always, 7)["target"])
    single = masked(split, index[1:2], always)["target"]
    assert torch.equal(masked(split, index, always)["target"][1:2], single)


@settings(max_examples=30)
@given(st.data(), st.integers(1, 4), st.booleans())
def test_ranks_together_have_the_batches_of_one_process(data, world_size, is_fixed):
    n = data.draw(st.integers(world_size, 30))
    batch_size = data.draw(st.integers(world_size, n))
    split = blocks(n, 12)

    def loader(rank, world):
        sampler = EpochBatches(n, batch_size, 3, rank=rank, world_size=world, replicated=True)
        sampler.set_epoch(2)
        return batch_loader(MaskedBatches(split, masks(is_fixed=is_fixed), sampler.share), sampler)

    single = [batch for batch in loader(0, 1) if len(batch["index"]) >= world_size]
    for global_batch, *shares in zip(single, *(loader(rank, world_size) for rank in range(world_size)), strict=True):
        for name in global_batch:
            assert torch.equal(torch.cat([share[name] for share in shares]), global_batch[name])


def test_a_replaced_sampler():
    with pytest.raises(ConfigError, match="the train loader's sampler was replaced"):
        MaskedBatches(blocks(3, 8), masks())[1]
