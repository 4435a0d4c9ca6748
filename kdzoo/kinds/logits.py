"""The check that kinds of models with logits have in common."""

from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.core.inference import try_call
from kdzoo.errors import ConfigError


def check_logits(role: str, model: nn.Module, batch: Batch, *, noun: str, size: tuple[str, int]) -> None:
    """Call the model on a few samples and compare the shape of what it returns with the data.

    Args:
        role: what the run calls the model.
        model: stays in its mode.
        batch: a few samples.
        noun: what the model ought to be.
        size: name and value of the size of the last dimension.

    Raises:
        ConfigError: the model cannot take the input, or returns something else than the data need.
    """
    name, shape = type(model).__name__, tuple(batch["input"].shape)
    logits = try_call(role, model, batch["input"])
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = type(logits).__name__ if not isinstance(logits, Tensor) else str(logits.dtype)
        raise ConfigError(f"{role} {name} is no {noun}: it must return a tensor of logits, got {got}")
    positions = tuple(batch["target"].shape) if "target" in batch else shape[:1]
    expected = (*positions, size[1])
    if tuple(logits.shape) != expected:
        raise ConfigError(
            f"{role} {name} does not fit the data: its logits have shape {tuple(logits.shape)}, "
            f"the data need {expected} ({size[0]}={size[1]})"
        )
