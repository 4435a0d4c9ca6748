"""What the engines keep and when they let it go, what they refuse, and how they fit into Lightning."""

import gc

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional.unroll import ENGINES, SGD, Adam, Momentum, choose, unroll
from tests.functional.unroll.cases import OPTIMIZERS, case, cross_entropy, normal

REBUILDING = [engine for engine in ENGINES if engine != "full"]


class Counted(torch.autograd.Function):
    """Identity; counts the graphs that it is part of."""

    alive = most = 0

    class Token:
        def __init__(self) -> None:
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)

        def __del__(self) -> None:
            Counted.alive -= 1

    @staticmethod
    def forward(value):
        return value.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.token = Counted.Token()

    @staticmethod
    def backward(ctx, slope):
        return slope

    @staticmethod
    def jvp(ctx, slope):
        return slope.clone()


def counted(loss):
    """Return the loss with a count of its graphs."""
    gc.collect()
    Counted.most = Counted.alive

    def with_count(weights, images, labels):
        return loss(Counted.apply(weights), images, labels)

    return with_count


class TestMemory:
    @pytest.mark.parametrize(("engine", "graphs"), [("full", 36), ("segments", 6), ("reverse", 1), ("jvp", 2)])
    def test_graphs_alive_at_a_time(self, engine, graphs) -> None:
        loss, arguments = case("mlp", 36)
        before = Counted.alive
        end = unroll(*arguments, loss=counted(loss), engine=engine)
        torch.autograd.grad(end.sum(), arguments)
        assert Counted.most - before <= graphs
        assert engine != "full" or Counted.most - before == graphs
        del end
        gc.collect()
        assert Counted.alive == before

    @pytest.mark.parametrize("engine", ENGINES)
    def test_the_way_back_frees_the_graphs_without_the_garbage_collector(self, engine) -> None:
        loss, arguments = case("mlp", 36)
        loss, before = counted(loss), Counted.alive
        gc.disable()
        try:
            end = unroll(*arguments, loss=loss, engine=engine)
            torch.autograd.grad(end.sum(), arguments)
            del end
            assert Counted.alive == before
        finally:
            gc.enable()

    @pytest.mark.parametrize("engine", ENGINES)
    def test_no_graph_without_gradients(self, engine) -> None:
        loss, arguments = case("mlp", 36)
        loss, before = counted(loss), Counted.alive
        with torch.no_grad():
            end = unroll(*arguments, loss=loss, engine=engine)
            assert Counted.most - before <= 1  # that of the inner gradient
        assert Counted.alive == before
        assert not end.requires_grad


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


class Once(torch.autograd.Function):
    """Square, whose derivative cannot be differentiated."""

    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value)
        return value.square()

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


def once(weights, images, labels):
    return (Once.apply(weights) * images.sum()).exp().sum() * labels.sum()


def connectionist(weights, images, labels):
    log_probs = (weights.view(1, 4, 3).transpose(0, 1) * images.sum() * labels.sum()).log_softmax(-1)
    return nn.functional.ctc_loss(log_probs, torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2]))


@pytest.mark.usefixtures("unchecked_shapes")
class TestBadArguments:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("loss", [once, connectionist])
    def test_a_loss_without_second_derivatives(self, engine, loss) -> None:
        weights, data = 0.1 * normal(1, 12), torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        with pytest.raises(ConfigError, match=r"^loss must be (twice differentiable|.* forward mode).*") as error:
            unroll(weights, data, data, data[0].expand(5), loss=loss, engine=engine).sum().backward()
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_loss_that_draws_random_numbers(self, engine) -> None:
        loss, (weights, *data) = case("mlp", 9)

        def noisy(weights, images, labels):
            return loss(nn.functional.dropout(weights, 0.1), images, labels)

        if engine == "full":
            assert unroll(weights, *data, loss=noisy, engine=engine).requires_grad
        else:
            with pytest.raises(ConfigError, match="loss must be the same at every call, but it draws random numbers"):
                unroll(weights, *data, loss=noisy, engine=engine)

    def test_a_loss_that_is_no_scalar(self) -> None:
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

    @pytest.mark.parametrize(
        ("make", "line"),
        [
            (lambda: Momentum(1.0), r"momentum must be in \[0, 1\), got 1.0"),
            (lambda: Adam(betas=(0.9, 1.0)), r"betas\[1\] must be in \[0, 1\), got 1.0"),
            (lambda: Adam(betas=(0.9,)), r"betas must be two numbers in \[0, 1\), got \(0.9,\)"),
            (lambda: Adam(eps=0.0), "eps must be finite and > 0, got 0.0"),
            (lambda: Adam(eps_root=0.0), "eps_root must be finite and > 0, got 0.0"),
        ],
    )
    def test_optimizers(self, make, line) -> None:
        with pytest.raises(ConfigError, match=line):
            make()


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_the_steps_are_those_of_torch(name) -> None:
    loss, (weights, images, labels, _) = case("mlp", 1)
    made = {
        "sgd": (SGD(), lambda p: torch.optim.SGD(p, 0.1)),
        "momentum": (Momentum(0.7), lambda p: torch.optim.SGD(p, 0.1, momentum=0.7)),
        "adam": (Adam(), lambda p: torch.optim.Adam(p, 0.1)),
    }
    ours, theirs = made[name]
    parameter = weights.detach().clone().requires_grad_()
    optimizer = theirs([parameter])
    for _ in range(12):
        optimizer.zero_grad()
        loss(parameter, images, labels).backward()
        optimizer.step()
    end = unroll(weights, images, labels, torch.full_like(weights[0, :12], 0.1), loss=loss, optimizer=ours)
    torch.testing.assert_close(end, parameter, rtol=0, atol=1e-7)  # eps_root is not there


