"""TransformerOutput hidden layers of any module through forward hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from kdzoo.errors import ConfigError


@contextmanager
def capture(model: nn.Module, paths: Sequence[str]) -> Iterator[Callable[[], list[Tensor]]]:
    """Record the outputs of the modules at ``paths`` while the context is open.

    Yields:
        A function that returns the recorded outputs in the order of ``paths``; a module that returns a
        tuple gives its first tensor.

    Raises:
        ConfigError: a module was not called, so there is nothing to return.
    """
    seen: dict[str, Tensor] = {}

    def recorder(path: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            seen[path] = output[0] if isinstance(output, tuple) else output

        return record

    def outputs() -> list[Tensor]:
        silent = [path for path in paths if path not in seen]
        if silent:
            raise ConfigError(f"module {silent[0]!r} of {type(model).__name__} was not called; it has no output")
        return [seen[path] for path in paths]

    with ExitStack() as stack:
        for path in paths:
            handle = model.get_submodule(path).register_forward_hook(recorder(path))
            stack.callback(handle.remove)
        yield outputs
