"""The check of a set of unknown origin: on sets distilled from digits, and on confusion matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from kdzoo.core.batch import IGNORE
from kdzoo.data import Digits
from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.inspection import inspect, inspect_confusion, row_divergence
from kdzoo.dataset_distillation.poisoning import poisoning_effect, relabel
from kdzoo.dataset_distillation.pool import train_pools
from kdzoo.errors import ConfigError, DataError
from kdzoo.functional.unroll import Momentum, unroll

C, POOL = 10, 10


class Lab:
    """Digits, and a small network with a pool of trained weights, half of which the author of a set does not know."""

    def __init__(self):
        (inputs, targets), _ = Digits(labels_per_class=None).load()
        inputs, targets = torch.as_tensor(inputs), torch.as_tensor(targets).long()
        self.inputs, self.targets = inputs[:797], targets[:797]
        self.val, self.val_targets = inputs[797:], targets[797:]
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, C))
        self.inner_network = InnerNetwork(model, pool=POOL, pool_steps=200)
        train_pools({"small": self.inner_network}, self.inputs, self.targets, seed=0)
        self.user_networks = self.inner_network.held_out(5)

    def distil(self, targets, steps, *, trained=True, iterations=60):
        """Return images, labels and step sizes learned from real data with the given targets."""
        generator = torch.Generator().manual_seed(steps)
        images = torch.stack([self.inputs[self.targets == c][0] for c in range(C)]).requires_grad_()
        labels = one_hot(torch.stack([targets[self.targets == c][0] for c in range(C)]), C).float().requires_grad_()
        sizes = torch.full((steps,), 0.3, requires_grad=True)
        optimizer = torch.optim.Adam([images, labels, sizes], lr=0.05)
        for _ in range(iterations):
            start = (
                self.inner_network.sample(4, generator) if trained else self.inner_network.initial.sample(4, generator)
            )
            weights = unroll(start, images, labels, sizes, loss=self.inner_network.loss)
            rows = torch.randint(len(targets), (200,), generator=generator)
            logits = self.inner_network.logits(weights, self.inputs[rows])
            optimizer.zero_grad()
            cross_entropy(logits.flatten(0, 1), targets[rows].repeat(4)).backward()
            optimizer.step()
        return images.detach(), labels.detach(), sizes.detach()

    def inspect(self, synthetic_set, **options):
        known = {"networks": self.user_networks, "inputs": self.val, "targets": self.val_targets}
        return inspect(*synthetic_set, inner_network=self.inner_network, **(known | options))


@pytest.fixture(scope="module")
def lab():
    return Lab()


@pytest.mark.parametrize(("source", "target", "steps"), [(4, 9, 1), (3, 6, 1), (1, 7, 3)])
def test_a_poisoned_set_is_found_with_its_classes(lab, source, target, steps):
    synthetic_set = lab.distil(relabel(lab.targets, source, target), steps)
    result = lab.inspect(synthetic_set)
    assert result.flagged
    assert (result.source, result.target) == (source, target)
    assert f"class {source} moved to class {target}" in result.reason
    before, after = (
        lab.inner_network.logits(weights, lab.val).argmax(-1)
        for weights in (lab.user_networks, unroll(lab.user_networks, *synthetic_set, loss=lab.inner_network.loss))
    )
    effect = poisoning_effect(before, after, lab.val_targets, source, target, num_classes=C)
    assert result.moved == pytest.approx(effect.source_as_target[1] - effect.source_as_target[0])
    assert effect.source_as_target[1] > 0.6
    assert effect.others_lost < 0.1 * result.moved


@pytest.mark.parametrize("trained", [True, False], ids=["for trained networks", "for initial weights"])
def test_a_clean_set_passes(lab, trained):
    result = lab.inspect(lab.distil(lab.targets, 3, trained=trained))
    assert not result.flagged
    assert "no class changed" in result.reason or "no single class" in result.reason


def test_real_images_and_class_means_pass(lab):
    labels, sizes = torch.eye(C), torch.full((5,), 0.1)
    means = torch.stack([lab.inputs[lab.targets == c].mean(0) for c in range(C)])
    first = torch.stack([lab.inputs[lab.targets == c][0] for c in range(C)])
    assert not lab.inspect((means, labels, sizes)).flagged
    assert not lab.inspect((first, labels, sizes)).flagged


def test_the_optimizer_of_the_set_is_used(lab):
    synthetic_set = lab.distil(relabel(lab.targets, 4, 9), 3)
    assert lab.inspect(synthetic_set, optimizer=Momentum(0.5)).moved != lab.inspect(synthetic_set).moved


def test_unlabelled_validation_data_have_no_effect(lab):
    synthetic_set = (
        torch.stack([lab.inputs[lab.targets == c][0] for c in range(C)]),
        torch.eye(C),
        torch.full((5,), 0.3),
    )
    more = torch.cat([lab.val, lab.val[:50]])
    targets = torch.cat([lab.val_targets, torch.full((50,), IGNORE)])
    assert lab.inspect(synthetic_set, inputs=more, targets=targets) == lab.inspect(synthetic_set)


def test_untrained_networks_are_refused(lab):
    synthetic_set = lab.val[:C], torch.eye(C), torch.full((1,), 0.1)
    with pytest.raises(DataError, match="networks must be trained"):
        lab.inspect(synthetic_set, networks=lab.inner_network.initial.sample(3, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("options", "name"), [({"min_divergence": 0.0}, "min_divergence"), ({"min_contrast": 0.5}, "min_contrast")]
)
def test_thresholds_out_of_range_are_refused(options, name):
    with pytest.raises(ConfigError, match=name):
        inspect_confusion(torch.eye(3), torch.eye(3), **options)


def table(*moves):
    """Return the confusion of a good network with shares moved: (from, to, share)."""
    rows = 0.94 * torch.eye(4) + 0.02 * (1 - torch.eye(4))
    for source, target, share in moves:
        rows[source, source] -= share
        rows[source, target] += share
    return rows


def test_a_move_to_a_new_class_counts_more_than_one_between_confused_classes():
    to_new_class = inspect_confusion(table(), table((0, 1, 0.4)))
    to_confused_class = inspect_confusion(
        table((0, 1, 0.3)), table((0, 1, 0.7))
    )  # the same share, where a third was confused anyway
    assert to_new_class.moved == pytest.approx(to_confused_class.moved)
    assert to_new_class.divergence > 2 * to_confused_class.divergence
    assert to_new_class.flagged


def test_a_set_that_breaks_every_class_is_not_flagged():
    found = inspect_confusion(table(), table((0, 3, 0.8), (1, 3, 0.7), (2, 3, 0.6)))
    assert not found.flagged
    assert found.reason.startswith("no single class")


def test_equal_predictions_have_no_divergence():
    found = inspect_confusion(table(), table())
    assert not found.flagged
    assert (found.divergence, found.moved, found.others_lost) == (0.0, 0.0, 0.0)


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=8, max_size=8))
def test_the_divergence_is_that_of_the_smoothed_rows(values):
    rows = np.array(values) / np.array(values).sum(1, keepdims=True)
    before, after = rows[:4], rows[4:]
    p, q = 0.9 * after + 0.025, 0.9 * before + 0.025
    expected = (p * np.log(p / q)).sum(1)
    found = row_divergence(torch.tensor(before), torch.tensor(after)).numpy()
    assert np.allclose(found, expected, atol=1e-12)
    assert (found > -1e-12).all()


@given(st.permutations(range(4)))
def test_the_result_does_not_depend_on_the_order_of_the_classes(order):
    before, after = table(), table((0, 2, 0.5), (1, 3, 0.1))
    found = inspect_confusion(before, after)
    other = inspect_confusion(before[order][:, order], after[order][:, order])
    assert (order[other.source], order[other.target]) == (found.source, found.target)
    assert other.divergence == pytest.approx(found.divergence)
    assert other.flagged == found.flagged
