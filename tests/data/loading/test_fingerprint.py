"""The hash of training inputs depends on values, dtype, shape and order, and not on the cut into blocks."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.data.loading.fingerprint import VERSION, hash_inputs

INPUTS = torch.arange(12, dtype=torch.float32).reshape(4, 3)


def test_the_hash_is_sha256_of_version_bytes_kind_and_count():
    content = VERSION.encode() + np.arange(12, dtype=np.float32).tobytes() + b"['torch.float32 [3]'] 4"
    assert hash_inputs([INPUTS]) == hashlib.sha256(content).hexdigest()


@given(st.lists(st.integers(0, 4), max_size=3))
def test_where_a_block_ends_has_no_effect(cuts):
    assert hash_inputs(INPUTS.tensor_split(sorted(cuts))) == hash_inputs([INPUTS])


@pytest.mark.parametrize(
    "other",
    [INPUTS.double(), INPUTS.reshape(4, 3, 1), INPUTS.reshape(3, 4), INPUTS.flip(0), INPUTS[:3], INPUTS + 1e-6],
    ids=["dtype", "sample_shape", "shape", "order", "number", "value"],
)
def test_other_inputs_have_another_hash(other):
    assert hash_inputs([other]) != hash_inputs([INPUTS])


def test_the_memory_layout_has_no_effect():
    assert hash_inputs([INPUTS.T.contiguous().T]) == hash_inputs([INPUTS])
