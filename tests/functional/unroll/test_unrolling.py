"""Derivatives through inner trainings: engines against full unrolling, and that against derivatives by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional.unroll import ENGINES, SGD, Adam, Momentum, unroll
from tests.functional.unroll.cases import (
    NAMES,
    OPTIMIZERS,
    case,
    cross_entropy,
    derivatives,
    normal,
    relative_error,
    unrolled,
)
from tests.reference import unroll as reference

some = settings(max_examples=20, deadline=None, derandomize=True)
CHECKPOINTING = [engine for engine in ENGINES if engine != "full"]


def regression(weights, images, labels):
    """Softmax regression; the weights of each network are (D, C) in a row."""
    return cross_entropy(images @ weights.view(len(weights), images.shape[1], -1), labels)


@pytest.mark.parametrize("steps", [1, 10, 40])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_full_unrolling_agrees_with_derivatives_by_hand(name, steps) -> None:
    weights, images, labels = 0.3 * normal(1, 12), normal(7, 4, seed=1), normal(7, 3, seed=2).exp()
    sizes = 0.05 + 0.1 * torch.rand(steps, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    arguments = [tensor.requires_grad_() for tensor in (weights, images, labels, sizes)]
    result, slopes = unrolled(regression, arguments, normal(1, 12, seed=4), optimizer=OPTIMIZERS[name], engine="full")
    by_hand = {
        "sgd": reference.SGD(),
        "momentum": reference.Momentum(0.8),
        "adam": reference.Adam((0.8, 0.95), 1e-2, 1e-16),
    }[name]
    W, X, Y, eta = (tensor.detach().numpy() for tensor in arguments)
    end, expected = reference.unroll(W.reshape(4, 3), X, Y, eta, by_hand, normal(12, seed=4).numpy().reshape(4, 3))
    assert relative_error([result], [torch.from_numpy(end).view(1, 12)]) < 1e-10
    expected[3] = expected[3].reshape(1, 12)
    assert relative_error(slopes, [torch.from_numpy(np.asarray(tensor)) for tensor in expected]) < 1e-10


@pytest.mark.parametrize("steps", [1, 10, 40, 100])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", ["convnet", "mlp"])
def test_engines_agree_with_full_unrolling(network, optimizer, steps) -> None:
    loss, arguments = case(network, steps, adam=optimizer == "adam")
    end, expected = unrolled(loss, arguments, optimizer=OPTIMIZERS[optimizer], engine="full")
    assert all(float(tensor.abs().max()) > 1e-6 for tensor in expected)
    for engine in CHECKPOINTING:
        result = unrolled(loss, arguments, optimizer=OPTIMIZERS[optimizer], engine=engine)
        assert relative_error([result[0]], [end]) < 1e-12, engine
        for name, slope, other in zip(NAMES, result[1], expected, strict=True):
            assert relative_error([slope], [other]) < 1e-10, (engine, name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rectifiers_and_max_pooling_agree_too(optimizer) -> None:
    loss, arguments = case("kinked", 12, adam=optimizer == "adam")
    expected = unrolled(loss, arguments, optimizer=OPTIMIZERS[optimizer], engine="full")[1]
    for engine in CHECKPOINTING:
        assert (
            relative_error(unrolled(loss, arguments, optimizer=OPTIMIZERS[optimizer], engine=engine)[1], expected)
            < 1e-10
        )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", ["convnet", "mlp"])
def test_central_differences(network, optimizer) -> None:
    loss, arguments = case(network, 10, adam=optimizer == "adam")
    options = {"loss": loss, "optimizer": OPTIMIZERS[optimizer]}
    adjoint = normal(*arguments[0].shape, seed=5)
    slopes = derivatives(unroll(*arguments, **options), *arguments, adjoint)
    for place, slope in zip((1, 2, 3, 0), slopes, strict=True):
        along = normal(*slope.shape, seed=6)
        along *= slope.norm() / (along * slope).sum().abs().clamp_min(slope.norm() * along.norm() / 10)
        ends = []
        for shift in (1e-5, -1e-5):
            moved = [tensor.detach() for tensor in arguments]
            moved[place] = moved[place] + shift * along
            ends.append((unroll(*moved, **options) * adjoint).sum())
        expected = float((slope * along).sum())
        assert float(ends[0] - ends[1]) / 2e-5 == pytest.approx(expected, rel=1e-5), NAMES[place - 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_gradcheck(engine) -> None:
    weights, images, labels = 0.3 * normal(2, 6), normal(3, 2, seed=1), normal(3, 3, seed=2).softmax(1)
    arguments = [tensor.requires_grad_() for tensor in (weights, images, labels, torch.full_like(weights[0, :5], 0.3))]
    for optimizer in (SGD(), Momentum(0.5)):
        assert gradcheck(lambda *a, o=optimizer: unroll(*a, loss=regression, optimizer=o, engine=engine), arguments)


class TestWindow:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_a_window_of_all_steps_changes_nothing(self, engine, optimizer) -> None:
        loss, arguments = case("mlp", 9, adam=optimizer == "adam")
        options = {"optimizer": OPTIMIZERS[optimizer], "engine": engine}
        assert (
            relative_error(unrolled(loss, arguments, window=9, **options)[1], unrolled(loss, arguments, **options)[1])
            == 0
        )

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("window", [1, 4, 8])
    def test_the_last_steps_start_from_a_constant(self, engine, optimizer, window) -> None:
        loss, (weights, images, labels, sizes) = case("mlp", 9, adam=optimizer == "adam")
        method = OPTIMIZERS[optimizer]
        state = method.init_state(weights)
        for k, size in enumerate(sizes):
            if k == 9 - window:
                state = tuple(part.detach().requires_grad_() for part in state)
            (gradient,) = torch.autograd.grad(loss(state[0], images, labels), state[0], create_graph=True)
            state = method.update(state, gradient, size, k)
        adjoint = normal(*weights.shape, seed=4)
        expected = torch.autograd.grad(state[0], (images, labels, sizes), adjoint)
        end = unroll(weights, images, labels, sizes, loss=loss, optimizer=method, engine=engine, window=window)
        result = torch.autograd.grad(end, (images, labels, sizes), adjoint)
        assert relative_error([end], [state[0]]) < 1e-12
        assert relative_error(result, expected) < 1e-10
        assert not result[2][: 9 - window].any()
        assert result[2][9 - window :].all()


engines = st.sampled_from(CHECKPOINTING)
optimizers = st.sampled_from(sorted(OPTIMIZERS))
seeds = st.integers(0, 2**31)


class TestProperties:
    @given(engines, optimizers, seeds, st.floats(-3, 3))
    @some
    def test_linear_in_the_adjoint(self, engine, optimizer, seed, factor) -> None:
        loss, arguments = case("mlp", 6, adam=optimizer == "adam")
        end = unroll(*arguments, loss=loss, optimizer=OPTIMIZERS[optimizer], engine=engine)
        first, second = normal(*end.shape, seed=seed), normal(*end.shape, seed=seed ^ 1)
        parts = [torch.autograd.grad(end, arguments, a, retain_graph=True) for a in (first, second)]
        whole = torch.autograd.grad(end, arguments, first + factor * second)
        assert relative_error(whole, [a + factor * b for a, b in zip(*parts, strict=True)]) < 1e-9

    @given(engines, optimizers, st.permutations(range(4)))
    @some
    def test_the_order_of_the_initialisations(self, engine, optimizer, order) -> None:
        loss, (weights, *data) = case("convnet", 5, adam=optimizer == "adam", count=4)
        options = {"optimizer": OPTIMIZERS[optimizer], "engine": engine}
        adjoint, moved = normal(*weights.shape, seed=7), weights.detach()[order].requires_grad_()
        end, (*shared, own) = unrolled(loss, [weights, *data], adjoint, **options)
        end_moved, (*shared_moved, own_moved) = unrolled(loss, [moved, *data], adjoint[order], **options)
        assert relative_error([end_moved, own_moved, *shared_moved], [end[order], own[order], *shared]) < 1e-9

    @given(engines, optimizers, st.integers(1, 3))
    @some
    def test_many_initialisations_are_the_sum_of_each(self, engine, optimizer, count) -> None:
        loss, (weights, *data) = case("mlp", 5, adam=optimizer == "adam", count=count)
        options = {"optimizer": OPTIMIZERS[optimizer], "engine": engine}
        adjoint = normal(*weights.shape, seed=8)
        whole = unrolled(loss, [weights, *data], adjoint, **options)[1]
        each = [
            unrolled(loss, [network[None].detach().requires_grad_(), *data], row[None], **options)[1]
            for network, row in zip(weights, adjoint, strict=True)
        ]
        images, labels, sizes, own = zip(*each, strict=True)
        assert relative_error(whole, [sum(images), sum(labels), sum(sizes), torch.cat(own)]) < 1e-9

    @given(engines, seeds)
    @some
    def test_the_mean_of_two_architectures_has_the_mean_of_their_derivatives(self, engine, seed) -> None:
        losses, total, (_, *data) = [], [], case("mlp", 4)[1]
        for name in ("mlp", "convnet"):
            loss, (weights, *_) = case(name, 4)
            own = (weights + 0.1 * normal(*weights.shape, seed=seed)).detach()
            losses.append((loss, own))
            total.append(torch.autograd.grad(unroll(own, *data, loss=loss, engine="full").square().sum(), data))
        ends = [unroll(own, *data, loss=loss, engine=engine).square().sum() for loss, own in losses]
        mean = torch.autograd.grad(sum(ends) / 2, data)
        assert relative_error(mean, [(a + b) / 2 for a, b in zip(*total, strict=True)]) < 1e-10

    @given(engines, st.integers(1, 12))
    @some
    def test_steps_of_no_size_change_nothing(self, engine, steps) -> None:
        loss, (weights, images, labels, sizes) = case("mlp", steps)
        nothing = torch.zeros_like(sizes).requires_grad_()
        end, (d_images, d_labels, d_sizes, d_weights) = unrolled(
            loss, [weights, images, labels, nothing], normal(*weights.shape, seed=9), engine=engine
        )
        (gradient,) = torch.autograd.grad(loss(weights, images, labels), weights)
        assert torch.equal(end, weights)
        assert torch.equal(d_weights, normal(*weights.shape, seed=9))
        assert not d_images.any()
        assert not d_labels.any()
        torch.testing.assert_close(d_sizes, -(gradient * d_weights).sum().expand(steps))


@pytest.mark.parametrize("engine", ENGINES)
class TestCallers:
    @pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (1, 3)])
    def test_any_argument_may_be_a_constant(self, engine, wanted) -> None:
        loss, arguments = case("mlp", 7)
        expected = dict(zip((1, 2, 3, 0), unrolled(loss, arguments, engine="full")[1], strict=True))
        inputs = [tensor.detach().requires_grad_(i in wanted) for i, tensor in enumerate(arguments)]
        end = unroll(*inputs, loss=loss, engine=engine)
        result = torch.autograd.grad(end, [inputs[i] for i in wanted], normal(*end.shape, seed=4))
        assert relative_error(result, [expected[i] for i in wanted]) < 1e-10

    def test_nothing_to_differentiate(self, engine) -> None:
        loss, arguments = case("mlp", 7)
        end = unroll(*arguments, loss=loss, engine=engine)
        with torch.no_grad():
            assert torch.equal(unroll(*arguments, loss=loss, engine=engine), end)
        constants = unroll(*(tensor.detach() for tensor in arguments), loss=loss, engine=engine)
        assert torch.equal(constants, end)
        assert not constants.requires_grad

    def test_in_inference_mode(self, engine) -> None:
        loss, arguments = case("mlp", 7)
        with torch.inference_mode():
            copies = [tensor + 0 for tensor in arguments]
            end = unroll(*copies, loss=loss, engine=engine)
        assert torch.equal(end, unroll(*arguments, loss=loss, engine=engine))
        assert torch.equal(unroll(*copies, loss=loss, engine=engine), end)

    def test_float32(self, engine) -> None:
        loss, arguments = case("convnet", 20)
        exact = unrolled(loss, arguments, engine=engine)
        loss, arguments = case("convnet", 20, dtype=torch.float32)
        end, slopes = unrolled(loss, arguments, engine=engine)
        assert {tensor.dtype for tensor in (end, *slopes)} == {torch.float32}
        assert relative_error([end, *slopes], [exact[0], *exact[1]]) < 1e-4

    def test_autocast_leaves_the_inner_steps_alone(self, engine) -> None:
        loss, arguments = case("mlp", 7, dtype=torch.float32)
        expected, adjoint = unrolled(loss, arguments, engine=engine), normal(2, 160, seed=4, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            end = unroll(*arguments, loss=loss, engine=engine)
        assert torch.equal(end, expected[0])
        assert relative_error(derivatives(end, *arguments, adjoint), expected[1]) == 0

    def test_dead_units_give_no_nan(self, engine) -> None:
        loss, (weights, images, labels, sizes) = case("kinked", 6, adam=True)
        with torch.no_grad():
            weights[:, 18] = -100.0  # a bias: the first unit never fires
        arguments, adjoint = [weights, images, labels, sizes], normal(2, 44, seed=4)
        end, slopes = unrolled(loss, arguments, adjoint, optimizer=Adam(), engine=engine)
        assert all(tensor.isfinite().all() and tensor.any() for tensor in slopes)
        assert torch.equal(end[:, :9], weights[:, :9])
        assert torch.equal(slopes[3][:, :9], adjoint[:, :9])

    def test_the_backward_pass_can_be_repeated(self, engine) -> None:
        loss, arguments = case("mlp", 7)
        end = unroll(*arguments, loss=loss, engine=engine)
        once, again = (torch.autograd.grad(end.sum(), arguments, retain_graph=True) for _ in range(2))
        assert relative_error(again, once) == 0


class TestDiverging:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("gradients", [True, False])
    def test_the_step_is_named(self, engine, gradients) -> None:
        def quartic(weights, images, labels):
            return (weights**4).sum() * images.sum() * labels.sum()

        data = torch.ones(1, 1, dtype=torch.float64, requires_grad=gradients)
        sizes = torch.tensor([1e-3, 1e-3, 1e120, 7.5, 1.0, 1.0], dtype=torch.float64)
        with pytest.raises(NonFiniteLossError) as error:  # 1e-3, 1e-3, then about 1e120, then about 1e360
            unroll(torch.ones(2, 3, dtype=torch.float64), data, data, sizes, loss=quartic, engine=engine)
        line = "the weights are not finite after inner step 4 of 6, whose step size is 7.5; a smaller one may help"
        assert str(error.value) == line

    @pytest.mark.parametrize("engine", ENGINES)
    def test_weights_that_are_not_finite_to_begin_with(self, engine) -> None:
        loss, (weights, *data) = case("mlp", 3)
        broken = torch.where(torch.arange(160) == 3, torch.nan, weights.detach())
        with pytest.raises(NonFiniteLossError, match=r"^the initial weights .* are not all finite$"):
            unroll(broken, *data, loss=loss, engine=engine)


@pytest.mark.usefixtures("unchecked_types")
class TestWrongArguments:
    def test_a_loss_that_is_not_a_scalar(self) -> None:
        _, arguments = case("mlp", 3)
        with pytest.raises(ConfigError, match=r"loss must return a scalar, got shape \(2,\)"):
            unroll(*arguments, loss=lambda weights, images, labels: weights.sum(1))

    @pytest.mark.parametrize(
        ("options", "line"),
        [
            ({"engine": "fast"}, "engine must be one of full, reverse, segments, jvp, got 'fast'"),
            ({"window": 0}, "window must be an integer in 1..3, got 0"),
            ({"window": 4}, "window must be an integer in 1..3, got 4"),
            ({"window": True}, "window must be an integer in 1..3, got True"),
        ],
    )
    def test_options(self, options, line) -> None:
        loss, arguments = case("mlp", 3)
        with pytest.raises(ConfigError) as error:
            unroll(*arguments, loss=loss, **options)
        assert str(error.value) == line

    @pytest.mark.parametrize("shape", [(), (0,), (3, 1)])
    def test_step_sizes(self, shape) -> None:
        loss, (*rest, _) = case("mlp", 3)
        with pytest.raises(ConfigError, match=r"step_sizes must have shape \[N\] with N >= 1, got \("):
            unroll(*rest, torch.ones(shape, dtype=torch.float64), loss=loss)

    def test_weights(self) -> None:
        loss, (weights, *rest) = case("mlp", 3)
        with pytest.raises(ConfigError, match=r"weights must have shape \[K, P\], got \(160,\)"):
            unroll(weights[0], *rest, loss=loss)
