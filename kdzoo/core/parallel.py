"""Data parallelism for methods that replace parameters of their student."""

from typing import Any

from pytorch_lightning.strategies import DDPStrategy


def wrap_again(distiller: Any) -> None:
    """Let data parallelism know the new parameters of a distiller that is being trained, and make them equal."""
    strategy = distiller.trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = distiller
        strategy.configure_ddp()
