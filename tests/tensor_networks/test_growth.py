"""Growing bonds: the function stays, the zeros can learn, and the optimizer's state is where its numbers are."""

from functools import partial
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.models import MPS
from kdzoo.tensor_networks import make_layout
from kdzoo.tensor_networks.growth import (
    describe_bonds,
    embed,
    embed_cores,
    grow,
    grown_bonds,
    replace_parameter,
    usable_bonds,
)

some = settings(max_examples=40, deadline=None, derandomize=True)


def random_chain(n_sites, out_site, bond, d=2, outputs=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    legs = [d] * n_sites
    legs.insert(out_site, outputs)
    bonds = [1, *[bond] * n_sites, 1]
    chain = [
        torch.randn(bonds[i], leg, bonds[i + 1], generator=generator, dtype=torch.float64) for i, leg in enumerate(legs)
    ]
    centre = chain.pop(out_site)
    return chain, centre


def outputs(sites, centre, out_site, phi):
    """One sample at a time, by the definition: products of matrices from the left end to the right."""
    found = []
    for sample in range(phi.shape[2]):
        matrices = [torch.einsum("lkr,k->lr", core, phi[i, :, sample]) for i, core in enumerate(sites)]
        left, right = torch.eye(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64)
        for one in matrices[:out_site]:
            left = left @ one
        for one in reversed(matrices[out_site:]):
            right = one @ right
        found.append(torch.einsum("xl,lor,ry->o", left, centre, right))
    return torch.stack(found)


@given(
    n_sites=st.integers(1, 6),
    place=st.floats(0, 1),
    bond=st.integers(1, 3),
    to=st.integers(1, 9),
    d=st.integers(1, 3),
    noise=st.floats(0, 3),
)
@some
def test_the_function_does_not_change_at_all(n_sites, place, bond, to, d, noise):
    out_site = round(place * n_sites)
    sites, centre = random_chain(n_sites, out_site, bond, d)
    phi = torch.randn(n_sites, d, 4, dtype=torch.float64)
    bonds = grown_bonds(sites, centre, out_site, to)
    larger = grow(sites, centre, out_site, bonds, noise=noise)
    torch.testing.assert_close(
        outputs(*larger, out_site, phi), outputs(sites, centre, out_site, phi), rtol=1e-12, atol=1e-12
    )
    chain = [*larger[0][:out_site], larger[1], *larger[0][out_site:]]
    assert [1, *(core.shape[2] for core in chain)] == bonds


def test_arguments_are_left_alone():
    sites, centre = random_chain(4, 2, 2)
    copies = [one.clone() for one in (*sites, centre)]
    grow(sites, centre, 2, grown_bonds(sites, centre, 2, 3))
    assert all(torch.equal(one, copy) for one, copy in zip((*sites, centre), copies, strict=True))


def test_bonds_grow_no_further_than_they_can_be_used():
    sites, centre = random_chain(6, 3, 1, outputs=2)
    assert grown_bonds(sites, centre, 3, 16) == [1, 2, 4, 8, 8, 4, 2, 1]
    assert grown_bonds(sites, centre, 3, 3) == [1, 2, 3, 3, 3, 3, 2, 1]
    wide, middle = random_chain(6, 3, 5, outputs=2)
    assert grown_bonds(wide, middle, 3, 3) == [1, 5, 5, 5, 5, 5, 5, 1]  # none becomes smaller


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
@some
def test_a_bond_is_used_up_to_the_product_of_the_legs_on_either_side(legs, data):
    inner = data.draw(st.lists(st.integers(1, 40), min_size=len(legs) - 1, max_size=len(legs) - 1))
    wanted = [1, *inner, 1]
    found = usable_bonds(wanted, legs)
    for i in range(len(wanted)):
        from_left = [wanted[j] * prod(legs[j:i]) for j in range(i + 1)]
        from_right = [wanted[j] * prod(legs[i:j]) for j in range(i, len(wanted))]
        assert found[i] == min(*from_left, *from_right)


def test_bonds_in_words():
    sites, _ = random_chain(4, 2, 3)
    sites[0] = sites[0][:, :, :2]
    assert describe_bonds(sites) == "2 to 3, 2.7 on average"


@pytest.mark.parametrize("out_site", [0, 2, 5])
def test_gradients_reach_new_entries_of_every_bond(out_site):
    torch.manual_seed(0)
    model = MPS(5, 4, 1, out_site=out_site).double()
    tensors = model.sites(), model.centre.detach(), out_site
    model.load_tensors(*grow(*tensors, grown_bonds(*tensors, 2), unit=model.feature_map.unit))
    model(torch.rand(8, 5, dtype=torch.float64)).square().sum().backward()
    gradient = MPS(5, 4, 1, out_site=out_site).double()
    gradient.load_tensors(*tensors[:2])
    gradient.load_tensors(model.sites(), model.centre)
    gradient.cores.data.copy_(model.cores.grad)
    for i, core in enumerate(gradient.sites()):
        block = core[:1, :, 1:] if i < out_site else core[1:, :, :1]  # from old entries to new ones, which are zero
        assert block.numel() == 0 or block.abs().max() > 1e-8


def test_new_entries_are_a_new_chain():
    sites, centre = random_chain(6, 3, 1)
    unit = torch.tensor([0.5, 2.0], dtype=torch.float64)
    larger, _ = grow(sites, centre, 3, [1, 2, 3, 3, 3, 3, 2, 1], noise=0.0, unit=unit)
    passed = larger[2]  # (3, 2, 3)
    block = passed[1:, :, 1:]
    torch.testing.assert_close(block, unit[None, :, None] * torch.eye(2, dtype=torch.float64)[:, None])
    assert passed[1:, :, :1].abs().max() == 0


def test_noise_is_drawn_from_the_generator():
    sites, centre = random_chain(4, 2, 1)
    make = partial(grow, sites, centre, 2, [1, 2, 2, 2, 2, 1])
    one, same, other = (make(generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one[0], same[0], strict=True))
    assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9)], ids=["adam", "sgd"])
