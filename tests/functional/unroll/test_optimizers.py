"""Inner optimizers against torch.optim, and their protocol."""

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll import SGD, Adam, Momentum, Optimizer, unroll
from tests.functional.unroll.cases import OPTIMIZERS, case, normal


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_the_steps_are_those_of_torch(name) -> None:
    loss, (weights, images, labels, _) = case("mlp", 1)
    optimizers = {
        "sgd": (SGD(), lambda p: torch.optim.SGD(p, 0.1)),
        "momentum": (Momentum(0.7), lambda p: torch.optim.SGD(p, 0.1, momentum=0.7)),
        "adam": (Adam(), lambda p: torch.optim.Adam(p, 0.1)),
    }
    inner, build = optimizers[name]
    parameter = weights.detach().clone().requires_grad_()
    optimizer = build([parameter])
    for _ in range(12):
        optimizer.zero_grad()
        loss(parameter, images, labels).backward()
        optimizer.step()
    end = unroll(weights, images, labels, torch.full_like(weights[0, :12], 0.1), loss=loss, optimizer=inner)
    torch.testing.assert_close(end, parameter, rtol=0, atol=1e-7)  # `torch.optim.Adam` has no `eps_root`


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Momentum(1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: Adam(betas=(0.9, 1.0)), r"betas\[1\] must be in \[0, 1\), got 1.0"),
        (lambda: Adam(betas=(0.9,)), r"betas must be two numbers in \[0, 1\), got \(0.9,\)"),
        (lambda: Adam(eps=0.0), "eps must be finite and > 0, got 0.0"),
        (lambda: Adam(eps_root=0.0), "eps_root must be finite and > 0, got 0.0"),
        (lambda: Adam(eps_root=1e-31), "eps_root must be a finite number >= 1e-30, got 1e-31"),
    ],
)
def test_wrong_arguments_are_refused(make, line) -> None:
    with pytest.raises(ConfigError, match=line):
        make()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_are_elementwise_and_leave_the_state_as_it_is(name) -> None:
    optimizer, weights = OPTIMIZERS[name], normal(2, 6)
    assert isinstance(optimizer, Optimizer)
    state, copy, size = optimizer.init_state(weights), optimizer.init_state(weights.clone()), torch.tensor(0.1)
    for step in range(3):
        gradient = normal(2, 6, seed=step + 1)
        after = optimizer.update(state, gradient, size, step)
        columns = [
            optimizer.update(tuple(tensor[:, i : i + 1] for tensor in state), gradient[:, i : i + 1], size, step)
            for i in range(6)
        ]
        assert [tensor.shape for tensor in after] == [weights.shape] * len(state)
        for tensor, parts in zip(after, zip(*columns, strict=True), strict=True):
            assert torch.equal(tensor, torch.cat(parts, 1))
        if step == 0:
            assert all(torch.equal(a, b) for a, b in zip(state, copy, strict=True))
        state = after


def test_the_derivatives_of_adam_at_a_gradient_of_zero_are_finite() -> None:
    weights, gradient = torch.ones(1, 2), torch.zeros(1, 2, requires_grad=True)
    optimizer = Adam()
    (end, *_) = optimizer.update(optimizer.init_state(weights), gradient, torch.tensor(0.1), 0)
    (slope,) = torch.autograd.grad(end.sum(), gradient)
    # At 0 the step is eta g / (sqrt(g^2 + eps_root) + eps), whose derivative is eta / (2 eps).
    torch.testing.assert_close(slope, torch.full((1, 2), -0.1 / 2e-8))
