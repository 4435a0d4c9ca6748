"""Poisoning: an attack on networks that it has not seen, the labels it starts with, and what is refused."""

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
    one = inner_network(data)
    if pool is not None:
        one.set_pool(pool)
    chosen = {"source": SOURCE, "target": TARGET, "step_size": 0.3, "steps": 1}
    return PoisonSet(inner_network={"mlp": one}, **data.sizes, **(chosen | options))


def attacked(few, data, folder, epochs=7, **options):
    """Return what the report says of the networks that the attack has not seen, on test images."""
    adam = partial(torch.optim.Adam, lr=1e-3)
    distiller = DatasetPoisoning(few, start="random", inits=4, optimizer=adam, **options)
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
    return kind.metrics(kind.predict(few, list(data.test_dataloader())))


# ---------------------------------------------------------------- the attack


@pytest.mark.parametrize(("labels", "steps"), [("free", 1), ("fixed", 3)])
def test_networks_it_has_not_seen_take_the_source_for_the_target_and_keep_the_rest(data, pool, labels, steps, tmp_path):
    few = poison(data, pool, labels=labels, steps=steps)
    found = attacked(few, data, tmp_path)

    assert found["source_as_target_before"] < 0.05
    assert found["source_as_target"] > 0.6
    assert found["others_lost"] < 0.05
    assert found["modified_accuracy"] > found["accuracy"] + 0.05
    assert found["accuracy"] < found["accuracy_before"]


def test_an_honest_set_of_the_same_start_attacks_nothing(data, pool):
    few = poison(data, pool)
    train = data.splits.train
    set_real_images(few, "random", train.inputs, train.targets, seed=0)
    kind = PoisonedSetKind()
    found = kind.metrics(kind.predict(few, list(data.test_dataloader())))
    assert found["source_as_target"] < 0.05


# ---------------------------------------------------------------- where it starts


@pytest.mark.parametrize("labels", ["free", "simplex", "fixed"])
@pytest.mark.parametrize("start", ["noise", "random"])
def test_the_examples_of_the_source_begin_with_the_label_of_the_target(data, pool, labels, start):
    few = poison(data, pool, labels=labels, per_class=2)
    expected = initial_labels(20, 10)
    expected[expected[:, SOURCE] == 1] = torch.eye(10)[TARGET]
    distiller = DatasetPoisoning(few, start=start)
    for _ in range(2):  # a run that continues begins again
        distiller.transfer_set(data)
        assert torch.equal(few.labels, expected)


def test_an_example_that_classes_share_gives_only_the_part_of_the_source(data, pool):
    few = poison(data, pool, examples=5)
    DatasetPoisoning(few, start="mean").transfer_set(data)
    assert few.labels[2].tolist() == [0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0.5]
    assert few.labels.sum(1).tolist() == [1.0] * 5


def test_the_selections_to_compare_with_keep_their_true_labels(data, pool):
    few = poison(data, pool)
    distiller = DatasetPoisoning(few, baselines=["random"])
    distiller.transfer_set(data)
    assert torch.equal(distiller.baselines(data)["random"].labels, torch.eye(10))


def test_real_data_of_the_source_get_the_label_of_the_target(data, pool):
    distiller = DatasetPoisoning(poison(data, pool))
    batch = {"input": torch.zeros(4, *data.sizes["in_shape"]), "target": torch.tensor([SOURCE, TARGET, 0, IGNORE])}
    assert distiller.targets(batch).tolist() == [TARGET, TARGET, 0]


# ---------------------------------------------------------------- what is refused


def test_initial_weights_are_no_aim(data):
    few = PoisonSet(inner_network={"mlp": inner_network(data, 0)}, **data.sizes)
    with pytest.raises(ConfigError, match=r"inner network\.mlp\.pool must be at least 1, got 0") as caught:
        DatasetPoisoning(few)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"source": 3, "target": 3}, "different classes, got 3 for both"),
        ({"source": 10}, "source must be"),
        ({"target": -1}, "target must be"),
    ],
)
def test_classes_that_are_no_two_are_refused(data, options, line):
    with pytest.raises(ConfigError, match=line):
        poison(data, **options)
