"""Gradients and steps of the inner loop, and the check that a loss is twice differentiable."""

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll.inner_loop import InnerLoop, check_twice_differentiable
from tests.functional.unroll.cases import OPTIMIZERS, case, ctc_loss, normal, once_differentiable_loss


def squares(weights, images, labels):
    """Half the squared error of linear regression, summed over the networks, averaged over the examples."""
    return (images @ weights.T - labels).square().mean(0).sum() / 2


def test_the_gradient_is_that_of_linear_regression_and_detached() -> None:
    weights, images, labels = normal(3, 4).requires_grad_(), normal(5, 4, seed=1).requires_grad_(), normal(5, 1, seed=2)
    loop = InnerLoop(squares, OPTIMIZERS["sgd"])
    expected = (images @ weights.T - labels).T @ images / 5
    with torch.no_grad():
        gradient = loop.gradient(weights, images, labels)
    torch.testing.assert_close(gradient, expected.detach())
    assert not gradient.requires_grad
    with_graph = loop.gradient_with_graph(weights, images, labels)
    assert torch.equal(with_graph.detach(), gradient)
    (slope,) = torch.autograd.grad(with_graph.sum(), images, retain_graph=True)
    (expected_slope,) = torch.autograd.grad(expected.sum(), images)
    torch.testing.assert_close(slope, expected_slope)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_with_and_without_a_graph_are_the_same(name) -> None:
    loss, (weights, images, labels, sizes) = case("mlp", 4, adam=name == "adam")
    loop = InnerLoop(loss, OPTIMIZERS[name])
    state = loop.optimizer.init_state(weights)
    plain = loop.steps(state, images, labels, sizes, 0)
    with_graph = loop.steps_with_graph(state, images, labels, sizes, 0)
    one_by_one = state
    for number, size in enumerate(sizes):
        one_by_one = loop.step(one_by_one, images, labels, size, number)
    for tensors in zip(plain, with_graph, one_by_one, strict=True):
        assert torch.equal(tensors[0], tensors[1].detach())
        assert torch.equal(tensors[0], tensors[2])
    assert not any(tensor.requires_grad for tensor in plain)
    assert all(tensor.requires_grad for tensor in with_graph)


def test_the_number_of_the_first_step_counts() -> None:
    """Adam corrects its running means by the number of the step."""
    loss, (weights, images, labels, sizes) = case("mlp", 3, adam=True)
    loop = InnerLoop(loss, OPTIMIZERS["adam"])
    whole = loop.steps(loop.optimizer.init_state(weights), images, labels, sizes, 0)
    start = loop.steps(loop.optimizer.init_state(weights), images, labels, sizes[:1], 0)
    assert torch.equal(loop.steps(start, images, labels, sizes[1:], 1)[0], whole[0])
    assert not torch.equal(loop.steps(start, images, labels, sizes[1:], 0)[0], whole[0])


def test_a_loss_that_is_not_a_scalar_is_refused() -> None:
    loop = InnerLoop(lambda weights, images, labels: weights.sum(1), OPTIMIZERS["sgd"])
    with pytest.raises(ConfigError, match=r"^loss must return a scalar, got shape \(2,\)$"):
        loop.value(normal(2, 3), normal(1, 1), normal(1, 1))


@pytest.mark.parametrize("loss", [once_differentiable_loss, ctc_loss])
def test_a_loss_without_second_derivatives_is_refused(loss) -> None:
    weights, data = 0.1 * normal(1, 12).requires_grad_(), torch.ones(1, 1, dtype=torch.float64)
    gradient = InnerLoop(loss, OPTIMIZERS["sgd"]).gradient_with_graph(weights, data, data)
    with pytest.raises(
        ConfigError, match=r"^loss must be twice differentiable, but the gradient of an operation in it"
    ):
        check_twice_differentiable(gradient)


def test_a_gradient_without_a_graph_is_refused() -> None:
    check_twice_differentiable(2 * normal(1, 2).requires_grad_())
    with pytest.raises(ConfigError, match=r"^loss must be twice differentiable"):
        check_twice_differentiable(normal(1, 2))
