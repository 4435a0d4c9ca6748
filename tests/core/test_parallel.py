"""Data parallelism: rows of all ranks in order, and a student with new parameters is wrapped again."""

import multiprocessing
import os
from types import SimpleNamespace

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from kdzoo.core.parallel import gather_rows, is_distributed, wrap_again

SHARES = [torch.arange(6.0).view(3, 2), torch.arange(6.0, 8.0).view(1, 2)]  # of unequal size


def gather_in(rank, folder, results):
    """Gather the rows of two ranks and send back what this one got."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    rows = gather_rows(SHARES[rank].requires_grad_())
    results.put((rows.tolist(), rows.requires_grad, is_distributed()))
    dist.destroy_process_group()


def test_rows_of_all_ranks_come_in_the_order_of_the_batch(tmp_path):
    fork = multiprocessing.get_context("fork")  # a new interpreter would import torch again, which takes seconds
    results = fork.SimpleQueue()
    ranks = [fork.Process(target=gather_in, args=(rank, tmp_path, results)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=60)
    assert [process.exitcode for process in ranks] == [0, 0]
    assert [results.get() for _ in ranks] == [(torch.cat(SHARES).tolist(), False, True)] * 2


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
