"""The classifier of a data set by which samples are measured: trained once, and a function of the data."""

from pathlib import Path

import pytest
import torch

from kdzoo.core.batch import IGNORE
from kdzoo.data import Digits
from kdzoo.kinds import evaluation_classifier
from kdzoo.kinds.evaluation_classifier import EvaluationClassifier


def state_and_draw(data: Digits, cache: Path, seed: int) -> tuple[dict[str, list[float]], float]:
    """Return the weights of the classifier, and the next number from the global random state."""
    torch.manual_seed(seed)
    network = EvaluationClassifier.of(data, lambda samples: samples, cache).network
    return {name: value.tolist() for name, value in network.state_dict().items()}, float(torch.rand(()))


def test_the_classifier_is_trained_once_and_is_a_function_of_the_data(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_classifier, "STEPS", 20)
    first = state_and_draw(digits, tmp_path, seed=0)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert written
    monkeypatch.setattr(evaluation_classifier, "_trained", None)  # now from the cache
    assert state_and_draw(digits, tmp_path, seed=0) == first
    assert state_and_draw(digits, tmp_path, seed=1)[0] == first[0]
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_another_training_split_has_another_classifier(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_classifier, "STEPS", 2)
    other = Digits(labels_per_class=None, train_size=100)
    other.setup()
    assert state_and_draw(other, tmp_path, seed=0)[0] != state_and_draw(digits, tmp_path, seed=0)[0]


def test_the_accuracy_counts_labelled_samples_alone(classifier, digits):
    batch = next(iter(digits.test_dataloader()))
    accuracy = classifier.accuracy(batch["input"], batch["target"])
    assert accuracy > 0.9
    assert classifier.classes(batch["input"]).eq(batch["target"]).double().mean() == pytest.approx(accuracy)
    half = batch["target"].clone()
    half[::2] = IGNORE
    labelled = batch["input"][1::2], batch["target"][1::2]
    assert classifier.accuracy(batch["input"], half) == pytest.approx(classifier.accuracy(*labelled))


def test_a_classifier_that_is_trained_on_other_labels_learns_them(classifier, digits):
    batches = list(digits.train_eval_dataloader())
    images = torch.cat([batch["input"] for batch in batches])
    shifted = (torch.cat([batch["target"] for batch in batches]) + 3) % 10
    other = classifier.retrained(images, shifted, 10)
    test = next(iter(digits.test_dataloader()))
    assert other.accuracy(test["input"], (test["target"] + 3) % 10) > 0.9
    assert other.accuracy(test["input"], test["target"]) < 0.1
