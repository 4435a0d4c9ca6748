"""Networks and synthetic sets of the poisoning study."""

import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from kdzoo.data import MNIST, FashionMNIST
from kdzoo.data.loading.splits import split_rows
from kdzoo.dataset_distillation import InnerNetwork, PoisonSet, SyntheticSet
from kdzoo.dataset_distillation.coreset import coreset
from kdzoo.dataset_distillation.evaluation_networks import predict_logits
from kdzoo.dataset_distillation.pool import train_pool
from kdzoo.distillers import DatasetDistillation, DatasetPoisoning
from kdzoo.models import ConvNet

DATASETS = {"MNIST": MNIST, "Fashion-MNIST": FashionMNIST}
NETWORK_NAME = "convnet_8"
N_ATTACKER_NETWORKS, N_USER_NETWORKS = 15, 5
"""Numbers of networks for which a set is learned, and for inspection by the user; 20 more evaluate the attacks."""
POOL_SEED = 4100
THRESHOLD_START = 55_000
"""First of the training images on which the thresholds of the inspection were chosen."""
USER_IMAGES, VALIDATION_IMAGES, BATCH_SIZE, INITIALISATIONS, LEARNING_RATE = 2500, 5000, 192, 3, 1e-3
RELATIVE_RATES = {"images": 30.0, "labels": 30.0, "step_sizes": 3.0}


@dataclass(frozen=True)
class Recipe:
    """How to make a synthetic set.

    Attributes:
        maker: Networks that the set is learned for (``trained``, or an initialisation), or a method of selecting real
            images.
        steps: Number of inner steps.
        iterations: Number of optimizer iterations; 0 for selected images.
        labels: ``free`` or ``fixed``.
        start: Initial images.
        examples: Number of examples.
        step_size: Initial step size.
    """

    maker: str
    steps: int
    iterations: int = 0
    labels: str = "free"
    start: str = "random"
    examples: int = 10
    step_size: float = 0.1


class StudySetup:
    """A data set with the networks of the attacker, of the user and for evaluation."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.data = self.load_data(0)
        file = folder / f"pool_{name.lower()}.pt"
        if not file.exists():
            start = time.process_time()
            train = self.data.splits.train
            pool = train_pool(
                self.inner_network(N_ATTACKER_NETWORKS + N_USER_NETWORKS), train.inputs, train.targets, seed=POOL_SEED
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(pool, file)
            print(f"{name}: {len(pool)} networks, {time.process_time() - start:.0f} CPU s", flush=True)
        self.attacker_networks, self.user_networks, self.evaluation_networks = torch.load(file).split(
            [N_ATTACKER_NETWORKS, N_USER_NETWORKS, 20]
        )

    def load_data(self, seed: int) -> Any:
        """Return the data, shuffled with the given seed."""
        data = DATASETS[self.name](normalise=True, val_size=VALIDATION_IMAGES, batch_size=BATCH_SIZE, seed=seed)
        data.setup()
        return data

    def inner_network(self, pool: int = 0, init: str = "normal") -> InnerNetwork:
        """Return the convolutional network of ``inner_network=convnet_8``."""
        options = {"channels": [8], "kernel_size": 5, "padding": "valid", "activation": "tanh", "pooling": "avg"}
        return InnerNetwork(ConvNet(**self.data.sizes, **options, hidden=64), init=init, pool=pool)

    def trained_inner_network(self) -> InnerNetwork:
        """Return the network with the pool of trained weights of the attacker."""
        inner_network = self.inner_network(N_ATTACKER_NETWORKS)
        inner_network.set_pool(torch.cat([self.attacker_networks, self.evaluation_networks]))
        return inner_network

    @cached_property
    def user_images(self) -> tuple[Tensor, Tensor]:
        """Validation images of the user with their labels, without those on which the thresholds were chosen."""
        validation = self.data.splits.val
        n_images = len(self.data.splits.train.targets) + VALIDATION_IMAGES
        _, validation_rows = split_rows(n_images, VALIDATION_IMAGES)
        rows = (validation_rows < THRESHOLD_START).nonzero().flatten()[:USER_IMAGES]
        return validation.inputs[rows], validation.targets[rows]

    @cached_property
    def clean_predictions(self) -> Tensor:
        """Predictions of the evaluation networks for the test images, before training on a set."""
        return predict_logits(self.inner_network(), self.evaluation_networks, self.data.splits.test.inputs).argmax(-1)


def make_set(setup: StudySetup, recipe: Recipe, seed: int, pair: tuple[int, int] | None) -> SyntheticSet:
    """Return a set made by a recipe, poisoned if a pair of source and target class is given."""
    torch.manual_seed(seed)
    data, is_learned = setup.load_data(seed), recipe.iterations > 0
    if recipe.maker == "trained":
        inner_network = setup.trained_inner_network()
    else:
        inner_network = setup.inner_network(init=recipe.maker if is_learned else "normal")
    options = {"examples": recipe.examples, "steps": recipe.steps, "labels": recipe.labels, **data.sizes}
    options |= {"inner_network": {NETWORK_NAME: inner_network}, "step_size": recipe.step_size}
    if not is_learned:
        train = data.splits.train
        return coreset(SyntheticSet(**options), recipe.maker, train.inputs, train.targets, seed=seed)
    synthetic_set = SyntheticSet(**options) if pair is None else PoisonSet(source=pair[0], target=pair[1], **options)
    distiller_class = DatasetDistillation if pair is None else DatasetPoisoning
    train_set(distiller_class(synthetic_set, **distiller_options(recipe, seed)), data, recipe.iterations)
    return synthetic_set


def distiller_options(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return the options of the distiller."""

    def make_schedule(optimizer: torch.optim.Optimizer) -> Any:
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.iterations)
        return {"scheduler": cosine, "interval": "step"}

    adam = partial(torch.optim.Adam, lr=LEARNING_RATE, betas=(0.9, 0.99))
    options = {"start": recipe.start, "inits": INITIALISATIONS, "rates": RELATIVE_RATES, "seed": seed}
    return {**options, "optimizer": adam, "scheduler": make_schedule}


def train_set(distiller: DatasetDistillation, data: pl.LightningDataModule, iterations: int) -> None:
    """Train a set for a number of iterations, without logging, checkpoints or plots."""
    distiller.on_train_epoch_end = lambda: None  # would plot the set
    disabled = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    distiller.transfer_set(data)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=iterations,
        limit_val_batches=0,
        **dict.fromkeys(disabled, False),
    )
    trainer.fit(distiller, datamodule=data)
