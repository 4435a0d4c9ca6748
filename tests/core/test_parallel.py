"""Data parallelism: rows of all ranks in order, and a student with new parameters is wrapped again."""

from types import SimpleNamespace

import torch
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from kdzoo.core.parallel import gather_rows, is_distributed, wrap_again
from tests.core.two_ranks import results_of_two_ranks

SHARES = [torch.arange(6.0).view(3, 2), torch.arange(6.0, 8.0).view(1, 2)]  # of unequal size


def gathered(rank):
    """Return what one rank gets of the rows of both."""
    rows = gather_rows(SHARES[rank].requires_grad_())
    return rows.tolist(), rows.requires_grad, is_distributed()


def test_rows_of_all_ranks_come_in_the_order_of_the_batch(tmp_path):
    assert results_of_two_ranks(gathered, tmp_path) == [(torch.cat(SHARES).tolist(), False, True)] * 2


def test_a_single_process_keeps_its_rows():
    rows = torch.randn(3, 2)
    assert gather_rows(rows) is rows
    assert not is_distributed()


def test_only_data_parallel_students_are_wrapped_again(monkeypatch):
    wrapped = []
    monkeypatch.setattr(DDPStrategy, "configure_ddp", lambda self: wrapped.append(self.model))
    parallel = SimpleNamespace(trainer=SimpleNamespace(strategy=DDPStrategy()))
    wrap_again(parallel)
    assert wrapped == [parallel]
    wrap_again(SimpleNamespace(trainer=SimpleNamespace(strategy=SingleDeviceStrategy())))
    assert len(wrapped) == 1
