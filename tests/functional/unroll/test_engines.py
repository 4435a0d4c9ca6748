"""The memory that engines keep, the losses that they refuse, and training with them in Lightning."""

import gc

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll import ENGINES, unroll
from kdzoo.functional.unroll.engines import ceil_sqrt, half_ceil_sqrt
from tests.functional.unroll.cases import case, cross_entropy, ctc_loss, normal, once_differentiable_loss


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


@pytest.mark.usefixtures("unchecked_types")
class TestUnsuitableLosses:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("loss", [once_differentiable_loss, ctc_loss])
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


class Distil(pl.LightningModule):
    """Images on which linear classifiers learn to predict the labels of real data."""

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
            for parameter, slope in zip(expected.parameters(), slopes, strict=True):
                parameter -= 0.5 * slope
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


@pytest.mark.parametrize("steps", range(1, 40))
def test_segments_have_about_the_square_root_of_all_steps(steps) -> None:
    length = ceil_sqrt(steps)
    assert (length - 1) ** 2 < steps <= length**2
    assert half_ceil_sqrt(steps) == max(1, -(-length // 2))
