"""The widest floating-point type of a device, and whether its values may be looked at."""

import torch

from kdzoo.contracts.accelerator import simulated_accelerator
from kdzoo.core.precision import host_may_read, widen, widest_float
from tests.functional.devices import without_float64


def test_only_apple_gpus_lack_float64():
    assert {kind: widest_float(kind) for kind in ("cpu", "cuda:1", "mps", "xpu")} == {
        "cpu": torch.float64,
        "cuda:1": torch.float64,
        "mps": torch.float32,
        "xpu": torch.float64,
    }


def test_widening_copies_only_what_is_narrower():
    wide = torch.ones(2, dtype=torch.float64)
    assert widen(wide) is wide
    assert widen(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float64
    with without_float64():
        assert widen(torch.ones(2, dtype=torch.float16)).dtype == torch.float32


def test_values_of_an_accelerator_are_not_looked_at():
    assert host_may_read(torch.ones(1))
    assert not host_may_read(torch.ones(1, device="meta"))
    with simulated_accelerator():
        assert not host_may_read(torch.ones(1))
