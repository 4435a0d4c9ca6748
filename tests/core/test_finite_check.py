"""The deferred check names the first term that was not finite, and reads nothing before it is asked."""

import pytest
import torch

from kdzoo.contracts.accelerator import simulated_accelerator
from kdzoo.core.finite_check import DeferredFiniteCheck
from kdzoo.errors import NonFiniteLossError


def test_finite_terms_pass():
    check = DeferredFiniteCheck()
    check.raise_if_failed()
    check.add(0, {"soft": torch.tensor(1e30), "hard": torch.tensor(-3.0)})
    check.raise_if_failed()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_bad_step_is_named_although_later_ones_are_bad_too(bad):
    check = DeferredFiniteCheck()
    for step, (soft, hard) in enumerate([(1.0, 1.0), (1.0, bad), (bad, bad), (1.0, 1.0)]):
        check.add(step, {"soft": torch.tensor(soft), "hard": torch.tensor(hard)})
    with pytest.raises(NonFiniteLossError, match="loss term 'hard' is not finite at step 1"):
        check.raise_if_failed()


def test_of_two_terms_in_one_step_the_first_is_named():
    check = DeferredFiniteCheck()
    check.add(7, {"soft": torch.tensor(float("nan")), "hard": torch.tensor(float("nan"))})
    with pytest.raises(NonFiniteLossError, match="'soft' is not finite at step 7"):
        check.raise_if_failed()


def test_adding_reads_nothing_from_the_device():
    check = DeferredFiniteCheck()
    with simulated_accelerator():
        for step in range(3):
            check.add(step, {"soft": torch.tensor(float("nan"))})
    with pytest.raises(NonFiniteLossError, match="step 0"):
        check.raise_if_failed()
