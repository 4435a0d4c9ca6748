"""Training of a generator against its discriminator."""

import itertools

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from kdzoo.data import Digits
from kdzoo.distillers import Adversarial
from kdzoo.distillers.generative.batch_noise import unpack_noise
from kdzoo.errors import ConfigError
from kdzoo.functional.adversarial import FORMS, generator_loss
from kdzoo.models import GAN


def gan(**options):
    torch.manual_seed(0)
    defaults = {"in_shape": (1, 8, 8), "latent": 3, "width": 4, "discriminator_width": 4}
    return GAN(**(defaults | options))


def trained_parts(distiller, batch, name):
    """Return which parts of the model the gradient of a term reaches."""
    distiller.zero_grad()
    distiller.losses(batch)[name].sum().backward()
    reached = [key for key, parameter in distiller.student.named_parameters() if parameter.grad is not None]
    return {
        "discriminator" if key.startswith("discriminator") else "encoder" if "posterior" in key else "generator"
        for key in reached
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("penalty", ["none", "r1", "gradient"])
def test_each_term_reaches_one_player(form, penalty):
    distiller = Adversarial(gan(spectral_norm=penalty == "none"), form=form, penalty=penalty)
    batch = {"input": torch.rand(5, 1, 8, 8)}
    assert trained_parts(distiller, batch, "generator") == {"generator"}
    for name in ("real", "generated", *([] if penalty == "none" else ["penalty"])):
        assert trained_parts(distiller, batch, name) == {"discriminator"}


def test_generated_samples_have_the_classes_of_the_batch():
    torch.manual_seed(0)
    model = gan(conditional=True, num_classes=3)
    batch = {"input": torch.rand(4, 1, 8, 8), "target": torch.tensor([0, 2, 1, 2]), "noise.z": torch.zeros(4, 3)}
    samples = Adversarial(model).play(batch)
    assert torch.equal(samples[1], samples[3])  # the same noise and class
    assert not torch.equal(samples[0], samples[1])


def test_a_loss_without_a_bound_needs_a_bounded_discriminator():
    with pytest.raises(ConfigError, match="form='wasserstein' has no bound, so that it needs a penalty"):
        Adversarial(gan(), form="wasserstein", penalty="none")
    Adversarial(gan(spectral_norm=True), form="wasserstein", penalty="none")


def test_data_that_the_generator_cannot_generate_are_refused():
    batch = {"input": 2 * torch.rand(5, 1, 8, 8) - 1}
    with pytest.raises(
        ConfigError, match=r"the generator's output is 'sigmoid', .* from -0\.\d+ to 0\.\d+; set output"
    ):
        Adversarial(gan()).prepare(batch)
    Adversarial(gan(output="linear")).prepare(batch)


def test_noise_comes_with_the_batch_and_differs_between_epochs():
    data = Digits(labels_per_class=None, batch_size=32)
    data.setup()
    noisy = Adversarial(gan()).transfer_set(data)
    batch = next(iter(noisy.train_dataloader()))
    assert batch["input"].shape == (32, 1, 8, 8)
    assert unpack_noise(batch)["z"].shape == (32, 3)
    assert batch["between"].shape == (32,)
    assert not torch.equal(noisy.noise(0, batch["index"])["noise.z"], noisy.noise(1, batch["index"])["noise.z"])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_generator_learns_mean_and_deviation_of_a_normal_distribution(seed):
    torch.manual_seed(seed)
    options = {"network": "mlp", "output": "linear", "width": 16, "discriminator_width": 16, "average": 0.99}
    model = GAN(in_shape=(1,), latent=2, **options)
    batches = [{"input": 3 + 0.5 * torch.randn(64, 1)} for _ in range(600)]
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    adam = lambda parameters: torch.optim.Adam(parameters, lr=2e-3, betas=(0.5, 0.999))  # noqa: E731
    trainer.fit(Adversarial(model, optimizer=adam, penalty="r1"), DataLoader(batches, batch_size=None))
    samples = model.eval()(torch.zeros(2000, 1)).detach()
    assert samples.mean().item() == pytest.approx(3.0, abs=0.25)
    assert 0.2 < samples.std().item() < 0.9


@pytest.mark.parametrize(("opponent_lr", "has_won"), [(3000.0, True), (1.0, False)])
def test_a_discriminator_that_has_won_is_warned_of(opponent_lr, has_won, fit):
    data = Digits(labels_per_class=None, batch_size=64)
    data.setup()
    slow = lambda parameters: torch.optim.Adam(parameters, lr=1e-6)  # noqa: E731
    model = gan(network="mlp", width=8, discriminator_width=32)
    distiller = Adversarial(model, optimizer=slow, penalty="none", opponent_lr=opponent_lr)
    fit(distiller, distiller.transfer_set(data), epochs=9)
    assert ("discriminator" in distiller.warnings) == has_won
    assert (distiller.state_dict()["epochs_won"] > 0) == has_won


# ---------------------------------------------------------------- discrete samples


def discrete(estimator, output="bits", **options):
    """Return the training in float64 of a generator of few discrete values, with a discriminator that tells apart."""
    model = gan(in_shape=(2, 2), network="mlp", output=output, average=0.0, latent=2, discriminator_width=8).double()
    with torch.no_grad():
        for parameter in model.discriminator.parameters():
            parameter *= 3
    return Adversarial(model, estimator=estimator, penalty="none", form="least_squares", **options)


def all_samples(output):
    samples = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).unflatten(1, (2, 2))
    return samples if output == "bits" else samples[(samples.sum(2) == 1).all(1)]


