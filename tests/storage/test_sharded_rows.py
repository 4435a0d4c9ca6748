"""Rows in several parts are those of one tensor."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from kdzoo.storage import sharded_rows
from kdzoo.storage.sharded_rows import ShardedRows

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from([(), (1,), (2, 3), (0,)]),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_rows_are_those_of_the_whole_tensor(sizes, row_shape, dtype, wanted):
    whole = torch.randn(sum(sizes), *row_shape).mul(3).to(dtype)
    rows = ShardedRows(whole.split(sizes))
    assert (len(rows), rows.shape, rows.dtype) == (len(whole), whole.shape, dtype)
    index = torch.tensor(wanted, dtype=torch.int64) % len(whole)
    assert torch.equal(rows[index], whole[index])


@pytest.mark.parametrize("index", [-1, 3])
def test_positions_outside_are_rejected(index):
    with pytest.raises(IndexError, match=rf"rows are 0\.\.2, got {index}\.\.{index}"):
        ShardedRows([torch.ones(2, 1), torch.ones(1, 1)])[torch.tensor([index])]


@pytest.mark.parametrize(
    "parts", [[], [torch.ones(0, 1)], [torch.ones(1, 1), torch.ones(1, 2)], [torch.ones(1), torch.ones(1).double()]]
)
def test_parts_that_do_not_fit_are_rejected(parts):
    with pytest.raises(ValueError, match="parts must have rows of one shape and dtype"):
        ShardedRows(parts)


def test_shards_of_other_names_are_rejected():
    with pytest.raises(ValueError, match="tensors of the same names"):
        sharded_rows.join([{"a": torch.ones(1)}, {"b": torch.ones(1)}])


def test_a_file_is_one_that_other_programs_read(tmp_path):
    path, tensors = tmp_path / "a.safetensors", {"b": torch.arange(6.0).view(2, 3).T, "a": torch.tensor([True])}
    sharded_rows.write(path, tensors)
    for found in (load_file(path), sharded_rows.read(path)):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be read"):
        sharded_rows.read(tmp_path / "a.safetensors")
