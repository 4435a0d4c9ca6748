"""The simulated accelerator: what is read from it is an error, and what the host holds may be read."""

import numpy as np
import pytest
import torch

from kdzoo.contracts.accelerator import HostWaitsError, simulated_accelerator
from kdzoo.core.precision import host_may_read

READS = {
    "item": lambda values: values[0].item(),
    "bool": lambda values: bool(values.any()),
    "index": lambda values: values[values > 0],
    "nonzero": lambda values: values.nonzero(),
    "equal": lambda values: torch.equal(values, values),
    "masked_select": lambda values: values.masked_select(values > 0),
    "tolist": lambda values: values.tolist(),
    "numpy": lambda values: values.numpy(),
    "cpu": lambda values: values.cpu(),
    "array": np.asarray,
    "unique": lambda values: values.unique(),
    "bincount": lambda values: values.long().bincount(),
    "repeat": lambda values: values.repeat_interleave(values.long()),
    "put": lambda values: values.index_put_((values > 0,), torch.tensor(0.0)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_is_an_error_wherever_the_value_comes_from(read):
    with simulated_accelerator(), pytest.raises(HostWaitsError, match="makes the host wait"):
        read(torch.ones(3))
    on_device = torch.ones(2, 3)
    with simulated_accelerator([on_device]), pytest.raises(HostWaitsError, match="makes the host wait"):
        read(on_device.exp()[0] + torch.ones(3))


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_the_host_holds_may_be_read(read):
    on_device, on_host = torch.ones(3), torch.ones(3)
    with simulated_accelerator([on_device]):
        read(on_host * 2)
        on_device * 2


def test_masks_as_values_may_be_stored():
    mask, rows = torch.zeros(3, dtype=torch.bool), torch.tensor([0, 2])
    with simulated_accelerator():
        mask[rows] = torch.tensor([True, True])
        mask.index_copy_(0, rows, torch.tensor([True, False]))
    assert mask.tolist() == [True, False, False]


def test_reads_of_gradients_are_found():
    weight = torch.ones(3, requires_grad=True)
    with simulated_accelerator([weight]):
        weight.square().sum().backward()
        with pytest.raises(HostWaitsError):
            bool(weight.grad.any())


def test_code_that_asks_takes_the_path_of_an_accelerator():
    with simulated_accelerator([]):
        assert not host_may_read(torch.ones(1))
    assert host_may_read(torch.ones(1))
