"""The oracle evaluates no sample twice, counts its evaluations and keeps within the budget."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.errors import ConfigError, DataError
from kdzoo.tensor_networks.queries import BudgetError, Oracle


class Recorder:
    """A function that remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, x):
        self.calls.append(x)
        place = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
        return torch.stack([(x * place).sum(1), (x * place).square().sum(1)], 1)

    @property
    def given(self):
        return torch.cat(self.calls)


POINTS = st.lists(
    st.lists(st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0]), min_size=4, max_size=4), min_size=1, max_size=12
)


@settings(max_examples=50, deadline=None)
@given(first=POINTS, second=POINTS, cut=st.integers(0, 4), batch_size=st.integers(1, 5))
def test_every_combination_is_right_and_none_is_evaluated_twice(first, second, cut, batch_size):
    function = Recorder()
    oracle = Oracle(function, batch_size=batch_size)
    left = torch.tensor(first, dtype=torch.float64)[:, :cut]
    right = torch.tensor(second, dtype=torch.float64)[:, cut:]
    found = oracle.pairs(left, right)
    wanted = [[Recorder()(torch.cat([a, b])[None])[0] for b in right] for a in left]
    assert torch.equal(found, torch.stack([torch.stack(row) for row in wanted]))
    different = {tuple(float(v) + 0.0 for v in (*a, *b)) for a in left for b in right}
    assert oracle.evaluations == len(function.given) == len(different)
    assert oracle.asked == len(first) * len(second)
    assert max(map(len, function.calls)) <= batch_size
    whole = torch.cat([left.repeat_interleave(len(right), 0), right.repeat(len(left), 1)], 1)
    assert torch.equal(oracle(whole), found.flatten(0, 1))  # known by now, however it is cut
    assert oracle.evaluations == len(different)


def test_places_are_told_apart():
    function = Recorder()
    oracle = Oracle(function)
    oracle(torch.eye(6))
    oracle(torch.cat([torch.eye(6), 1 - torch.eye(6)]))
    assert oracle.evaluations == 12


def test_outputs_are_float64_without_a_gradient():
    layer = nn.Linear(3, 2)
    found = Oracle(layer)(torch.rand(4, 3))
    assert found.dtype == torch.float64
    assert not found.requires_grad


def test_the_budget_is_kept():
    function = Recorder()
    oracle = Oracle(function, budget=5)
    oracle(torch.rand(3, 4))
    with pytest.raises(BudgetError, match=r"budget=5 .* 3 are spent, the next 4"):
        oracle(torch.rand(4, 4))
    assert len(function.given) == oracle.evaluations == 3
    oracle(torch.rand(2, 4))
    assert oracle.evaluations == 5


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: x.sum(1), r"must return \(samples, outputs\)"),
        (lambda x: x[:1], "of 2 samples"),
        (lambda x: x / 0, "not finite"),
    ],
    ids=["vector", "too-few", "not-finite"],
)
def test_what_a_function_must_return(function, match):
    with pytest.raises(DataError, match=match):
        Oracle(function)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("budget", 0)])
def test_arguments_of_the_oracle(name, value):
    with pytest.raises(ConfigError, match=name):
        Oracle(Recorder(), **{name: value})
