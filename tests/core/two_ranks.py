"""A function called in two processes that can exchange tensors."""

import multiprocessing
import os

import torch.distributed as dist


def results_of_two_ranks(function, folder):
    """Return what ``function(rank)`` returns in each of two processes, in the order of the ranks."""
    fork = multiprocessing.get_context("fork")  # a new interpreter would import torch again, which takes seconds
    results = fork.SimpleQueue()
    ranks = [fork.Process(target=_call, args=(function, rank, folder, results)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=60)
    assert [process.exitcode for process in ranks] == [0, 0]
    by_rank = dict(results.get() for _ in ranks)
    return [by_rank[0], by_rank[1]]


def _call(function, rank, folder, results):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    results.put((rank, function(rank)))
    dist.destroy_process_group()
