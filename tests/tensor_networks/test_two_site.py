"""Two-site sweeps: without a step nothing changes, steps lower the loss, bonds adapt, and failures change nothing."""

import pytest
import torch
from torch import Tensor

from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.tensor_networks.two_site import newton_step, sweep


def random_chain(n_sites, out_site, bond, outputs=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    legs = [2] * n_sites
    legs.insert(out_site, outputs)
    bonds = [1, *[bond] * n_sites, 1]
    chain = [
        torch.randn(bonds[i], leg, bonds[i + 1], generator=generator, dtype=torch.float64) for i, leg in enumerate(legs)
    ]
    return chain, chain.pop(out_site)


def features(n_sites: int, samples: int = 40, seed: int = 1) -> Tensor:
    x = torch.rand(n_sites, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.stack([torch.ones_like(x), x], 1)


def outputs(sites, centre, out_site, phi):
    """The definition, from both ends to the output."""
    left = right = phi.new_ones(phi.shape[2], 1)
    for i in range(out_site):
        left = torch.einsum("nl,kn,lkr->nr", left, phi[i], sites[i])
    for i in reversed(range(out_site, len(sites))):
        right = torch.einsum("nr,kn,lkr->nl", right, phi[i], sites[i])
    return torch.einsum("nl,lor,nr->no", left, centre, right)


def unchanged(features: Tensor, weights: Tensor) -> Tensor:
    return weights


@pytest.mark.parametrize(("n_sites", "out_site"), [(2, 0), (2, 1), (2, 2), (5, 0), (5, 2), (5, 4), (5, 5)])
def test_a_sweep_without_steps_is_the_same_function(n_sites, out_site):
    chain, phi = random_chain(n_sites, out_site, 3), features(n_sites)
    copies = [one.clone() for one in (*chain[0], chain[1])]
    found = sweep(*chain, out_site, phi, unchanged, bond_dim=20)
    torch.testing.assert_close(outputs(*found, out_site, phi), outputs(*chain, out_site, phi), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(one, copy) for one, copy in zip((*chain[0], chain[1]), copies, strict=True))
    assert [one.shape[1] for one in found[0]] == [2] * n_sites
    assert all(a.shape[2] == b.shape[0] for a, b in zip(found[0][:out_site], found[0][1:out_site], strict=False))


@pytest.mark.parametrize("out_site", [0, 2, 4])
def test_every_pair_is_seen_with_the_function_linear_in_it(out_site):
    chain, phi, seen = random_chain(4, out_site, 2), features(4), []
    wanted = outputs(*chain, out_site, phi)

    def look(features: Tensor, weights: Tensor) -> Tensor:
        seen.append(len(weights))
        torch.testing.assert_close(features @ weights, wanted, rtol=1e-9, atol=1e-9)
        return weights

    sweep(*chain, out_site, phi, look, bond_dim=20)
    assert len(seen) == 2 * 3 + 1  # each pair there and back, and the output core


def test_steps_lower_the_loss_and_bonds_follow():
    chain, phi = random_chain(6, 3, 1), features(6, 200)
    target = torch.stack([phi[0, 1] * phi[5, 1], phi[2, 1] * phi[3, 1] - phi[1, 1], phi[4, 1]], 1)

    def objective(found: Tensor) -> Tensor:
        return (found - target).square().mean()

    def update(features: Tensor, weights: Tensor) -> Tensor:
        return newton_step(features, weights, objective, damping=1e-8, iterations=60)

    before = float(objective(outputs(*chain, 3, phi)))
    for _ in range(3):
        chain = sweep(*chain, 3, phi, update, bond_dim=8, max_error=1e-4)
    assert float(objective(outputs(*chain, 3, phi))) < 1e-6 * before
    assert 2 <= max(core.shape[2] for core in chain[0]) <= 4  # x0 x5 needs two entries beside the constant


@pytest.mark.parametrize("bond_dim", [1, 2])
def test_no_bond_is_larger_than_the_largest(bond_dim):
    sites, centre = sweep(*random_chain(5, 2, 3), 2, features(5), unchanged, bond_dim=bond_dim)
    assert max(core.shape[2] for core in (*sites, centre)) == bond_dim


def test_a_newton_step_solves_least_squares_at_once():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, n, generator=generator, dtype=torch.float64) for n in (4, 2))
    found = newton_step(
        x, torch.zeros(4, 2, dtype=torch.float64), lambda out: (out - y).square().sum(), damping=0.0, iterations=50
    )
    torch.testing.assert_close(found, torch.linalg.lstsq(x, y).solution)


def test_a_step_is_that_of_newton_for_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (30,), generator=generator)
    weights = 0.1 * torch.randn(3, 4, generator=generator, dtype=torch.float64)

    def loss(flat: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(x @ flat.view(3, 4), y)

    flat = weights.flatten()
    hessian = torch.autograd.functional.hessian(loss, flat) + 0.1 * torch.eye(12, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(loss, flat)
    expected = flat - torch.linalg.solve(hessian, gradient)
    found = newton_step(x, weights, lambda out: torch.nn.functional.cross_entropy(out, y), damping=0.1, iterations=60)
    torch.testing.assert_close(found.flatten(), expected)


def test_a_step_that_does_not_help_is_given_up():
    x = torch.ones(1, 1, dtype=torch.float64)
    weights = torch.zeros(1, 1, dtype=torch.float64)
    at_the_minimum = newton_step(x, weights, lambda out: out.square().sum(), damping=0.0, iterations=5)
    assert torch.equal(at_the_minimum, weights)


@pytest.mark.parametrize("fails_at", [0, 3, 6], ids=["first", "middle", "last"])
def test_what_is_not_finite_is_refused_and_changes_nothing(fails_at):
    sites, centre = random_chain(4, 2, 2)
    copies, calls = [one.clone() for one in (*sites, centre)], []

    def update(features: Tensor, weights: Tensor) -> Tensor:
        calls.append(1)
        return weights * (torch.nan if len(calls) == fails_at + 1 else 1.0)

    with pytest.raises(NonFiniteLossError, match="nothing was changed"):
        sweep(sites, centre, 2, features(4), update, bond_dim=4)
    assert all(torch.equal(one, copy) for one, copy in zip((*sites, centre), copies, strict=True))


def test_chains_that_cannot_be_swept_are_refused():
    with pytest.raises(ConfigError, match="two sites or more, got 1"):
        sweep(*random_chain(1, 0, 1), 0, features(1), unchanged, bond_dim=2)
    with pytest.raises(ConfigError, match="bond_dim must be an integer >= 1, got 0"):
        sweep(*random_chain(3, 1, 1), 1, features(3), unchanged, bond_dim=0)
    with pytest.raises(ConfigError, match=r"max_error must be in \[0, 1\), got 1"):
        sweep(*random_chain(3, 1, 1), 1, features(3), unchanged, bond_dim=2, max_error=1.0)
