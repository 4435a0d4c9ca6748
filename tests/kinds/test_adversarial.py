"""The kinds of generators with a discriminator."""

import pytest
import torch

from kdzoo import kinds
from kdzoo.data import Digits
from kdzoo.errors import ConfigError
from kdzoo.kinds import AdversarialAutoencoderKind, AdversarialKind, VAEGANKind
from kdzoo.models import GAN, HVAE, MLP


def gan(**options):
    torch.manual_seed(0)
    return GAN(in_shape=(1, 8, 8), latent=3, width=4, discriminator_width=4, **options)


MODELS = [
    ({}, AdversarialKind),
    ({"encoder": True}, VAEGANKind),
    ({"encoder": True, "discriminated": "code"}, AdversarialAutoencoderKind),
]


@pytest.mark.parametrize(("options", "kind"), MODELS)
def test_encoder_and_discriminator_decide_on_the_kind_and_its_training(options, kind):
    found = kinds.kind_of(gan(**options))
    assert type(found) is kind
    found.check_teacher_free(gan(**options))


def test_all_are_graphical_models_for_a_method_and_not_the_other_way_round():
    for options, _ in MODELS:
        kinds.check_supported("student", kinds.kind_of(gan(**options)), ("graphical_model",), "SemiAuxiliary")
    hierarchy = HVAE(in_shape=(1, 8, 8), latents=[2], width=4)
    for model in (hierarchy, MLP(in_shape=(4,), num_classes=2), gan(encoder=True)):
        with pytest.raises(ConfigError, match=r"needs a kdzoo\.models.GAN without an encoder"):
            kinds.check_supported("student", kinds.kind_of(model), ("adversarial",), "Adversarial")


def test_samples_are_measured_with_the_features_of_the_data(tmp_path):
    data = Digits(labels_per_class=None)
    data.setup()
    kind = AdversarialKind().bind(data, tmp_path)
    assert type(kind) is AdversarialKind
    predictions = kind.predict(gan(), list(data.test_dataloader()))
    assert kind.metrics(predictions)["frechet"] > 0
    assert predictions.pictures.shape[1:] == (1, 8, 8)
