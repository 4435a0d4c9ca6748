"""The classes of samples: accuracies in both directions, classes that are missed, and collapsed generators."""

import pytest
import torch
from torch import Tensor, nn

from kdzoo.graphical_models import Categorical, Delta, Graph, Input, Latent, Normal, Target
from kdzoo.kinds import class_scores
from kdzoo.kinds.sample_sets import StoredSamples, draw_samples
from kdzoo.models import GAN, HVAE


class Recalled(nn.Module):
    """A training image of the asked class, chosen by the noise among the first few of that class."""

    def __init__(self, images: list[Tensor]) -> None:
        super().__init__()
        self.images = images  # by class, each [n, 1, 8, 8]

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        shares = torch.special.ndtr(z[:, 0])
        sets = [self.images[int(c)] for c in label.argmax(1)]
        return torch.stack([known[int(share * len(known))] for known, share in zip(sets, shares, strict=True)])


@pytest.fixture(scope="module")
def images(digits) -> list[Tensor]:
    batches = list(digits.train_eval_dataloader())
    inputs, targets = (torch.cat([batch[key] for batch in batches]) for key in ("input", "target"))
    return [inputs[targets == c] for c in range(10)]


def recalling(images: list[Tensor]) -> Graph:
    """Return a model with a condition that generates these images."""
    return Graph(
        [
            Input("label", Categorical((10,)), source="target"),
            Latent("z", Normal((1,))),
            Target("image", Delta((1, 8, 8)), Recalled(images), ("z", "label"), source="input"),
        ]
    )


def scores_of(classifier, digits, model) -> dict[str, float]:
    batches = list(digits.test_dataloader())
    targets = torch.cat([batch["target"] for batch in batches])
    inputs = {"label": torch.eye(10)[targets]} if model.inputs() else {}
    samples = draw_samples(model, len(targets), 0, inputs)
    return class_scores.class_scores(classifier, model, samples, batches)


def test_a_model_that_recalls_the_data_has_the_accuracies_of_the_data(classifier, digits, images):
    batches = list(digits.test_dataloader())
    reference = class_scores.class_scores(
        classifier, StoredSamples(batches[0]["input"], batches[0]["input"]), batches[0]["input"], batches
    )
    scores = scores_of(classifier, digits, recalling(images))
    assert scores["gan_test_accuracy"] > 0.97  # training images
    assert scores["gan_train_accuracy"] == pytest.approx(reference["classifier_accuracy"], abs=0.03)
    assert scores["missed_classes"] == reference["missed_classes"] == 0
    assert "gan_train_accuracy" not in reference


def test_one_image_of_each_class_is_rewarded_in_one_direction_alone(classifier, digits, images):
    scores = scores_of(classifier, digits, recalling([own[:1] for own in images]))
    assert scores["gan_test_accuracy"] == 1
    assert scores["gan_train_accuracy"] < 0.85


def test_wrong_labels_are_found_in_both_directions(classifier, digits, images):
    scores = scores_of(classifier, digits, recalling(images[1:] + images[:1]))
    assert scores["gan_test_accuracy"] < 0.03
    assert scores["gan_train_accuracy"] < 0.05


def test_a_model_of_a_single_class_misses_the_others(classifier, digits, images):
    scores = scores_of(classifier, digits, recalling([images[3]] * 10))
    assert scores["missed_classes"] == 9
    assert "lack 9 of the classes" in class_scores.collapse(scores | {"precision": 0.9})


def test_models_without_a_condition_have_no_labels_to_compare(classifier, digits):
    model = GAN(in_shape=(1, 8, 8), latent=2, width=4).eval()
    assert class_scores.condition_of(model) is None
    assert scores_of(classifier, digits, model).keys() == {"missed_classes"}
    conditional = HVAE(in_shape=(1, 8, 8), num_classes=10, latents=[2], conditional=True)
    assert class_scores.condition_of(conditional) == "label"
    assert class_scores.condition_of(nn.Identity()) is None


@pytest.mark.parametrize(
    ("metrics", "begins"),
    [
        ({"missed_classes": 2.0, "precision": 0.9, "recall": 0.5}, "its samples lack 2"),
        ({"missed_classes": 0.0, "precision": 0.9, "recall": 0.05}, "its samples look like data (precision 0.90)"),
        (
            {"missed_classes": 9.0, "precision": 0.2, "recall": 0.0},
            "its samples do not look like data (precision 0.20) and",
        ),
        ({"precision": 0.9, "recall": 0.5}, None),
        ({"precision": 0.1, "recall": 0.0}, None),  # poor samples, but not collapsed ones
        ({}, None),
    ],
)
def test_collapsed_models_are_named(metrics, begins):
    warning = class_scores.collapse(metrics)
    assert warning is None if begins is None else warning.startswith(begins)