class Distil(pl.LightningModule):
    """Images that teach a linear classifier to answer like the labels of the real data."""

    def __init__(self, engine: str) -> None:
        super().__init__()
        self.engine = engine
        self.images = nn.Parameter(normal(3, 4, dtype=torch.float32))
        self.sizes = nn.Parameter(torch.full((5,), 0.1))
        self.validated: list[torch.Tensor] = []

    def trained(self):
        weights = 0.1 * normal(2, 12, seed=1, dtype=torch.float32)
        labels = torch.eye(3)
        return unroll(weights, self.images, labels, self.sizes, loss=linear, engine=self.engine)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return linear(self.trained(), images, labels)

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.trained())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def linear(weights, images, labels):
    return cross_entropy(images @ weights.view(-1, 4, 3), labels)


@pytest.mark.parametrize("engine", ENGINES)
def test_in_lightning(engine, tmp_path) -> None:
    batch = (normal(6, 4, seed=2, dtype=torch.float32), torch.eye(3).repeat(2, 1))
    loader = torch.utils.data.DataLoader([batch] * 2, batch_size=None)
    module = Distil(engine)
    expected = Distil("full")
    for _ in range(2):
        loss = linear(expected.trained(), *batch)
        slopes = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for one, slope in zip(expected.parameters(), slopes, strict=True):
                one -= 0.5 * slope
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader, loader)
    torch.testing.assert_close(module.images, expected.images)
    torch.testing.assert_close(module.sizes, expected.sizes)
    torch.testing.assert_close(module.validated[-1], expected.trained())


class TestChoice:
    def chosen(self, budget: int, steps: int = 100):
        loss, (weights, images, labels, _) = case("mlp", 1)
        return choose(loss, weights, images, labels, steps, OPTIMIZERS["adam"], budget_bytes=budget)

    def test_the_fastest_that_fits(self) -> None:
        chosen = [self.chosen(2**power).engine for power in range(10, 31)]
        kinds = list(dict.fromkeys(chosen))
        assert kinds == ["reverse", "segments", "full"]

    def test_few_steps_need_no_rebuilding(self) -> None:
        assert self.chosen(2**17, steps=3).engine == "full"
        assert self.chosen(2**17, steps=300).engine != "full"

    def test_the_reason_is_one_sentence_with_numbers(self) -> None:
        reason = self.chosen(2**30).reason
        assert reason.startswith("full: the graph of a step keeps ")
        assert reason.endswith(" MiB by reverse, of 1,024 MiB allowed")
        assert "\n" not in reason

    def test_what_a_step_keeps_is_measured(self) -> None:
        """Twice the images, twice the activations; a state of Adam is three times the weights."""
        _, (weights, images, labels, _) = case("mlp", 1)
        loss = case("mlp", 1)[0]
        wide = [torch.cat([one] * 64) for one in (images, labels)]
        wider = [torch.cat([one] * 128) for one in (images, labels)]
        kept = [
            float(choose(loss, weights, *data, 100, SGD()).reason.split("keeps ")[1].split(" MiB")[0])
            for data in (wide, wider)
        ]
        assert 1.5 < kept[1] / kept[0] < 2

    def test_without_gradients(self) -> None:
        with torch.no_grad():
            assert self.chosen(2**30).engine == "full"

    @pytest.mark.usefixtures("unchecked_shapes")
    def test_bad_numbers(self) -> None:
        with pytest.raises(ConfigError, match="n_steps must be an integer >= 1, got 0"):
            self.chosen(2**30, steps=0)
        with pytest.raises(ConfigError, match="budget_bytes must be an integer >= 1, got 0"):
            self.chosen(0)
