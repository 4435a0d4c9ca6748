"""Memory of states: aligned, never shared by what is alive, used again by what comes later."""

import gc
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.tensor_networks import buffers


@pytest.fixture(autouse=True)
def _nothing_kept():
    buffers._free.clear()
    yield
    buffers._free.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_aligned_and_of_the_shape_asked_for(dtype):
    tensor = buffers.empty(3, 5, dtype=dtype)
    assert tensor.shape == (3, 5)
    assert tensor.dtype == dtype
    assert tensor.is_contiguous()
    assert tensor.data_ptr() % buffers.ALIGNMENT == 0


@given(sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=20), forgotten=st.sets(st.integers(0, 19)))
def test_what_is_alive_never_shares_memory(sizes, forgotten):
    alive = {}
    for i, size in enumerate(sizes):
        alive[i] = buffers.empty(size, dtype=torch.float32).fill_(i)
        if i in forgotten:
            alive.pop(i - 1, None)
    assert all(bool((tensor == i).all()) for i, tensor in alive.items())


def test_a_block_stays_taken_while_any_view_of_it_lives():
    first = buffers.empty(1000, dtype=torch.float32)
    part, address = first[10:20], first.data_ptr()
    del first
    gc.collect()
    assert buffers.empty(1000, dtype=torch.float32).data_ptr() != address
    del part
    gc.collect()
    assert any(address - block.ctypes.data in range(64) for block in buffers._free.values())


def test_what_autograd_keeps_is_not_given_away():
    weight = torch.ones(1000, requires_grad=True)
    saved = buffers.empty(1000, dtype=torch.float32).fill_(3.0)
    product = (weight * saved).sum()
    del saved
    other = buffers.empty(1000, dtype=torch.float32).fill_(7.0)
    product.backward()
    assert bool((weight.grad == 3.0).all())
    assert bool((other == 7.0).all())


def test_few_blocks_are_kept_and_no_large_ones(monkeypatch):
    several = [buffers.empty(1000 + i, dtype=torch.float32) for i in range(10)]
    del several
    gc.collect()
    assert len(buffers._free) == buffers.MAX_FREE_BLOCKS
    monkeypatch.setattr(buffers, "MAX_BLOCK_BYTES", 10_000)
    buffers._free.clear()
    buffers.empty(10_000, dtype=torch.float32)
    gc.collect()
    assert not buffers._free


def test_threads_do_not_get_the_same_block():
    wrong = []

    def work(number):
        for _ in range(300):
            tensor = buffers.empty(500, dtype=torch.float32).fill_(number)
            if not bool((tensor == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
