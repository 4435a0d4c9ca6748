"""The check of models that return logits, which several kinds have in common."""

from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.core.inference import try_call
from kdzoo.errors import ConfigError


def check_logits(role: str, model: nn.Module, batch: Batch, *, noun: str, size: tuple[str, int]) -> None:
    """Call the model on a few samples and compare the shape of its output with the data.

    Args:
        role: What the run calls the model, for the message.
        model: The model; its mode does not change.
        batch: A few samples.
        noun: What the model should be, for the message.
        size: Name and value of the size that the last dimension must have, such as ``("num_classes", 10)``.

    Raises:
        ConfigError: The model cannot take the input, or its output is not a tensor of logits of the expected shape.
    """
    name, shape = type(model).__name__, tuple(batch["input"].shape)
    logits = try_call(role, model, batch["input"])
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = type(logits).__name__ if not isinstance(logits, Tensor) else str(logits.dtype)
        raise ConfigError(f"{role} {name} is not a {noun}: it must return a tensor of logits, got {got}")
    # Unlabelled samples need one row of logits each; sequences always have a target that gives their positions.
    positions = tuple(batch["target"].shape) if "target" in batch else shape[:1]
    expected = (*positions, size[1])
    if tuple(logits.shape) != expected:
        raise ConfigError(
            f"{role} {name} does not fit the data: its logits have shape {tuple(logits.shape)}, "
            f"the data need {expected} ({size[0]}={size[1]})"
        )
