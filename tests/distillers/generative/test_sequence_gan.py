"""Training of a language model against a discriminator by policy gradient."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdzoo.data import OracleStrings
from kdzoo.distillers import SequenceGAN
from kdzoo.distillers.generative.sequence_gan import BASELINES
from kdzoo.errors import ConfigError
from kdzoo.models import RNNLM, TransformerLM
from tests.text.strings_by_enumeration import END, LENGTH, all_strings, log_probs_of_symbols, small_model

ROWS = 1000


def real_strings(n):
    """Return n equal strings as a batch."""
    batch = {"input": torch.tensor([[END, 0, 1, 2]]), "target": torch.tensor([[0, 1, 2, END]])}
    return {name: value.expand(n, -1) for name, value in batch.items()}


def gan(baseline="none", rollouts=2, **options):
    """Return the method in float64, with a discriminator that tells strings apart."""
    distiller = SequenceGAN(
        small_model(), max_length=LENGTH, baseline=baseline, rollouts=rollouts, width=4, **options
    ).double()
    distiller.prepare(real_strings(1))
    with torch.no_grad():
        for parameter in distiller.discriminator.parameters():
            parameter *= 2
        distiller.discriminator.head.bias += 1
    return distiller.double()


def exact_objective(distiller):
    """Return the expected reward, by enumeration."""
    strings = all_strings()
    probabilities = log_probs_of_symbols(distiller.student, strings).sum(1).exp()
    return (probabilities * distiller.discriminator(strings).sigmoid().detach()).sum()


def gradient(distiller, objective):
    """Return the gradient of an objective with respect to the student's weights, as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(objective, list(distiller.student.parameters()))])


def estimated_gradients(distiller, batches, rows=ROWS):
    """Return estimates of the gradient of the expected reward, each from one batch, ``[batches, parameters]``."""
    torch.manual_seed(0)
    terms = (distiller.losses(real_strings(rows))["generator"].mean() for _ in range(batches))
    return torch.stack([gradient(distiller, -term) for term in terms])


@pytest.mark.parametrize("rollouts", [0, 2])
@pytest.mark.parametrize("baseline", BASELINES)
def test_the_policy_gradient_is_unbiased(baseline, rollouts):
    distiller = gan(baseline, rollouts)
    exact = gradient(distiller, exact_objective(distiller))
    estimates = estimated_gradients(distiller, 20)
    # Along the exact gradient, and along a random direction: all parameters would be many comparisons.
    directions = torch.stack([exact, torch.randn(len(exact), generator=torch.Generator().manual_seed(1)).double()])
    values, expected = estimates @ directions.T, directions @ exact
    error = values.std(0) / len(values) ** 0.5
    assert ((values.mean(0) - expected).abs() <= 3 * error).all()
    assert error[0] < 0.1 * expected[0]  # the test would notice a gradient of the wrong size


def test_a_baseline_and_rollouts_reduce_the_variance():
    learned = gan("learned", 0)
    optimizer = torch.optim.Adam(learned.value.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        learned.losses(real_strings(50))["baseline"].mean().backward()
        optimizer.step()
    variance = {
        name: estimated_gradients(distiller, 60, rows=20).var(0).sum()
        for name, distiller in {
            "none": gan("none", 0), "leave_one_out": gan("leave_one_out", 0), "learned": learned,
            "rollouts": gan("leave_one_out", 8),
        }.items()
    }  # fmt: skip
    assert variance["leave_one_out"] < 0.5 * variance["none"]
    assert variance["learned"] < 0.5 * variance["none"]
    assert variance["rollouts"] < 0.8 * variance["leave_one_out"]


def test_the_value_of_the_generators_term_is_the_negative_reward():
    distiller, batch = gan(), real_strings(5)
    batch |= distiller.draw_noise(5)
    played = distiller.play(batch)
    reward = distiller.discriminator(played).sigmoid().reshape(5, 2).mean(1)
    torch.testing.assert_close(distiller.losses(batch)["generator"], -reward)


def parts_reached(distiller, term):
    distiller.zero_grad()
    distiller.losses(real_strings(6))[term].sum().backward()
    return {name.split(".")[0] for name, parameter in distiller.named_parameters() if parameter.grad is not None}


def test_each_term_reaches_one_network():
    distiller = gan("learned")
    for term in ("hard", "generator"):
        assert parts_reached(distiller, term) == {"student"}
    assert parts_reached(distiller, "baseline") == {"value"}
    for term in ("real", "generated"):
        assert parts_reached(distiller, term) == {"discriminator"}


def test_the_discriminator_sees_equally_long_strings():
    distiller, seen = gan(), []
    distiller.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    # A string that is shorter than the generated ones, and one that is longer.
    batch = {"input": torch.tensor([[END, 1, END, END, END], [END, 0, 1, 2, 0]])}
    distiller.opponent_losses(batch, torch.zeros(4, LENGTH, dtype=torch.int64))
    assert seen[0].tolist() == [[1, END, END], [0, 1, 2]]


def at(distiller, step):
    """Return a distiller at a step of a training of ten steps, without a trainer."""
    distiller._trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=10, world_size=1)
    return distiller.train()


