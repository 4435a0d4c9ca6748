"""Two players in one step: their gradients stay apart, and the step is that of two optimizers."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import kdzoo
from kdzoo.contracts.compare import difference, final_state
from kdzoo.contracts.crashes import Crashes, crash_everywhere
from kdzoo.contracts.ranks import data_parallel_gaps
from kdzoo.contracts.subject import Subject
from kdzoo.core.two_players import constant
from kdzoo.distillers import Adversarial
from kdzoo.errors import ConfigError
from kdzoo.functional.adversarial import discriminator_loss, generator_loss
from kdzoo.models import GAN


def model():
    torch.manual_seed(0)
    return GAN(in_shape=(4,), network="mlp", width=8, depth=1, latent=2, discriminator_width=8, spectral_norm=False)


def batches(n):
    generator = torch.Generator().manual_seed(1)
    return [
        {"input": torch.rand(6, 4, generator=generator), "noise.z": torch.randn(6, 2, generator=generator)}
        for _ in range(n)
    ]


def train_on(distiller, given):
    """Train on given batches, one epoch, with a plain Lightning trainer."""
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(distiller, train_dataloaders=DataLoader(given, batch_size=None))


def players(gan):
    """Return the parameters of generator and discriminator."""
    opponents = list(gan.discriminator.parameters())
    return [p for p in gan.parameters() if all(p is not other for other in opponents)], opponents


def test_the_step_is_that_of_two_optimizers():
    gan, expected = model(), model()
    adam = partial(torch.optim.Adam, lr=0.01)
    train_on(Adversarial(gan, optimizer=adam, opponent_lr=0.5, penalty="none"), batches(3))
    optimizers = [torch.optim.Adam(group, lr=lr) for group, lr in zip(players(expected), (0.01, 0.005), strict=True)]
    for batch in batches(3):
        expected.train()
        samples = expected.samples({"z": batch["noise.z"]})
        of_generator = generator_loss(expected.discriminator(samples)).mean()
        gradients = torch.autograd.grad(of_generator, players(expected)[0], retain_graph=True)
        real, generated = discriminator_loss(
            expected.discriminator(batch["input"]), expected.discriminator(samples.detach())
        )
        (real.mean() + generated.mean()).backward()
        for parameter, gradient in zip(players(expected)[0], gradients, strict=True):
            parameter.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for ours, theirs in zip(gan.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_for_each_side(algorithm):
    gan = model()
    distiller = Adversarial(gan)
    ours, opponents = players(gan)
    optimizer = torch.optim.SGD([{"params": ours}, {"params": opponents}], lr=0.1)
    for parameters, value in ((ours, 1e-3), (opponents, 1e3)):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, value)
    distiller.configure_gradient_clipping(optimizer, 1.0, algorithm)
    assert all((parameter.grad == 1e-3).all() for parameter in ours)  # not shrunk by the other side's gradient
    if algorithm == "norm":
        assert float(torch.nn.utils.get_total_norm([p.grad for p in opponents])) == pytest.approx(1)
    else:
        assert all((parameter.grad == 1).all() for parameter in opponents)


def test_the_player_and_its_momentum_rest_while_the_opponent_moves():
    gan, start = model(), model()
    train_on(Adversarial(gan, opponent_steps=3), batches(2))
    assert all(torch.equal(a, b) for a, b in zip(players(gan)[0], players(start)[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(players(gan)[1], players(start)[1], strict=True))
    moved = model()
    train_on(Adversarial(moved, opponent_steps=3, optimizer=partial(torch.optim.Adam, lr=0.01)), batches(3))
    # The first step of Adam has the length of the learning rate, whatever the gradient, if no momentum came before it.
    for after, before in zip(players(moved)[0], players(start)[0], strict=True):
        change = (after - before).abs()
        torch.testing.assert_close(
            change[change > 1e-6], torch.full_like(change[change > 1e-6], 0.01), rtol=0.02, atol=0
        )


def test_a_module_is_constant_only_within_the_context():
    layer, inputs = torch.nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    layer.bias.requires_grad_(False)
    with constant(layer):
        layer(inputs).sum().backward()
    assert layer.weight.grad is None
    assert inputs.grad is not None
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opponent_lr": 0.0}, "opponent_lr must be finite and > 0, got 0.0"),
        ({"opponent_steps": 0}, "opponent_steps must be an integer >= 1, got 0"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        Adversarial(model(), **options)


@pytest.fixture
def subject(tmp_path):
    cfg = kdzoo.compose("distiller=adversarial", "student.network=mlp", "distiller.penalty=gradient")
    return Subject(cfg, tmp_path, changes={"distiller.opponent_steps": 2})


def test_two_processes_equal_one_where_the_opponent_moves_alone(subject):
    assert data_parallel_gaps({"two_players": subject})["two_players"] <= 1e-10


def test_a_crash_anywhere_between_the_players_steps_changes_nothing(subject):
    subject = subject.with_changes({"distiller.micro_batch_size": 7})
    whole, interrupted = subject.train("whole"), crash_everywhere(subject, Crashes())
    assert difference(final_state(whole.checkpoint), final_state(interrupted.checkpoint)) is None
