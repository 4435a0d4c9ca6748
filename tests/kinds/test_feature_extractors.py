"""Feature extractors of a data set: the cached classifier, a network from a file, and views of samples."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError, DataError
from kdzoo.kinds.feature_extractors import FITTED, FeatureExtractors, some_batches, steps_of
from kdzoo.metrics.extractors import PenultimateFeatures, PrincipalComponents, RandomConvNet


@pytest.fixture(scope="module")
def extractors(digits, tmp_path_factory) -> FeatureExtractors:
    return FeatureExtractors.of(digits, tmp_path_factory.mktemp("cache"))


def make_data(*batches: dict[str, Tensor], **members) -> SimpleNamespace:
    """Return a data module with these training batches and, as optional abilities, these members."""
    return SimpleNamespace(train_eval_dataloader=lambda: iter(batches), sizes={}, **members)


class Halved(nn.Module):
    """A network with the interface of Inception: every second pixel as features."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        small = images[:, :, ::2, ::2].flatten(1).float()
        return small if return_features else small[:, :2]


@pytest.fixture
def halved_file(tmp_path) -> str:
    path = tmp_path / "halved.pt"
    torch.jit.save(torch.jit.script(Halved()), path)
    return str(path)


# ---------------------------------------------------------------- which extractors there are


def test_labelled_images_have_a_classifier_a_random_network_and_principal_components(extractors, digits):
    types = [type(extractor) for extractor in extractors.extractors.values()]
    assert types == [PenultimateFeatures, RandomConvNet, PrincipalComponents]
    batch = next(iter(digits.test_dataloader()))
    logits = extractors.extractors["classifier"].model(extractors.view(batch["input"], None))
    assert float((logits.argmax(1) == batch["target"]).float().mean()) > 0.9


def test_images_without_labels_have_no_classifier(tmp_path):
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = FeatureExtractors.of(make_data({"input": images}), tmp_path)
    assert list(found.extractors) == ["random", "pixels"]
    # Twenty samples span nineteen directions around their mean.
    assert found.features(images, None)["pixels"].shape == (20, 19)


def test_vectors_are_their_own_features(tmp_path):
    points = torch.randn(6, 2)
    found = FeatureExtractors.of(make_data({"input": points}), tmp_path)
    assert found.extractors == {}
    features = found.features(points, None)
    assert list(features) == ["values"]
    assert torch.equal(features["values"], points.double())
    assert found.pictures(points, None) is None


def test_a_network_in_a_file_is_the_first_extractor(digits, halved_file, tmp_path):
    found = FeatureExtractors.of(digits, tmp_path, halved_file)
    assert list(found.extractors) == ["file", "classifier", "random", "pixels"]
    images = next(iter(digits.test_dataloader()))["input"][:5]
    features = found.features(images, None)
    # Gray images have three equal channels for such a network, resized to the least number of pixels that it takes.
    assert features["file"].shape == (5, 3 * 16)


def test_a_missing_file_is_refused(digits, tmp_path):
    with pytest.raises(DataError, match="missing"):
        FeatureExtractors.of(digits, tmp_path, str(tmp_path / "missing.pt"))


def test_a_file_for_data_that_are_not_images_is_refused(halved_file, tmp_path):
    with pytest.raises(ConfigError, match="feature_extractor is for images, and samples of SimpleNamespace are not"):
        FeatureExtractors.of(make_data({"input": torch.zeros(4, 2)}), tmp_path, halved_file)


# ---------------------------------------------------------------- views of samples


def test_images_are_unscaled_to_the_unit_interval(extractors, digits):
    images = next(iter(digits.test_dataloader()))["input"]
    pictures = extractors.pictures(images, None)
    assert pictures.shape == images.shape
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert pictures.max() > 0.9


def test_features_do_not_depend_on_how_samples_are_divided(extractors, digits, monkeypatch):
    images = next(iter(digits.test_dataloader()))["input"][:10]
    together = extractors.features(images, None)
    monkeypatch.setattr("kdzoo.kinds.feature_extractors.INPUTS_AT_ONCE", 3)
    for name, features in extractors.features(images, None).items():
        assert features.dtype == torch.float64
        torch.testing.assert_close(features, together[name], rtol=1e-5, atol=1e-5)


def test_sequences_are_viewed_as_the_summaries_of_their_data(tmp_path):
    def summaries(samples: Tensor, lengths: Tensor | None = None) -> Tensor:
        assert lengths is not None
        return torch.stack([sample[:length].sum(0) for sample, length in zip(samples, lengths, strict=True)])

    mask = torch.tensor([[True, True, False], [True, False, False]])
    batch = {"input": torch.arange(12.0).reshape(2, 3, 2), "mask": mask}
    data = make_data(batch, lengths=torch.tensor([2, 1]), summaries=summaries)
    found = FeatureExtractors.of(data, tmp_path)
    features = found.features(batch["input"], steps_of([batch]))
    assert features["values"].tolist() == [[2.0, 4.0], [6.0, 7.0]]


# ---------------------------------------------------------------- lengths and batches


def test_generated_sequences_have_lengths_of_the_data_and_equal_ones_in_equal_sets():
    extractors = FeatureExtractors(step_counts=torch.tensor([3, 5, 9]))
    lengths = extractors.lengths(100, 0)
    assert set(lengths.tolist()) == {3, 5, 9}
    assert torch.equal(lengths, extractors.lengths(100, 0))
    assert not torch.equal(lengths, extractors.lengths(100, 1))
    assert FeatureExtractors().lengths(100, 0) is None


def test_steps_are_counted_over_batches():
    masks = [torch.tensor([[True, True], [True, False]]), torch.tensor([[False, False]])]
    assert steps_of([{"mask": mask} for mask in masks]).tolist() == [2, 1, 0]
    assert steps_of([{"input": torch.zeros(2, 3)}]) is None


def test_batches_are_read_until_there_are_enough_samples():
    def batches():
        yield {"input": torch.zeros(4, 2)}
        yield {"input": torch.ones(4, 2)}
        raise AssertionError("a third batch was read")

    data = SimpleNamespace(train_eval_dataloader=batches)
    assert [len(batch["input"]) for batch in some_batches(data, 5)] == [4, 4]
    small = SimpleNamespace(train_eval_dataloader=lambda: [{"input": torch.zeros(4, 2)}])
    assert len(list(some_batches(small, FITTED))) == 1
