"""Coresets: the selected images, and the step size after which networks have the highest accuracy."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation import coreset as module
from kdzoo.dataset_distillation.coreset import coreset
from kdzoo.dataset_distillation.selection import select

CLASSES = 3


def make_set(**options):
    torch.manual_seed(0)
    inner_network = {
        "linear": InnerNetwork(nn.Linear(5, CLASSES)),
        "deep": InnerNetwork(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, CLASSES))),
    }
    return SyntheticSet(in_shape=(5,), num_classes=CLASSES, inner_network=inner_network, per_class=2, **options)


@pytest.fixture
def data():
    torch.manual_seed(1)
    inputs = torch.randn(400, 5)
    return inputs, (inputs @ torch.randn(5, CLASSES)).argmax(1)


def test_images_and_labels_are_the_selection_and_the_given_set_is_unchanged(data):
    synthetic_set = make_set()
    before = {name: value.clone() for name, value in synthetic_set.state_dict().items()}
    result = coreset(synthetic_set, "herding", *data, seed=4)
    images, classes = select("herding", *data, 2, CLASSES, 4)
    assert torch.equal(result.images, images)
    assert torch.equal(result.classes(), classes)
    assert torch.equal(result.hard_labels(), result.labels)
    assert all(torch.equal(synthetic_set.state_dict()[name], value) for name, value in before.items())


def accuracy_after(result, name, size, inputs, targets):
    """Return the mean accuracy of five networks after plain gradient descent with a constant step size."""
    inner_network, accuracies = result.inner_networks[name], []
    for weights in inner_network.sample(5, torch.Generator().manual_seed(0)):
        weights = weights.clone().requires_grad_()
        for _ in range(result.steps):
            logits = inner_network.logits(weights[None], result.images.detach())[0]
            (gradient,) = torch.autograd.grad(cross_entropy(logits, result.labels.detach()), weights)
            weights = (weights - size * gradient).detach().requires_grad_()
        predicted = inner_network.logits(weights.detach()[None], inputs)[0].argmax(1)
        accuracies.append(float((predicted == targets).double().mean()))
    return sum(accuracies) / len(accuracies)


def test_each_inner_network_has_the_candidate_of_the_highest_accuracy(data):
    result = coreset(make_set(steps=6), "mean", *data, seed=0)
    for name in ("linear", "deep"):
        accuracies = [accuracy_after(result, name, size, *data) for size in module.CANDIDATE_STEP_SIZES]
        sizes = result.schedule(name).tolist()
        assert len(set(sizes)) == 1
        best = min(range(len(accuracies)), key=lambda i: abs(module.CANDIDATE_STEP_SIZES[i] - sizes[0]))
        assert sizes[0] == pytest.approx(module.CANDIDATE_STEP_SIZES[best])
        # Rounding may let one of 400 samples change its class.
        assert accuracies[best] >= max(accuracies) - 1 / len(data[1])
        assert max(accuracies) > min(accuracies) + 0.05


def test_the_seed_selects_the_samples_on_which_step_sizes_are_compared(data, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "EVALUATION_SAMPLES", 50)
    monkeypatch.setattr(module, "_accuracy", lambda *args: seen.append(args[3]) or 0.0)
    for seed in (0, 0, 1):
        coreset(make_set(), "mean", *data, seed=seed)
    calls = len(seen) // 3
    first, same, other = (seen[i * calls] for i in range(3))
    assert first.shape == (50, 5)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert all(torch.equal(samples, first) for samples in seen[:calls])  # the comparison is paired


def test_where_every_training_diverges_the_smallest_step_size_is_taken():
    inputs, targets = torch.full((30, 5), 1e30), torch.arange(30) % CLASSES
    result = coreset(make_set(steps=3), "random", inputs, targets, seed=0)
    # Every candidate diverges and guesses, so that all are equal: the first and smallest one is taken.
    assert result.schedule("linear").tolist() == pytest.approx([module.CANDIDATE_STEP_SIZES[0]] * 3)
