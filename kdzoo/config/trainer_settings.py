"""Values of the trainer's arguments that Lightning accepts, but by which a run would never end or do nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from kdzoo.config.processes import sharding_mistake


def mistakes(trainer: Any) -> Iterator[str]:
    """Yield a line for a value that Lightning accepts, and with which the training fails later or never ends."""
    if not isinstance(trainer, Mapping):
        return
    if trainer.get("max_epochs") == trainer.get("max_steps", -1) == -1:
        yield "trainer.max_epochs=-1 would train without end; set it, or trainer.max_steps"
    yield from idle("trainer", trainer)
    if isinstance(every := trainer.get("log_every_n_steps"), int) and every < 1:
        yield f"trainer.log_every_n_steps must be at least 1 or null, got {every}"
    yield from sharding_mistake(trainer.get("strategy"))


def idle(name: str, training: Mapping[str, Any], inherited: Any = None) -> Iterator[str]:
    """Yield a line for each value by which a training would make no step.

    Args:
        name: Group of the settings, ``trainer``, ``teacher_training`` or ``control_training``.
        training: The settings.
        inherited: The trainer, whose own zeros have been found and are the default of the other trainings.
    """
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if training.get(key) == 0 and not (isinstance(inherited, Mapping) and inherited.get(key) == 0):
            yield f"{name}.{key}={training[key]} would train nothing; allowed: above 0"
