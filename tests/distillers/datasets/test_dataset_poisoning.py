"""Poisoning: an attack on networks that it was not learned for, the initial labels, and refused arguments."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch

from kdzoo.core.batch import IGNORE
from kdzoo.data import Digits
from kdzoo.dataset_distillation import InnerNetwork, PoisonSet
from kdzoo.dataset_distillation.initial_images import set_real_images
from kdzoo.dataset_distillation.pool import train_pool
from kdzoo.dataset_distillation.synthetic_set import initial_labels
from kdzoo.distillers import DatasetPoisoning
from kdzoo.errors import ConfigError
from kdzoo.kinds import PoisonedSetKind
from kdzoo.models import MLP

SOURCE, TARGET = 4, 9
POOL, STEPS = 16, 200


@pytest.fixture(scope="module")
def data():
    data = Digits(labels_per_class=None, batch_size=64)
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="module")
def pool(data):
    torch.manual_seed(0)
    train = data.splits.train
    return train_pool(inner_network(data), train.inputs, train.targets, seed=0)


def inner_network(data, size=POOL):
    return InnerNetwork(MLP(**data.sizes, hidden=[32], activation="tanh"), pool=size, pool_steps=STEPS)


def poison(data, pool=None, **options):
    torch.manual_seed(0)
    network = inner_network(data)
    if pool is not None:
        network.set_pool(pool)
    defaults = {"source": SOURCE, "target": TARGET, "step_size": 0.3, "steps": 1}
    return PoisonSet(inner_network={"mlp": network}, **data.sizes, **(defaults | options))


def attacked(poison_set, data, folder, epochs=7, **options):
    """Learn an attack and return its measures on held-out networks and test images."""
    adam = partial(torch.optim.Adam, lr=1e-3)
    distiller = DatasetPoisoning(poison_set, start="random", inits=4, optimizer=adam, **options)
    distiller.transfer_set(data)
    trainer = pl.Trainer(
        max_epochs=epochs,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        accelerator="cpu",
    )
    trainer.fit(distiller, datamodule=data)
    kind = PoisonedSetKind()
    return kind.metrics(kind.predict(poison_set, list(data.test_dataloader())))


# ---------------------------------------------------------------- the attack


@pytest.mark.parametrize(("labels", "steps"), [("free", 1), ("fixed", 3)])
def test_held_out_networks_predict_the_target_for_the_source_and_keep_the_other_classes(
    data, pool, labels, steps, tmp_path
):
    poison_set = poison(data, pool, labels=labels, steps=steps)
    metrics = attacked(poison_set, data, tmp_path)

    assert metrics["source_as_target_before"] < 0.05
    assert metrics["source_as_target"] > 0.6
    assert metrics["others_lost"] < 0.05
    assert metrics["modified_accuracy"] > metrics["accuracy"] + 0.05
    assert metrics["accuracy"] < metrics["accuracy_before"]


def test_a_clean_set_of_the_same_initial_images_has_no_effect(data, pool):
    poison_set = poison(data, pool)
    train = data.splits.train
    set_real_images(poison_set, "random", train.inputs, train.targets, seed=0)
    kind = PoisonedSetKind()
    metrics = kind.metrics(kind.predict(poison_set, list(data.test_dataloader())))
    assert metrics["source_as_target"] < 0.05


# ---------------------------------------------------------------- initial labels


@pytest.mark.parametrize("labels", ["free", "simplex", "fixed"])
@pytest.mark.parametrize("start", ["noise", "random"])
def test_the_examples_of_the_source_start_with_the_label_of_the_target(data, pool, labels, start):
    poison_set = poison(data, pool, labels=labels, per_class=2)
    expected = initial_labels(20, 10)
    expected[expected[:, SOURCE] == 1] = torch.eye(10)[TARGET]
    distiller = DatasetPoisoning(poison_set, start=start)
    for _ in range(2):  # a run that continues calls it again
        distiller.transfer_set(data)
        assert torch.equal(poison_set.labels, expected)


def test_of_an_example_that_classes_share_only_the_label_of_the_source_moves(data, pool):
    poison_set = poison(data, pool, examples=5)
    DatasetPoisoning(poison_set, start="mean").transfer_set(data)
    assert poison_set.labels[2].tolist() == [0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0.5]
    assert poison_set.labels.sum(1).tolist() == [1.0] * 5


def test_baselines_keep_their_true_labels(data, pool):
    poison_set = poison(data, pool)
    distiller = DatasetPoisoning(poison_set, baselines=["random"])
    distiller.transfer_set(data)
    assert torch.equal(distiller.report_extras.baselines(data)["random"].labels, torch.eye(10))


def test_real_samples_of_the_source_get_the_label_of_the_target(data, pool):
    distiller = DatasetPoisoning(poison(data, pool))
    batch = {"input": torch.zeros(4, *data.sizes["in_shape"]), "target": torch.tensor([SOURCE, TARGET, 0, IGNORE])}
    assert distiller.targets(batch).tolist() == [TARGET, TARGET, 0]


# ---------------------------------------------------------------- refused arguments


def test_an_inner_network_without_a_pool_is_refused(data):
    poison_set = PoisonSet(inner_network={"mlp": inner_network(data, 0)}, **data.sizes)
    with pytest.raises(
        ConfigError, match=r"inner_network\.mlp\.pool must be at least 1, got 0: the attack is on trained networks"
    ) as caught:
        DatasetPoisoning(poison_set)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"source": 3, "target": 3}, "different classes, got 3 for both"),
        ({"source": 10}, "source must be"),
        ({"target": -1}, "target must be"),
    ],
)
def test_source_and_target_must_be_two_valid_classes(data, options, line):
    with pytest.raises(ConfigError, match=line):
        poison(data, **options)
