"""The coreset method: collecting labelled samples, the selection after one epoch, and what its loss measures."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.core.batch import IGNORE
from kdzoo.data import ArrayData
from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.coreset import coreset
from kdzoo.dataset_distillation.pool import train_pools
from kdzoo.distillers import Coreset
from kdzoo.errors import ConfigError, DataError

CLASSES = 3


def make_set(**options):
    torch.manual_seed(0)
    network = InnerNetwork(nn.Linear(5, CLASSES), **options)
    return SyntheticSet(in_shape=(5,), num_classes=CLASSES, inner_network={"linear": network}, per_class=2, steps=3)


def make_samples(n=60):
    torch.manual_seed(1)
    inputs = torch.randn(n, 5)
    return inputs, (inputs @ torch.randn(5, CLASSES)).argmax(1)


def fit(distiller, inputs, targets, folder, epochs=3):
    data = ArrayData((inputs, targets), (inputs, targets), val_size=10, batch_size=20, seed=0)
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        accelerator="cpu",
    )
    trainer.fit(distiller, datamodule=data)
    return trainer


def observed(distiller, batches):
    for batch in batches:
        distiller.observe(batch)
    assert distiller.solve() is True
    return distiller.student


@pytest.mark.parametrize("selection", ["random", "mean", "kmeans", "herding", "k_center"])
def test_student_becomes_the_selection_from_all_labelled_samples(selection):
    inputs, targets = make_samples()
    targets[::4] = IGNORE
    batches = [{"input": inputs[i : i + 16], "target": targets[i : i + 16]} for i in range(0, 60, 16)]
    student = observed(Coreset(make_set(), selection=selection, seed=3), batches)
    labelled = targets != IGNORE
    expected = coreset(make_set(), selection, inputs[labelled], targets[labelled], seed=3)
    for name, value in expected.state_dict().items():
        assert torch.equal(student.state_dict()[name], value), name


def test_samples_are_dropped_after_the_selection():
    inputs, targets = make_samples()
    distiller = Coreset(make_set())
    observed(distiller, [{"input": inputs, "target": targets}])
    assert distiller.observed == {}


def test_pools_are_trained_before_the_step_size_is_chosen():
    inputs, targets = make_samples()
    distiller = Coreset(make_set(pool=2, pool_steps=50))
    network = distiller.student.inner_networks["linear"]
    assert not network.is_ready
    # Before the pool is trained, the loss starts from random initial weights instead of failing.
    assert torch.isfinite(distiller.losses({"input": inputs, "target": targets})["real"]).all()
    observed(distiller, [{"input": inputs, "target": targets}])
    assert network.is_ready
    expected = make_set(pool=2, pool_steps=50)
    train_pools(expected.inner_networks, inputs, targets, seed=0)
    expected = coreset(expected, "random", inputs, targets, seed=0)
    for name, value in expected.state_dict().items():
        assert torch.equal(distiller.student.state_dict()[name], value), name


def test_loss_is_the_cross_entropy_of_a_network_that_is_trained_on_the_set():
    inputs, targets = make_samples()
    targets[::3] = IGNORE
    distiller = Coreset(make_set())
    synthetic_set, network = distiller.student, distiller.student.inner_networks["linear"]
    weights = network.held_out(1)[0]
    for size in synthetic_set.step_sizes["linear"].detach():
        weights = weights.clone().requires_grad_()
        logits = network.logits(weights[None], synthetic_set.images.detach())[0]
        loss = nn.functional.cross_entropy(logits, synthetic_set.labels.detach())
        weights = (weights - size * torch.autograd.grad(loss, weights)[0]).detach()
    expected = nn.functional.cross_entropy(
        network.logits(weights[None], inputs)[0], targets, ignore_index=IGNORE, reduction="none"
    )[targets != IGNORE]
    real = distiller.losses({"input": inputs, "target": targets})["real"]
    torch.testing.assert_close(real.float(), expected.float(), rtol=1e-5, atol=1e-6)


def test_training_ends_after_one_epoch(tmp_path):
    distiller = Coreset(make_set(), selection="mean")
    trainer = fit(distiller, *make_samples(), tmp_path)
    assert trainer.current_epoch == 1
    assert torch.equal(distiller.student.hard_labels(), distiller.student.labels)


def test_a_class_with_too_few_samples_is_refused():
    inputs, targets = make_samples()
    targets[targets == 2] = 1
    targets[0] = 2
    distiller = Coreset(make_set())
    distiller.observe({"input": inputs, "target": targets})
    with pytest.raises(DataError, match="class 2"):
        distiller.solve()


@pytest.mark.parametrize(
    ("options", "line"),
    [({"selection": "noise"}, "selection must be one of random, mean"), ({"seed": -1}, "seed must be an integer >= 0")],
)
def test_arguments_out_of_range_are_refused(options, line):
    with pytest.raises(ConfigError, match=line):
        Coreset(make_set(), **options)
