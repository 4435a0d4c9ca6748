"""The teacher inside a distiller: frozen, absent from checkpoints, and read through cached outputs where possible."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch, on_host
from kdzoo.errors import ConfigError

TeacherOutputs = dict[str, Tensor]
"""Named tensors ``[n, ...]``, one row for each of n samples."""


@runtime_checkable
class Rows(Protocol):
    """Rows ``[n, ...]`` of which some can be read: a tensor, or one that is stored in files."""

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Return the rows at ``index`` (int64 ``[b]`` on the CPU)."""


StoredOutputs = Mapping[str, Rows]
"""The outputs for all samples of a split by name; row i belongs to the sample with index i."""
ComputeOutputs = Callable[[Batch], TeacherOutputs]
"""Runs the teacher on a batch, as :meth:`kdzoo.Distiller.teacher_outputs` does."""


class FrozenTeacher:
    """Keeps a teacher frozen, and returns its outputs for a batch without gradient.

    Args:
        teacher: The module to freeze: gradients are switched off and it is put into eval mode. None for a method
            without a teacher.
        student: The module to train. It must not share parameters with the teacher.
        compute: Runs the teacher on a batch.

    Attributes:
        cache: Outputs for all samples of a split (``train`` or ``val``) that were computed before the training; row i
            belongs to the sample with index i.
        cache_key: Settings, as plain values, that the outputs depend on. Outputs on disk are reused only for equal
            keys. None if outputs must not be cached, for example because they would be too large.
        output_reads: Number of calls of :meth:`outputs`.
        direct_calls: Number of calls of the teacher itself, which cached outputs cannot replace; they are counted
            within :meth:`counting_calls`.

    Raises:
        ConfigError: The student shares parameters with the teacher.
    """

    def __init__(self, teacher: nn.Module | None, student: nn.Module, compute: ComputeOutputs) -> None:
        self.cache: dict[str, StoredOutputs] = {}
        self.cache_key: Mapping[str, Any] | None = {}
        self.output_reads = self.direct_calls = 0
        self._compute = compute
        self._split: str | None = None
        self._is_computing = False
        if teacher is None:
            return
        # Freezing a shared parameter would silently freeze a part of the student.
        student_parameters = {id(parameter) for parameter in student.parameters()}
        if any(id(parameter) in student_parameters for parameter in teacher.parameters()):
            raise ConfigError("teacher and student share parameters; give the student a copy (copy.deepcopy)")
        teacher.requires_grad_(False).eval()

    @property
    def is_cacheable(self) -> bool:
        """Whether cached outputs can replace the teacher: so far it was called through :meth:`outputs` only."""
        return self.cache_key is not None and self.output_reads > 0 and self.direct_calls == 0

    def outputs(self, batch: Batch) -> TeacherOutputs:
        """Return the teacher's outputs for a batch without gradient.

        Within :meth:`using_cache` they are read from the cache, if it has outputs of the split. The batch then needs
        ``index``.
        """
        self.output_reads += 1
        cached = self.cache.get(self._split or "")
        if cached is not None:
            rows, device = on_host(batch)["index"].cpu(), batch["input"].device
            return {name: output[rows].to(device, non_blocking=True) for name, output in cached.items()}
        # So that counting_calls does not count this call, which a cached output can replace.
        self._is_computing = True
        try:
            with torch.no_grad():
                return self._compute(batch)
        finally:
            self._is_computing = False

    def output(self, batch: Batch) -> Tensor:
        """Return the tensor named ``output`` of :meth:`outputs`."""
        return self.outputs(batch)["output"]

    @contextmanager
    def using_cache(self, split: str) -> Iterator[None]:
        """Within this context, :meth:`outputs` reads the cached outputs of ``split``, to which all batches must belong.

        Args:
            split: ``train`` or ``val``.
        """
        self._split = split
        try:
            yield
        finally:
            self._split = None

    @contextmanager
    def counting_calls(self, teacher: nn.Module | None) -> Iterator[None]:
        """Within this context, count the calls of the teacher that do not come from :meth:`outputs`."""
        if teacher is None:
            yield
            return

        def count(*_: Any) -> None:
            self.direct_calls += not self._is_computing

        handle = teacher.register_forward_pre_hook(count)
        try:
            yield
        finally:
            handle.remove()


def leave_out_teacher(distiller: nn.Module) -> None:
    """Register hooks that leave the submodule ``teacher`` out of a distiller's state dict, in saving and loading.

    The teacher can be large, does not change, and is built from its own configuration or checkpoint.
    """
    distiller._register_state_dict_hook(_drop_teacher)
    distiller.register_load_state_dict_pre_hook(_keep_teacher)


def _drop_teacher(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:  # noqa: ARG001
    """Remove the teacher from a state dict (a state-dict hook)."""
    for key in [key for key in state if key.startswith(f"{prefix}teacher.")]:
        del state[key]


def _keep_teacher(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Fill in the teacher's own state, so that a state without it loads strictly (a load-state-dict pre-hook)."""
    # Without it, load_state_dict(strict=True) would report every parameter of the teacher as missing.
    assert isinstance(module.teacher, nn.Module)
    state.update(module.teacher.state_dict(prefix=f"{prefix}teacher."))
