"""Reading the outputs of hidden layers of any module through forward hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from kdzoo.errors import ConfigError


@contextmanager
def capture(model: nn.Module, paths: Sequence[str]) -> Iterator[Callable[[], list[Tensor]]]:
    """Record the outputs of the modules at ``paths`` while the context is open.

    Args:
        model: The module whose submodules are read.
        paths: Names of submodules, as in ``model.named_modules()``.

    Yields:
        A function that returns the recorded outputs in the order of ``paths``. Of a module that returns a tuple, the
        first element is recorded; of one that is called several times, the last output.

    Raises:
        ConfigError: A module was not called, so there is nothing to return.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> with capture(model, ["0"]) as hidden:
        ...     logits = model(torch.randn(2, 4))
        ...     hidden()[0].shape
        torch.Size([2, 3])
    """
    recorded: dict[str, Tensor] = {}

    def recorder(path: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            # Recurrent layers and attention return their states or weights as well.
            recorded[path] = output[0] if isinstance(output, tuple) else output

        return record

    def outputs() -> list[Tensor]:
        missing = [path for path in paths if path not in recorded]
        if missing:
            raise ConfigError(f"module {missing[0]!r} of {type(model).__name__} was not called; it has no output")
        return [recorded[path] for path in paths]

    with ExitStack() as stack:
        for path in paths:
            handle = model.get_submodule(path).register_forward_hook(recorder(path))
            stack.callback(handle.remove)
        yield outputs
