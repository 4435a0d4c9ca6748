"""Real images as the initial images of a synthetic set."""

import pytest
import torch
from torch import nn

from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.initial_images import INITIAL_IMAGES, set_real_images
from kdzoo.dataset_distillation.selection import SELECTIONS, select
from kdzoo.errors import DataError

CLASSES = 4


def make_set(**options):
    torch.manual_seed(0)
    inner_network = {"linear": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(6, CLASSES)))}
    return SyntheticSet(in_shape=(2, 3), num_classes=CLASSES, inner_network=inner_network, **options)


@pytest.fixture
def data():
    torch.manual_seed(1)
    return torch.randn(40, 2, 3), torch.arange(40) % CLASSES


def test_names_are_noise_and_all_selections():
    assert ("noise", *SELECTIONS) == INITIAL_IMAGES


@pytest.mark.parametrize("selection", SELECTIONS)
def test_images_are_the_selection_in_the_order_of_the_initial_labels(selection, data):
    synthetic_set = make_set(per_class=3)
    synthetic_set.labels.data.normal_()
    set_real_images(synthetic_set, selection, *data, seed=5)
    images, classes = select(selection, *data, 3, CLASSES, 5)
    assert torch.equal(synthetic_set.images, images)
    assert torch.equal(synthetic_set.labels, nn.functional.one_hot(classes, CLASSES).float())
    assert synthetic_set.images.requires_grad


def test_classes_may_have_different_numbers_of_examples(data):
    synthetic_set = make_set(examples=6)
    set_real_images(synthetic_set, "random", *data, seed=0)
    assert synthetic_set.classes().tolist() == [0, 0, 1, 2, 2, 3]
    for image, c in zip(synthetic_set.images.detach(), synthetic_set.classes(), strict=True):
        assert any(torch.equal(image, sample) for sample in data[0][data[1] == c])


def test_with_fewer_examples_than_classes_an_example_is_the_mean_of_an_image_of_each_of_its_classes(data):
    synthetic_set = make_set(examples=2)
    set_real_images(synthetic_set, "mean", *data, seed=0)
    means = torch.stack([data[0][data[1] == c].mean(0) for c in range(CLASSES)])
    expected = torch.stack([means[:2].mean(0), means[2:].mean(0)])
    torch.testing.assert_close(synthetic_set.images.detach(), expected)
    assert synthetic_set.labels.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]


def test_images_are_projected_onto_the_range_of_pixels(data):
    synthetic_set = make_set(pixel_range=[-0.5, 0.5])
    set_real_images(synthetic_set, "random", *data, seed=0)
    images, _ = select("random", *data, 1, CLASSES, 0)
    assert images.abs().max() > 0.5
    assert torch.equal(synthetic_set.images, images.clamp(-0.5, 0.5))


def test_too_few_images_of_a_class_are_refused(data):
    with pytest.raises(DataError, match="class 0 has 10 labelled samples, per_class needs 11"):
        set_real_images(make_set(per_class=11), "random", *data, seed=0)
