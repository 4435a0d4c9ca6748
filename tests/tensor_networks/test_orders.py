"""Orders of the sites of a chain."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.errors import ConfigError
from kdzoo.tensor_networks import mutual_information_order, site_order


@given(st.sampled_from(["raster", "snake", "hilbert"]), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_every_order_holds_every_number_once(name, height, width, channels):
    order = site_order(name, (channels, height, width))
    assert order.sort().values.tolist() == list(range(channels * height * width))
    pixels = (order % (height * width)).view(-1, channels)
    assert (pixels == pixels[:, :1]).all()  # the channels of a pixel follow each other


@given(st.sampled_from(["snake", "hilbert"]), st.integers(0, 4))
def test_neighbours_in_the_chain_are_neighbours_in_the_image(name, power):
    side = 2**power
    order = site_order(name, (side, side))
    y, x = order // side, order % side
    assert ((y.diff().abs() + x.diff().abs()) == 1).all()


def test_orders_of_a_small_image():
    assert site_order("raster", (2, 3)).tolist() == [0, 1, 2, 3, 4, 5]
    assert site_order("snake", (2, 3)).tolist() == [0, 1, 2, 5, 4, 3]
    assert site_order("hilbert", (2, 2)).tolist() in ([0, 2, 3, 1], [0, 1, 3, 2])
    assert site_order("mutual_information", (5,)).tolist() == [0, 1, 2, 3, 4]


def test_bad_orders_are_refused():
    with pytest.raises(ConfigError, match="order must be one of"):
        site_order("peano", (2, 2))
    with pytest.raises(ConfigError, match="needs images"):
        site_order("hilbert", (4,))
    with pytest.raises(ConfigError, match="one to three dimensions"):
        site_order("snake", (2, 2, 2, 2))


def test_a_shuffled_walk_is_found_again_by_mutual_information():
    torch.manual_seed(0)
    walk = torch.randn(4000, 12)
    for i in range(1, 12):
        walk[:, i] += 1.5 * walk[:, i - 1] / walk[:, i - 1].std()
    shuffle = torch.randperm(12)
    order = mutual_information_order(walk[:, shuffle])
    found = shuffle[order]
    assert found.tolist() in (list(range(12)), list(reversed(range(12))))


def test_inputs_that_never_change_go_to_the_ends():
    x = torch.rand(100, 6)
    x[:, [1, 4]] = 0.5
    order = mutual_information_order(x).tolist()
    assert {order[0], order[-1]} == {1, 4}
    assert sorted(order) == list(range(6))
