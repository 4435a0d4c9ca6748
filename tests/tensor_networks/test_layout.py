"""Where cores and states lie: without gaps and overlaps, and found again from a text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.tensor_networks.layout import from_text, make_layout

BONDS = st.lists(st.integers(1, 5), min_size=1, max_size=6).map(tuple)


@pytest.mark.parametrize("part", [None, (1, 3, 9)])
def test_a_layout_is_read_from_its_text(part):
    plan = make_layout(2, (1, 2, 3), (1,), part)
    assert from_text(plan.text) is plan


@given(st.integers(1, 3), BONDS, BONDS)
def test_cores_fill_the_vector_without_gaps_and_overlaps(d, left, right):
    plan = make_layout(d, left, right)
    numbers = torch.arange(plan.n_cores)
    steps = [(side, step) for side in (0, 1) for step in range(len(plan.sides[side]) - 1)]
    cores = [plan.core(numbers, side, step) for side, step in steps]
    assert [tuple(core.shape) for core in cores] == [plan.shape(side, step) for side, step in steps]
    assert sorted(number for core in cores for number in core.flatten().tolist()) == numbers.tolist()


@given(st.integers(1, 3), BONDS, BONDS)
def test_states_fill_their_rows_without_gaps_and_overlaps(d, left, right):
    plan = make_layout(d, left, right)
    rows = [
        row
        for bonds, offsets in zip(plan.sides, plan.states, strict=True)
        for bond, offset in zip(bonds, offsets, strict=True)
        for row in range(offset, offset + bond)
    ]
    assert sorted(rows) == list(range(plan.n_states))


@given(BONDS, BONDS)
def test_every_site_has_one_place(left, right):
    plan = make_layout(2, left, right)
    assert plan.n_sites == len(left) + len(right) - 2
    assert sorted(plan.order) == list(range(plan.n_sites))
    for sites, slots in zip(plan.sites, plan.slots, strict=True):
        assert [plan.order[slot] for slot in slots] == list(sites)


def test_cores_of_a_step_of_both_sides_are_next_to_each_other():
    plan = make_layout(2, (1, 2, 2), (1, 2, 2))
    assert plan.cores == ((0, 8), (4, 16))
    assert plan.order == [0, 3, 1, 2]


def test_equal_arguments_give_the_same_layout():
    assert make_layout(2, (1, 3), (1, 2)) is make_layout(2, (1, 3), (1, 2))
    assert make_layout(2, (1, 3), (1, 2)) != make_layout(2, (1, 2), (1, 3))


@pytest.mark.parametrize(
    ("part", "side", "step", "place"),
    [
        (None, 0, 0, ("left", "at its start")),
        (None, 0, 2, ("left", "after site 1 of 5 (in the chain's order)")),
        (None, 1, 1, ("right", "after site 4 of 5 (in the chain's order)")),
        ((1, 3, 9), 0, 1, ("right", "after site 5 of 9 (in the chain's order)")),
    ],
)
def test_states_are_named_by_their_end_and_site(part, side, step, place):
    assert make_layout(2, (1, 2, 2, 2), (1, 2, 2), part).place(side, step) == place