def test_the_optimizer_goes_on_as_if_nothing_had_grown(optimizer):
    """With neither noise nor a new chain, new entries have no gradient, and old ones move as in the small chain."""
    torch.manual_seed(0)
    x = torch.rand(8, 6, dtype=torch.float64)
    small, large = (MPS(6, 3, 2).double() for _ in range(2))
    large.load_state_dict(small.state_dict())
    steps = {one: optimizer(one.parameters(), lr=0.01) for one in (small, large)}

    def train(times):
        for model, how in steps.items():
            for _ in range(times):
                how.zero_grad()
                model(x).square().mean().backward()
                how.step()

    train(3)
    tensors, old, plan = (large.sites(), large.centre.detach(), 3), (large.cores, large.centre), large.layout
    nothing = torch.zeros(2, dtype=torch.float64)
    large.load_tensors(*grow(*tensors, grown_bonds(*tensors, 4), noise=0.0, unit=nothing))
    replace_parameter(steps[large], old[0], large.cores, lambda one: embed_cores(one, plan, large.layout))
    replace_parameter(steps[large], old[1], large.centre, lambda one: embed(one, torch.zeros_like(large.centre)))
    train(3)
    torch.testing.assert_close(large(x), small(x), rtol=1e-12, atol=1e-14)
    assert large.cores.numel() > small.cores.numel()


def test_a_state_can_begin_anew():
    old, new = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([old], lr=0.1)
    old.sum().backward()
    optimizer.step()
    replace_parameter(optimizer, old, new)
    assert not optimizer.state
    assert optimizer.param_groups[0]["params"][0] is new


def test_numbers_lie_where_they_were():
    small, large = make_layout(2, (1, 2, 2), (1, 2)), make_layout(2, (1, 2, 4), (1, 3))
    numbers = torch.arange(1.0, small.n_cores + 1)
    found = embed_cores(numbers, small, large)
    assert found.count_nonzero() == small.n_cores
    for side, step in ((0, 0), (0, 1), (1, 0)):
        _, n_in, n_out = small.shape(side, step)
        assert torch.equal(large.core(found, side, step)[:, :n_in, :n_out], small.core(numbers, side, step))


def test_what_cannot_grow_is_refused():
    sites, centre = random_chain(3, 1, 2)
    with pytest.raises(ConfigError, match=r"bond_dims must be no smaller than the bonds \[1, 2, 2, 2, 1\]"):
        grow(sites, centre, 1, [1, 2, 1, 2, 1])
    with pytest.raises(ConfigError, match="bond_dims must be 5 integers"):
        grow(sites, centre, 1, [1, 2, 1])
