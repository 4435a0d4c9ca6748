"""Noise that is a function of (seed, epoch, index), alone and beside other data."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.data import Digits
from kdzoo.data.derived.noise import BLOCK, NoisyData, noise_of, with_lengths


def draw(n, generator):
    return {
        "noise.z": torch.randn(n, 3, generator=generator),
        "noise.u": torch.rand(n, 2, 2, generator=generator),
    }


@pytest.fixture(scope="module")
def digits():
    data = Digits(labels_per_class=None, batch_size=64)
    data.setup()
    return data


@given(st.lists(st.integers(0, 200), min_size=1, max_size=40))
def test_the_noise_of_a_sample_does_not_depend_on_its_batch(index):
    together = noise_of(draw, 3, 1, torch.tensor(index))
    for place, one in enumerate(index):
        alone = noise_of(draw, 3, 1, torch.tensor([one]))
        assert all(torch.equal(together[name][place], alone[name][0]) for name in together)


def test_other_samples_epochs_and_seeds_have_other_noise():
    first = noise_of(draw, 0, 0, torch.arange(4 * BLOCK))["noise.z"]
    assert len(first.unique(dim=0)) == len(first)
    for seed, epoch in ((1, 0), (0, 1)):
        other = noise_of(draw, seed, epoch, torch.arange(4 * BLOCK))["noise.z"]
        assert not torch.isin(first, other).any()


def test_noise_has_its_distribution():
    noise = noise_of(draw, 0, 0, torch.arange(20_000))
    assert abs(float(noise["noise.z"].mean())) < 4 / (60_000**0.5)
    assert abs(float(noise["noise.z"].var()) - 1) < 0.03
    assert abs(float(noise["noise.u"].mean()) - 0.5) < 0.01


def test_noise_alone_takes_as_many_batches_as_the_source(digits):
    data = NoisyData(digits, draw, noise_only=True)
    data.setup()
    batches = list(data.train_dataloader())
    assert len(batches) == len(list(digits.train_dataloader()))
    assert batches[0]["input"].shape == (64, 0)
    assert batches[0]["index"].tolist() == list(range(64))
    again = next(iter(data.train_dataloader()))
    assert torch.equal(again["noise.z"], batches[0]["noise.z"])
    data.train_sampler.set_epoch(1)
    assert not torch.equal(next(iter(data.train_dataloader()))["noise.z"], batches[0]["noise.z"])


def test_noise_beside_samples_belongs_to_them(digits):
    data = NoisyData(digits, draw, noise_only=False, seed=5)
    data.setup()
    digits.train_sampler.set_epoch(2)
    batch = next(iter(data.train_dataloader()))
    assert batch["input"].shape[1:] == digits.sizes["in_shape"]
    assert torch.equal(batch["noise.z"], noise_of(draw, 5, 2, batch["index"])["noise.z"])
    digits.train_sampler.set_epoch(0)


@pytest.mark.parametrize("noise_only", [True, False])
def test_validation_noise_is_the_same_in_every_epoch(digits, noise_only):
    data = NoisyData(digits, draw, noise_only=noise_only)
    data.setup()
    first = torch.cat([batch["noise.z"] for batch in data.val_dataloader()])
    data.train_sampler.set_epoch(3)
    assert torch.equal(first, torch.cat([batch["noise.z"] for batch in data.val_dataloader()]))
    assert len(first) == digits.summary()["n_val"]
    assert len(data.val_dataloader()) == len(digits.val_dataloader())
    data.train_sampler.set_epoch(0)


def test_it_passes_on_what_it_knows_of_the_source(digits):
    data = NoisyData(digits, draw, noise_only=True)
    assert data.sizes == digits.sizes
    assert data.summary() == digits.summary()
    assert data.is_augmented
    assert len({data.fingerprint(), NoisyData(digits, draw, noise_only=False).fingerprint(), digits.fingerprint()}) == 3
    assert next(iter(data.train_eval_dataloader()))["input"].shape[1] == 0
    beside = next(iter(NoisyData(digits, draw, noise_only=False).train_eval_dataloader()))
    assert {"noise.z", "target"} <= beside.keys()
    assert len(next(iter(data.test_dataloader()))["target"]) == len(next(iter(digits.test_dataloader()))["target"])


def test_a_mask_becomes_a_number_of_steps():
    batch = {"input": torch.zeros(2, 3, 1), "mask": torch.tensor([[True, True, False], [True, False, False]])}
    assert with_lengths(batch)["length"].tolist() == [2, 1]
    assert "mask" not in with_lengths(batch)
    unmasked = {"input": torch.zeros(2, 1)}
    assert with_lengths(unmasked) is unmasked