def test_the_parts_of_the_training_follow_each_other():
    distiller = gan(warmup=0.3, discriminator_warmup=0.2, opponent_steps=2)
    terms = [list(at(distiller, step).losses(real_strings(2))) for step in range(10)]
    alone, both = ["real", "generated"], ["generator", "real", "generated"]
    assert terms == [["hard"]] * 3 + [alone] * 2 + [both, alone, both, alone, both]
    for step, resting in ((0, {"discriminator"}), (3, {"student"}), (5, set()), (6, {"student"})):
        names = {id(parameter): name.split(".")[0] for name, parameter in distiller.named_parameters()}
        assert {names[id(parameter)] for parameter in at(distiller, step).resting_parameters()} == resting


def test_a_training_without_a_step_of_the_game_is_noted(fit):
    data = OracleStrings(tokens=5, length=4, n_train=32, n_test=8, batch_size=16)
    data.setup()
    notes = []
    for warmup in (0.8, 0.0):
        torch.manual_seed(0)
        distiller = SequenceGAN(RNNLM(vocab_size=6, hidden=4), max_length=4, warmup=warmup, opponent_steps=2)
        fit(distiller, distiller.transfer_set(data), epochs=2)
        notes.append(distiller.notes)
    assert notes == [{"game": "the training has 4 steps, too few for a step of the student in the game"}, {}]


def test_the_game_moves_a_student_towards_what_the_discriminator_takes_for_real(fit):
    data = OracleStrings(tokens=4, length=4, n_train=256, n_test=8, batch_size=64)
    data.setup()
    torch.manual_seed(0)
    student = RNNLM(vocab_size=5, hidden=8)
    before = data.oracle_nll(student)
    options = {"warmup": 0.0, "discriminator_warmup": 0.2, "opponent_steps": 1}
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731
    distiller = SequenceGAN(student, max_length=4, optimizer=adam, **options)
    fit(distiller, distiller.transfer_set(data), epochs=25)
    assert data.oracle_nll(student) < before - 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "mean"}, "baseline must be one of none, leave_one_out, learned, got 'mean'"),
        ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
        ({"strings": 1}, "strings must be an integer >= 2, got 1"),
        ({"strings": 0, "baseline": "none"}, "strings must be an integer >= 1, got 0"),
        ({"rollouts": -1}, "rollouts must be an integer >= 0, got -1"),
        ({"warmup": 0.9, "discriminator_warmup": 0.1}, r"warmup \+ discriminator_warmup must be below 1.*0.9 \+ 0.1"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        SequenceGAN(small_model(), **options)


def test_a_student_that_is_not_a_language_model_is_refused():
    with pytest.raises(ConfigError, match="SequenceGAN needs a language model as student, got Linear"):
        SequenceGAN(nn.Linear(2, 2))


def test_a_student_for_shorter_strings_is_refused_before_the_training():
    student = TransformerLM(vocab_size=4, width=8, heads=2, max_length=2)
    with pytest.raises(ConfigError, match="max_length=2 tokens is too short for a sequence of 3"):
        SequenceGAN(student, max_length=8).dry_run({name: value[:, :2] for name, value in real_strings(2).items()})
