"""Backward passes through a segment against autograd through all of its steps."""

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll.inner_loop import InnerLoop
from kdzoo.functional.unroll.segment_backward import (
    MISSING,
    Segment,
    backward_by_jvp,
    backward_by_vjp,
    backward_through_graph,
    directional_derivatives,
    missing_derivatives,
    vjp,
)
from tests.functional.unroll.cases import OPTIMIZERS, case, normal, relative_error

every_backward = pytest.mark.parametrize("backward", [backward_through_graph, backward_by_vjp, backward_by_jvp])


def segment_of(name: str, steps: int = 4, first: int = 3):
    """Return a segment that starts in the middle of a training, and adjoints of the state after it."""
    loss, (weights, images, labels, sizes) = case("mlp", steps, adam=name == "adam")
    loop = InnerLoop(loss, OPTIMIZERS[name])
    state = loop.steps(loop.optimizer.init_state(weights), images, labels, torch.full((first,), 0.01), 0)
    adjoint = tuple(normal(*weights.shape, seed=20 + i) for i in range(len(state)))
    return Segment(loop, state, images, labels, sizes.detach(), first), adjoint


@every_backward
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_adjoints_are_those_of_autograd(name, backward) -> None:
    segment, adjoint = segment_of(name)
    inputs = [tensor.detach().requires_grad_() for tensor in (*segment.state, segment.sizes)]
    end = segment.loop.steps_with_graph(tuple(inputs[:-1]), segment.images, segment.labels, inputs[-1], segment.first)
    expected = torch.autograd.grad(end, [*inputs, segment.images, segment.labels], adjoint)
    adjoints = backward(segment, adjoint)
    assert relative_error([*adjoints.state, adjoints.sizes, adjoints.images, adjoints.labels], expected) < 1e-10


@every_backward
def test_derivatives_that_are_not_wanted_are_none(backward) -> None:
    segment, adjoint = segment_of("momentum")
    expected = backward(segment, adjoint)
    constant = Segment(
        segment.loop, segment.state, segment.images.detach(), segment.labels, segment.sizes, segment.first
    )
    adjoints = backward(constant, adjoint)
    assert adjoints.images is None
    assert relative_error([*adjoints.state, adjoints.labels], [*expected.state, expected.labels]) < 1e-12


def test_products_leave_out_what_does_not_require_grad() -> None:
    x, y = normal(3).requires_grad_(), normal(3, seed=1)
    d_x, d_y = vjp([x * y], [x, y], [torch.ones(3, dtype=torch.float64)])
    assert torch.equal(d_x, y)
    assert d_y is None


def test_directional_derivatives_are_those_of_the_inner_product() -> None:
    loss, (weights, images, labels, _) = case("mlp", 1)
    loop, direction = InnerLoop(loss, OPTIMIZERS["sgd"]), normal(*weights.shape, seed=5)
    product = (loop.gradient_with_graph(weights, images, labels) * direction).sum()
    expected = torch.autograd.grad(product, [weights, images, labels])
    assert relative_error(directional_derivatives(loop, weights, images, labels, direction), expected) < 1e-12


@pytest.mark.parametrize("words", MISSING)
def test_a_missing_derivative_is_reported_in_one_line(words) -> None:
    with pytest.raises(ConfigError) as error, missing_derivatives("smooth"):
        raise RuntimeError(f"something {words} of it.\nA long explanation.")
    assert str(error.value) == f"loss must be smooth: something {words} of it"


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match=r"^sizes of tensors must match$"), missing_derivatives("smooth"):
        raise RuntimeError("sizes of tensors must match")
