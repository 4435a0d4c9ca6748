"""Noise and inputs as tensors of a batch."""

import torch

from kdzoo.distillers.generative.batch_noise import pack_inputs, pack_noise, unpack_inputs, unpack_noise


def test_what_is_packed_is_unpacked_and_purposes_do_not_mix():
    noise, old_noise = {"z": torch.zeros(2), "y": torch.ones(2)}, {"z": torch.full((2,), 2.0)}
    inputs = {"label": torch.eye(2)}
    batch = {"input": torch.zeros(2, 0), **pack_noise(noise), **pack_noise(old_noise, "old_"), **pack_inputs(inputs)}
    assert unpack_noise(batch) == noise
    assert unpack_noise(batch, "old_") == old_noise
    assert unpack_inputs(batch) == inputs


def test_names_in_a_batch():
    """Stored batches and data modules use them."""
    assert list(pack_noise({"z": torch.zeros(1)}, "old_")) == ["old_noise.z"]
    assert list(pack_inputs({"label": torch.zeros(1)})) == ["given.label"]


def test_a_batch_without_noise_has_none():
    assert unpack_noise({"input": torch.zeros(1)}) == unpack_inputs({"input": torch.zeros(1)}) == {}