def gradient(distiller, objective):
    weights = [p for p in distiller.student.targets()["image"].parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(objective, weights)])


def batch_of(rows, distiller, z):
    """Return a batch whose rows have one latent and independent noise of the samples."""
    noise = distiller.draw_noise(rows)
    return {"input": torch.zeros(rows, 2, 2), **noise, "noise.z": z.expand(rows, -1)}


@pytest.mark.parametrize("output", ["bits", "classes"])
def test_the_score_function_is_unbiased(output):
    distiller, z = discrete("reinforce", output, samples=3), torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    samples = all_samples(output)
    probabilities = distiller.student.log_prob(samples, {"z": z.expand(len(samples), -1)}).exp()
    losses = generator_loss(distiller.student.discriminate(samples, {}), form="least_squares").detach()
    exact = gradient(distiller, (probabilities * losses).sum())
    torch.manual_seed(0)
    terms = (distiller.losses(batch_of(3000, distiller, z))["generator"].mean() for _ in range(60))
    estimates = torch.stack([gradient(distiller, term) for term in terms])
    directions = torch.stack([exact, torch.randn(len(exact), generator=torch.Generator().manual_seed(1)).double()])
    values, error = estimates @ directions.T, (estimates @ directions.T).std(0) / len(estimates) ** 0.5
    assert ((values.mean(0) - directions @ exact).abs() <= 3 * error).all()
    assert error[0] < 0.1 * exact.square().sum()  # a gradient of the wrong size would be noticed


def test_the_baseline_reduces_the_variance():
    distiller, z = discrete("reinforce"), torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    torch.manual_seed(0)
    spread = []
    for with_baseline in (True, False):
        estimates = []
        for _ in range(150):
            batch = batch_of(1, distiller, z)
            noise, _ = distiller._rows(batch)
            samples = distiller.play(batch)
            losses = generator_loss(distiller.student.discriminate(samples, {}), form="least_squares").detach()
            scores = distiller.student.log_prob(samples, noise)
            term = distiller.losses(batch)["generator"].mean() if with_baseline else (losses * scores).mean()
            estimates.append(gradient(distiller, term))
        spread.append(torch.stack(estimates).var(0).sum())
    assert spread[0] < 0.7 * spread[1]


def test_without_an_estimator_no_gradient_reaches_the_generator():
    distiller = discrete("none")
    assert not distiller.losses({"input": torch.rand(5, 2, 2).double()})["generator"].requires_grad
    assert "no gradient reaches the generator" in distiller.notes["estimator"]


@pytest.mark.parametrize("estimator", ["straight_through", "gumbel", "reinforce"])
@pytest.mark.parametrize("output", ["bits", "classes"])
def test_each_term_reaches_one_player_of_discrete_samples(estimator, output):
    distiller, batch = discrete(estimator, output), {"input": all_samples(output)[:4]}
    assert trained_parts(distiller, batch, "generator") == {"generator"}
    for name in ("real", "generated"):
        assert trained_parts(distiller, batch, name) == {"discriminator"}


def test_the_samples_of_the_score_function_share_their_latent():
    distiller = discrete("reinforce", samples=3)
    batch = {"input": torch.zeros(2, 2, 2), **distiller.draw_noise(2)}
    noise, _ = distiller._rows(batch)
    assert noise["z"].shape == (6, 2)
    assert torch.equal(noise["z"][0], noise["z"][2])
    assert noise["image"].shape == (6, 2, 2)
    assert len(noise["image"].unique()) == noise["image"].numel()
    assert {name: term.shape for name, term in distiller.losses(batch).items()} == dict.fromkeys(
        ("generator", "real", "generated", "penalty"), (2,)
    )


@pytest.mark.parametrize(("estimator", "learns"), [("none", False), ("straight_through", True), ("reinforce", True)])
def test_the_plain_scheme_fails_on_bits_and_the_others_learn(estimator, learns):
    """Four bits of which the first two are always 1 and the others 0."""
    torch.manual_seed(0)
    options = {"network": "mlp", "output": "bits", "width": 16, "discriminator_width": 16, "average": 0.0}
    model = GAN(in_shape=(4,), latent=2, **options)
    distance = lambda: (model.eval()(torch.zeros(1000, 4)) - pattern).abs().mean().item()  # noqa: E731
    pattern = torch.tensor([1.0, 1.0, 0.0, 0.0])
    before = distance()
    batches = [{"input": pattern.expand(32, 4)}] * 120
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    adam = lambda parameters: torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.999))  # noqa: E731
    trainer.fit(Adversarial(model, optimizer=adam, estimator=estimator), DataLoader(batches, batch_size=None))
    assert before > 0.3
    assert (distance() < 0.15) == learns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "ns"}, "form must be one of"),
        ({"penalty": "r2"}, "penalty must be one of none, r1, gradient, got 'r2'"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"estimator": "enumerate"}, "estimator must be one of none, straight_through, gumbel, reinforce, got"),
        ({"samples": 1}, "samples must be an integer >= 2, got 1"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"estimator": "reinforce"}, "estimator='reinforce' needs discrete samples: student.output=bits"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        Adversarial(gan(), **options)
