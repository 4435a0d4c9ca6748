"""Helpers that the tests of all methods share."""

from collections.abc import Callable

import pytest
import pytorch_lightning as pl

from kdzoo.core.base import Distiller

Fit = Callable[..., pl.Trainer]


@pytest.fixture(scope="session")
def fit() -> Fit:
    """Train a distiller with a plain Lightning trainer on the CPU, without logs, checkpoints and progress bars."""

    def train(distiller: Distiller, data: pl.LightningDataModule, epochs: int = 3) -> pl.Trainer:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(distiller, datamodule=data)
        return trainer

    return train
