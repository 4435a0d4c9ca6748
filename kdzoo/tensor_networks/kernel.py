"""The compiled sweep: C that the compiler of the machine builds on first use, with one thread per side of the chain.

The threads are those of OpenMP, which torch itself uses: others would compete with torch's, which spin while they wait.
Samples lie in the lanes of the vectors, so that bonds need not be padded. Only every second state is stored; the others
are computed again, which takes about as long as writing and reading them would, and halves the memory of a step. As
after torch's own operators, a process that is forked after a sweep must use one thread, as workers of data loaders do.
The library is stored in the user's cache under a name that depends on source, compiler and processor.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdzoo.errors import KdzooError
from kdzoo.tensor_networks import buffers, compiled_library
from kdzoo.tensor_networks.layout import Layout
from kdzoo.tensor_networks.torch_sweep import EVERY, Swept

SOURCE = Path(__file__).with_name("sweep.c")
NUMBERS = {torch.float32: "float", torch.float64: "double"}
# Fused multiply-adds (fp-contract) are twice the arithmetic and only more exact. There is no -ffast-math: it gained no
# speed, and would break the tests for values that are not finite.
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")
THREADS = "-fopenmp"


class NoKernelError(KdzooError):
    """The compiled sweep cannot be built; the message says why."""


def available(like: Tensor) -> str | None:
    """Return None if the compiled sweep supports tensors such as ``like``, or the reason why it does not."""
    if like.device.type != "cpu":
        return f"it runs on the CPU, got tensors on {like.device}"
    if like.dtype not in NUMBERS:
        return f"it takes float32 and float64, got {like.dtype}"
    return _failure(NUMBERS[like.dtype])


def forward(phi: Tensor, cores: Tensor, starts: tuple[Tensor, Tensor], plan: Layout) -> Swept:
    """Sweep from both ends towards the output.

    Arguments and results are those of :func:`kdzoo.tensor_networks.torch_sweep.forward`, but samples are padded to
    whole vectors, and only every second state is stored.
    """
    library, width = _library(NUMBERS[phi.dtype]), _width(NUMBERS[phi.dtype])
    n = phi.shape[2]
    phi, cores = _padded(phi, width), cores.contiguous()
    samples, stored = phi.shape[2], stored_states(plan)
    states = buffers.empty(stored.rows, samples, dtype=phi.dtype)
    scales = phi.new_ones(2, max(len(bonds) - 1 for bonds in plan.sides) // EVERY, samples)
    log2 = phi.new_zeros(2, samples)
    for start, rows in zip(starts, stored.places, strict=True):
        states[rows[0] : rows[0] + len(start)] = _padded(start, width)
    # Room for the states that are not stored, one for each side.
    work, room = _work(phi, plan), phi.new_empty(2, max(*plan.left, *plan.right), samples)
    library.sweep_forward(
        *(_threads(), _sides(plan), plan.d, samples, EVERY, *_pointers(phi, cores, states)),
        *(*_both(scales), *_both(work), *_both(room), *_pointers(log2)),
    )
    left, right = (
        states[rows[-1] : rows[-1] + bonds[-1], :n] for rows, bonds in zip(stored.places, plan.sides, strict=True)
    )
    return (left, right), log2[:, :n], (states, scales)


def backward(
    phi: Tensor,
    cores: Tensor,
    saved: tuple[Tensor, Tensor],
    ends: tuple[Tensor, Tensor],
    plan: Layout,
    *,
    of_phi: bool,
) -> tuple[Tensor | None, Tensor, tuple[Tensor, Tensor]]:
    """Return the gradients of features (if ``of_phi``), cores and starts; see ``torch_sweep.backward``."""
    library, width = _library(NUMBERS[phi.dtype]), _width(NUMBERS[phi.dtype])
    n = phi.shape[2]
    phi, cores = _padded(phi, width), cores.contiguous()
    samples = phi.shape[2]
    states, scales = saved
    core_gradients = buffers.empty(len(cores), dtype=cores.dtype)
    phi_gradients = torch.zeros_like(phi) if of_phi else None  # the C code adds to it
    # For each side: the gradients of two states in turn, and a state that is computed again.
    work, room = _work(phi, plan), phi.new_empty(2, 3, max(*plan.left, *plan.right), samples)
    for side, end in enumerate(ends):
        room[side, 0, : len(end)] = _padded(end, width)
    library.sweep_backward(
        *(_threads(), _sides(plan), plan.d, samples, EVERY, *_pointers(phi, cores, states), *_both(scales)),
        *(*_both(work), *_both(room), room.shape[2], *_pointers(core_gradients, phi_gradients)),
    )
    starts = (room[0, 0, : plan.left[0], :n], room[1, 0, : plan.right[0], :n])
    return None if phi_gradients is None else phi_gradients[..., :n], core_gradients, starts


@dataclass(frozen=True)
class StoredStates:
    """Which states the compiled sweep stores: every second one, and the last one of each side.

    Attributes:
        places: First row of each state of the left and of the right side; -1 for those that are not stored.
        rows: Number of rows of all stored states.
    """

    places: tuple[list[int], list[int]]
    rows: int


@lru_cache(maxsize=256)
def stored_states(plan: Layout) -> StoredStates:
    """Return where the stored states lie."""
    places: tuple[list[int], list[int]] = ([], [])
    rows = 0
    for bonds, side_places in zip(plan.sides, places, strict=True):
        for step, bond in enumerate(bonds):
            is_stored = step % 2 == 0 or step == len(bonds) - 1
            side_places.append(rows if is_stored else -1)
            rows += bond * is_stored
    return StoredStates(places, rows)


def padded_samples(samples: int, dtype: torch.dtype) -> int:
    """Return the number of samples after padding to whole vectors."""
    return samples + -samples % _width(NUMBERS[dtype])


def _threads() -> int:
    """Return 2 to sweep both sides at once if torch may use two threads, or 1."""
    return min(torch.get_num_threads(), 2)


def _work(phi: Tensor, plan: Layout) -> Tensor:
    """Return memory for the products of the features with a state, for both sides."""
    rows = _library(NUMBERS[phi.dtype]).sweep_work_rows(plan.d * max(*plan.left, *plan.right))
    return phi.new_empty(2, rows, phi.shape[2])


def _padded(tensor: Tensor, width: int) -> Tensor:
    """Return ``tensor`` contiguous, with zeros after its last dimension up to a multiple of ``width``."""
    missing = -tensor.shape[-1] % width
    return (torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor).contiguous()


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    """Return the addresses of tensors."""
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def _both(tensor: Tensor) -> tuple[ctypes.c_void_p, int]:
    """Return the address of a tensor ``[2, ...]`` of both sides, and the number of values of one side."""
    return _pointers(tensor)[0], tensor.stride(0)


class _Side(ctypes.Structure):
    """One side of a chain; the fields are those of ``side`` in the C code."""

    _fields_: ClassVar = [
        ("sites", ctypes.c_longlong),
        *((name, ctypes.POINTER(ctypes.c_longlong)) for name in ("dims", "site_at", "core_at", "state_at")),
    ]


@lru_cache(maxsize=512)
def _sides(plan: Layout) -> "ctypes.Array[_Side]":
    """Return the bonds of both sides, and where their sites, cores and states lie."""
    lists = zip(plan.sides, plan.sites, plan.cores, stored_states(plan).places, strict=True)
    return (_Side * 2)(
        *(
            _Side(len(side[0]) - 1, *((ctypes.c_longlong * max(len(numbers), 1))(*numbers) for numbers in side))
            for side in lists
        )
    )


@dataclass(frozen=True)
class Compiler:
    """A C compiler.

    Attributes:
        program: Path of the compiler.
        fingerprint: Hash of all that decides whether a built library can be used again.
    """

    program: str
    fingerprint: str


@cache
def _compiler() -> Compiler:
    """Return the compiler of the machine, ``CC`` first.

    Raises:
        NoKernelError: There is none.
    """
    program = next(filter(None, map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")))), None)
    if program is None:
        raise NoKernelError("there is no C compiler (cc, gcc or clang) on the PATH")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    try:  # a home folder may be shared by machines with different processors
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        processor = ""
    text = "\n".join(
        [*FLAGS, THREADS, SOURCE.read_text(), version, platform.machine(), platform.processor(), processor]
    )
    return Compiler(program, hashlib.sha256(text.encode()).hexdigest()[:16])


@cache
def _library(number: str) -> ctypes.CDLL:
    """Return the library for ``float`` or ``double``, built unless a sound one is in the cache."""
    compiler = _compiler()
    path = Path.home() / ".cache" / "kdzoo" / "kernels" / f"sweep-{number}-{compiler.fingerprint}.so"
    library = compiled_library.load(path, lambda temporary: _build(compiler.program, number, temporary))
    integer, pointer = ctypes.c_longlong, ctypes.c_void_p
    shared: list[Any] = [integer, ctypes.POINTER(_Side), *[integer] * 3, *[pointer] * 3, *[pointer, integer] * 3]
    library.sweep_forward.argtypes = [*shared, pointer]
    library.sweep_backward.argtypes = [*shared, integer, pointer, pointer]
    library.sweep_forward.restype = library.sweep_backward.restype = None
    return library


def _build(program: str, number: str, path: Path) -> None:
    """Build the library, with threads if the compiler supports OpenMP (clang often comes without it)."""
    command = [program, *FLAGS, f"-DREAL={number}", str(SOURCE), "-o", str(path), "-lm"]
    for threads in ([THREADS], []):
        process = subprocess.run([*command, *threads], capture_output=True, text=True, timeout=300, check=False)
        if not process.returncode:
            return
    raise NoKernelError(f"{program} failed: {(process.stderr.strip().splitlines() or ['no message'])[-1]}")


@cache
def _width(number: str) -> int:
    """Return the number of samples that a tile of the C code holds side by side."""
    return int(_library(number).sweep_width())


@cache  # a failed build is not tried again for every batch
def _failure(number: str) -> str | None:
    """Return why the library cannot be used, or None."""
    try:
        _library(number)
    except (KdzooError, OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None
