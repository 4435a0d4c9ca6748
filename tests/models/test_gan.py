"""Generator and discriminator as one graphical model."""

import itertools

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.kinds import count_parameters, kind_of
from kdzoo.models import GAN
from kdzoo.models.spectral_norm import SpectralNorm


def gan(**options):
    torch.manual_seed(0)
    return GAN(**({"in_shape": (1, 8, 8), "latent": 3, "width": 4, "discriminator_width": 4} | options))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 7, 9)])
@pytest.mark.parametrize("options", [{}, {"conditional": True, "num_classes": 4}, {"encoder": True}])
def test_samples_have_the_shape_of_the_data(shape, options):
    model = gan(in_shape=shape, **options)
    samples = model(torch.zeros(3, *shape))
    assert samples.shape == (3, *shape)
    assert ((samples >= 0) & (samples <= 1)).all()
    inputs = {"label": torch.eye(4)[:3]} if "conditional" in options else {}
    assert model.discriminate(samples, inputs).shape == (3,)


def test_samples_of_any_shape_by_fully_connected_networks():
    model = gan(in_shape=(2,), network="mlp", output="linear")
    assert model(torch.zeros(500, 2)).min() < 0


@pytest.mark.parametrize("output", ["bits", "classes"])
def test_discrete_samples_are_drawn_from_independent_values(output):
    model = gan(in_shape=(2, 3), network="mlp", output=output, average=0.0).eval()
    assert model.is_discrete
    assert not gan().is_discrete
    assert set(model.noise(4)) == {"z", "image"}
    noise = {name: value[:1].expand(20_000, *value.shape[1:]) for name, value in model.noise(1).items()}
    torch.manual_seed(1)
    samples = model.samples({"z": noise["z"], "image": torch.rand(20_000, 2, 3)})
    assert samples.unique().tolist() == [0, 1]
    logits = model.targets()["image"].conditional.net(noise["z"][:1])[0]
    expected = logits.sigmoid() if output == "bits" else logits.softmax(-1)
    assert (samples.mean(0) - expected).abs().max() < 0.015
    if output == "classes":
        assert (samples.sum(2) == 1).all()


@pytest.mark.parametrize("output", ["bits", "classes"])
def test_the_probabilities_of_all_discrete_samples_add_up_to_one(output):
    model = gan(in_shape=(2, 2), network="mlp", output=output).double()
    rows = list(itertools.product((0.0, 1.0), repeat=4))
    samples = torch.tensor(rows, dtype=torch.float64).unflatten(1, (2, 2))
    if output == "classes":
        samples = samples[(samples.sum(2) == 1).all(1)]
    noise = {"z": torch.randn(1, 3, dtype=torch.float64).expand(len(samples), -1)}
    log_probs = model.log_prob(samples, noise)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert log_probs.requires_grad


def test_observed_bits_are_one_above_one_half():
    model, batch = gan(in_shape=(3,), network="mlp", output="bits"), {"input": torch.tensor([[0.2, 0.5, 0.7]])}
    assert model.observed_targets(batch, {})["image"].tolist() == [[0, 0, 1]]
    grey = gan(in_shape=(3,), network="mlp").observed_targets(batch, {})["image"]
    assert torch.equal(grey, batch["input"])


def test_discrete_samples_cannot_be_encoded():
    with pytest.raises(ConfigError, match="encoder=true needs output=sigmoid or output=linear, got output='bits'"):
        gan(output="bits", encoder=True)


def test_the_class_changes_samples_and_logits():
    model, noise = gan(conditional=True, num_classes=3).eval(), {"z": torch.zeros(3, 3)}
    samples = model.samples(noise, {"label": torch.eye(3)})
    assert not torch.equal(samples[0], samples[1])
    logits = model.discriminate(samples[:1].expand(3, -1, -1, -1), {"label": torch.eye(3)})
    assert len(set(logits.tolist())) == 3


def test_samples_in_eval_mode_are_those_of_the_average():
    model, noise = gan(norm=None), {"z": torch.ones(1, 3)}
    before = model.eval().samples(noise)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    assert torch.equal(model.samples(noise), before)
    assert not torch.equal(model.train().samples(noise), before)


def test_the_size_leaves_out_the_average_and_the_generative_part_the_discriminator():
    model = gan()
    generator = sum(parameter.numel() for parameter in model.targets()["image"].parameters())
    discriminator = sum(parameter.numel() for parameter in model.discriminator.parameters())
    assert count_parameters(kind_of(model), model) == generator + discriminator
    assert kind_of(model).properties(model) == {"generative_parameters": generator}


def test_all_layers_of_the_discriminator_are_normalised_on_request():
    normalised = [m for m in gan(spectral_norm=True).discriminator.modules() if isinstance(m, SpectralNorm)]
    assert len(normalised) == 3
    assert not [m for m in gan().discriminator.modules() if isinstance(m, SpectralNorm)]


@pytest.mark.parametrize("options", [{}, {"in_shape": (2,), "network": "mlp"}])
def test_discriminators_have_leaky_rectifiers_and_generators_plain_ones(options):
    model = gan(**options)
    slopes = {m.negative_slope for m in model.discriminator.modules() if isinstance(m, torch.nn.LeakyReLU)}
    assert slopes == {0.2}
    assert not [m for m in model.discriminator.modules() if isinstance(m, torch.nn.ReLU)]
    assert not [m for m in model.targets()["image"].modules() if isinstance(m, torch.nn.LeakyReLU)]


def test_the_kind_depends_on_encoder_and_discriminator():
    assert kind_of(gan()).teacher_free == "kdzoo.distillers.Adversarial"
    assert kind_of(gan(encoder=True)).teacher_free == "kdzoo.distillers.VAEGAN"
    codes = gan(encoder=True, discriminated="code")
    assert kind_of(codes).teacher_free == "kdzoo.distillers.AdversarialAutoencoder"
    assert codes.discriminate(torch.zeros(2, 3), {}).shape == (2,)


def test_codes_are_inferred_by_the_encoder():
    model = gan(encoder=True)
    trace = model.rollout(model.noise(2), forced={"image": torch.rand(2, 1, 8, 8)}, infer=True)
    assert trace.posteriors["z"].mean.shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent must be an integer >= 1, got 0"),
        ({"network": "resnet"}, "network must be one of mlp, conv, got 'resnet'"),
        ({"output": "tanh"}, "output must be one of sigmoid, linear, bits, classes, got 'tanh'"),
        ({"conditional": True}, "num_classes must be an integer >= 1 where conditional is true, got None"),
        ({"average": 1.0}, r"decay must be in \[0, 1\), got 1.0"),
        ({"discriminated": "codes"}, "discriminated must be one of image, code, got 'codes'"),
        ({"discriminated": "code"}, "discriminated='code' needs encoder=true"),
        ({"depth": 4}, "in_shape must be at least 16 x 16"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        gan(**options)
