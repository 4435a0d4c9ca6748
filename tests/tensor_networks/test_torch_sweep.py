"""The sweep in torch: states by the definition, rescaling by powers of two, and which steps are one product."""

import pytest
import torch

from kdzoo.tensor_networks import make_layout, torch_sweep
from tests.tensor_networks.chains import CHAINS, chain, definition


def test_gradients_are_products_of_stacks_where_cores_lie_in_a_row():
    plan = make_layout(2, (1, 2, *(4,) * 70), (1, 2, *(4,) * 70))
    runs = [(run.first, run.last, run.sides) for run in torch_sweep._runs(plan)]
    assert runs == [(0, 1, (0, 1)), (1, 2, (0, 1)), (2, 34, (0, 1)), (34, 66, (0, 1)), (66, 71, (0, 1))]


@pytest.mark.parametrize("name", CHAINS)
def test_ends_are_those_of_the_definition(name):
    plan, (phi, cores, *starts) = chain(name)
    phi, cores, starts = phi.detach(), cores.detach(), tuple(start.detach() for start in starts)
    ends, log2, _ = torch_sweep.forward(phi, cores, starts, plan)
    for end, exponents, expected in zip(ends, log2, definition(plan, phi, cores, *starts), strict=True):
        torch.testing.assert_close(end * exponents.exp2(), expected, rtol=1e-11, atol=1e-12)


def test_states_are_rescaled_by_powers_of_two_every_sixteen_sites():
    plan = make_layout(1, (1,) * 41, (1,))
    phi, ones = torch.full((40, 1, 2), 3.0, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    _, log2, (states, scales) = torch_sweep.forward(phi, torch.ones(40, dtype=torch.float64), (ones, ones), plan)
    assert scales.shape == (2, 2, 2)
    assert torch.equal(scales, scales.log2().round().exp2())
    assert torch.equal(log2[0], -scales[0].log2().sum(0))
    for step in (16, 32):  # right after a rescaling
        assert 0.5 <= float(torch_sweep.state(states, plan, 0, step).max()) < 1
    assert float(torch_sweep.state(states, plan, 0, 15).max()) == 3.0**15


def test_a_state_of_zeros_is_not_rescaled():
    plan = make_layout(1, (1,) * 17, (1,))
    phi, ones = torch.zeros(16, 1, 1), torch.ones(1, 1)
    (left, _), log2, _ = torch_sweep.forward(phi, torch.ones(16), (ones, ones), plan)
    assert (float(left), log2.tolist()) == (0.0, [[0.0], [0.0]])


@pytest.mark.parametrize("of_phi", [False, True])
def test_gradients_are_those_of_autograd(of_phi):
    plan, (phi, cores, a, b) = chain("uneven")
    expected_ends = definition(plan, phi, cores, a, b)
    weights = [torch.linspace(1, 2, end.numel(), dtype=end.dtype).view_as(end) for end in expected_ends]
    loss = sum((end * weight).sum() for end, weight in zip(expected_ends, weights, strict=True))
    expected = torch.autograd.grad(loss, [phi, cores, a, b])
    arguments = phi.detach(), cores.detach()
    _, _, saved = torch_sweep.forward(*arguments, (a.detach(), b.detach()), plan)
    phi_gradient, core_gradient, starts = torch_sweep.backward(*arguments, saved, tuple(weights), plan, of_phi=of_phi)
    assert (phi_gradient is not None) == of_phi
    if of_phi:
        torch.testing.assert_close(phi_gradient, expected[0], rtol=1e-11, atol=1e-12)
    for gradient, reference in zip((core_gradient, *starts), expected[1:], strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-11, atol=1e-12)
