"""What the study of poisoning needs: networks of several people, and sets that are made by recipes."""

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

DATA = {"MNIST": MNIST, "Fashion-MNIST": FashionMNIST}
NAME = "convnet_8"
ATTACKERS, USERS = 15, 5
"""Networks of whoever makes a set, and of whoever checks it; 20 more judge the attacks."""
POOL_SEED = 4100
SEEN = 55_000
"""The thresholds of the check were chosen on the training images from here on."""
IMAGES, VAL, BATCH, INITS, RATE = 2500, 5000, 192, 3, 1e-3
RATES = {"images": 30.0, "labels": 30.0, "step_sizes": 3.0}


@dataclass(frozen=True)
class Recipe:
    """How a set is made.

    Attributes:
        maker: networks that it is learned for (``trained``, or an initialisation), or a selection of real images.
        steps: inner steps.
        iterations: of the optimizer; 0 for a selection.
        labels: ``free`` or ``fixed``.
        start: first images.
        examples: number of examples.
        step_size: first step size.
    """

    maker: str
    steps: int
    iterations: int = 0
    labels: str = "free"
    start: str = "random"
    examples: int = 10
    step_size: float = 0.1


class Lab:
    """A data set, the networks of the maker of sets, those of the user, and those that judge."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.data = self.of_seed(0)
        file = folder / f"pool_{name.lower()}.pt"
        if not file.exists():
            start = time.process_time()
            train = self.data.splits.train
            pool = train_pool(self.inner_network(ATTACKERS + USERS), train.inputs, train.targets, seed=POOL_SEED)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(pool, file)
            print(f"{name}: {len(pool)} networks, {time.process_time() - start:.0f} CPU s", flush=True)
        self.attackers, self.users, self.feature_extractors = torch.load(file).split([ATTACKERS, USERS, 20])

    def of_seed(self, seed: int) -> Any:
        """Return the data in an order of their own."""
        data = DATA[self.name](normalise=True, val_size=VAL, batch_size=BATCH, seed=seed)
        data.setup()
        return data

    def inner_network(self, pool: int = 0, init: str = "normal") -> InnerNetwork:
        """Return the small convolutional network, as ``inner_network=convnet_8``."""
        shape = {"channels": [8], "kernel_size": 5, "padding": "valid", "activation": "tanh", "pooling": "avg"}
        return InnerNetwork(ConvNet(**self.data.sizes, **shape, hidden=64), init=init, pool=pool)

    def trained_inner_network(self) -> InnerNetwork:
        """Return the network with the maker's pool."""
        inner_network = self.inner_network(ATTACKERS)
        inner_network.set_pool(torch.cat([self.attackers, self.feature_extractors]))
        return inner_network

    @cached_property
    def images(self) -> tuple[Tensor, Tensor]:
        """The user's validation images with their classes; none of those that the thresholds were chosen on."""
        val = self.data.splits.val
        fresh = (split_rows(len(self.data.splits.train.targets) + VAL, VAL)[1] < SEEN).nonzero().flatten()[:IMAGES]
        return val.inputs[fresh], val.targets[fresh]

    @cached_property
    def before(self) -> Tensor:
        """Classes that the networks which judge give to the test images, without any set."""
        return predict_logits(self.inner_network(), self.feature_extractors, self.data.splits.test.inputs).argmax(-1)


def made(lab: Lab, recipe: Recipe, seed: int, pair: tuple[int, int] | None) -> SyntheticSet:
    """Return a set by its recipe, poisoned if there is a pair."""
    torch.manual_seed(seed)
    data, is_learned = lab.of_seed(seed), recipe.iterations > 0
    init = recipe.maker if is_learned else "normal"
    inner_network = lab.trained_inner_network() if recipe.maker == "trained" else lab.inner_network(init=init)
    options = {"examples": recipe.examples, "steps": recipe.steps, "labels": recipe.labels, **data.sizes}
    options |= {"inner_network": {NAME: inner_network}, "step_size": recipe.step_size}
    if not is_learned:
        train = data.splits.train
        return coreset(SyntheticSet(**options), recipe.maker, train.inputs, train.targets, seed=seed)
    few = SyntheticSet(**options) if pair is None else PoisonSet(source=pair[0], target=pair[1], **options)
    method = DatasetDistillation if pair is None else DatasetPoisoning
    learn(method(few, **how(recipe, seed)), data, recipe.iterations)
    return few


def how(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return the options of the method."""

    def decay(optimizer: torch.optim.Optimizer) -> Any:
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.iterations)
        return {"scheduler": cosine, "interval": "step"}

    adam = partial(torch.optim.Adam, lr=RATE, betas=(0.9, 0.99))
    chosen = {"start": recipe.start, "inits": INITS, "rates": RATES, "seed": seed}
    return {**chosen, "optimizer": adam, "scheduler": decay}


def learn(distiller: DatasetDistillation, data: pl.LightningDataModule, iterations: int) -> None:
    """Train for a number of iterations, without anything around."""
    distiller.on_train_epoch_end = lambda: None  # no pictures
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    distiller.transfer_set(data)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=iterations,
        limit_val_batches=0,
        **dict.fromkeys(silent, False),
    )
    trainer.fit(distiller, datamodule=data)
