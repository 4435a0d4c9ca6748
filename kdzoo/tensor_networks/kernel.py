"""The compiled sweep: C that is built on first use by the machine's own compiler, one thread per side of the chain.

The threads are those of OpenMP, which torch itself uses: others would compete with torch's, which spin while they wait.
Samples lie in the lanes of the vectors, so bonds of any size cost what they hold. Every second state is kept, and a
step needs no more memory; the others are computed again, which takes about as long as to write and read them would.
As after torch's own operators, a process that is forked after a sweep must use one thread, as workers of loaders do.
The library goes to the user's cache under a name that depends on source, compiler and processor.
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
from kdzoo.storage.atomic import write_file
from kdzoo.tensor_networks import buffers
from kdzoo.tensor_networks.layout import Layout
from kdzoo.tensor_networks.torch_sweep import EVERY, Swept

SOURCE = Path(__file__).with_name("sweep.c")
NUMBERS = {torch.float32: "float", torch.float64: "double"}
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")
THREADS = "-fopenmp"


class NoKernelError(KdzooError):
    """The compiled sweep cannot be built or does not take these tensors; the message says why."""


def available(like: Tensor) -> str | None:
    """Return None if the compiled sweep takes tensors such as ``like``, else the reason why it does not."""
    if like.device.type != "cpu":
        return f"it runs on the CPU, got tensors on {like.device}"
    if like.dtype not in NUMBERS:
        return f"it takes float32 and float64, got {like.dtype}"
    return _failure(NUMBERS[like.dtype])


def forward(phi: Tensor, cores: Tensor, starts: tuple[Tensor, Tensor], plan: Layout) -> Swept:
    """Sweep from both ends towards the output; as ``torch_sweep.forward``, with samples padded to whole vectors."""
    library, width = _library(NUMBERS[phi.dtype]), _width(NUMBERS[phi.dtype])
    n = phi.shape[2]
    phi, cores = _padded(phi, width), cores.contiguous()
    samples, kept = phi.shape[2], stored_states(plan)
    states = buffers.empty(kept.rows, samples, dtype=phi.dtype)
    scales = phi.new_ones(2, max(len(bonds) - 1 for bonds in plan.sides) // EVERY, samples)
    log2 = phi.new_zeros(2, samples)
    for start, at in zip(starts, kept.places, strict=True):
        states[at[0] : at[0] + len(start)] = _padded(start, width)
    work, room = _work(phi, plan), phi.new_empty(2, max(*plan.left, *plan.right), samples)
    library.sweep_forward(
        *(_threads(), _sides(plan), plan.d, samples, EVERY, *_pointers(phi, cores, states)),
        *(*_both(scales), *_both(work), *_both(room), *_pointers(log2)),
    )
    left, right = (states[at[-1] : at[-1] + bonds[-1], :n] for at, bonds in zip(kept.places, plan.sides, strict=True))
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
    """Return the gradients of features (if asked for), cores and starts; as ``torch_sweep.backward``."""
    library, width = _library(NUMBERS[phi.dtype]), _width(NUMBERS[phi.dtype])
    n = phi.shape[2]
    phi, cores = _padded(phi, width), cores.contiguous()
    samples = phi.shape[2]
    states, scales = saved
    core_gradients = buffers.empty(len(cores), dtype=cores.dtype)
    phi_gradients = torch.zeros_like(phi) if of_phi else None
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
    """Which states the compiled sweep keeps: every second one, and the last one of each side.

    Attributes:
        places: Of each state of the left and of the right side, the row where it begins; -1 of those not kept.
        rows: Rows of all that are kept.
    """

    places: tuple[list[int], list[int]]
    rows: int


@lru_cache(maxsize=256)
def stored_states(plan: Layout) -> StoredStates:
    """Return where the states lie that are kept."""
    places: tuple[list[int], list[int]] = ([], [])
    rows = 0
    for bonds, at in zip(plan.sides, places, strict=True):
        for step, bond in enumerate(bonds):
            is_kept = step % 2 == 0 or step == len(bonds) - 1
            at.append(rows if is_kept else -1)
            rows += bond * is_kept
    return StoredStates(places, rows)


def padded_samples(samples: int, dtype: torch.dtype) -> int:
    """Return how many samples the compiled sweep holds for ``samples`` of them."""
    return samples + -samples % _width(NUMBERS[dtype])


def _threads() -> int:
    """Return 2 to sweep both sides at once, where torch may use two threads."""
    return min(torch.get_num_threads(), 2)


def _work(phi: Tensor, plan: Layout) -> Tensor:
    """Return room for the products of the features with a state, for both sides."""
    rows = _library(NUMBERS[phi.dtype]).sweep_work_rows(plan.d * max(*plan.left, *plan.right))
    return phi.new_empty(2, rows, phi.shape[2])


def _padded(tensor: Tensor, width: int) -> Tensor:
    """Return ``tensor`` contiguous, with zeros after its last dimension up to a multiple of ``width``."""
    more = -tensor.shape[-1] % width
    return (torch.nn.functional.pad(tensor, (0, more)) if more else tensor).contiguous()


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    """Return where tensors lie."""
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def _both(tensor: Tensor) -> tuple[ctypes.c_void_p, int]:
    """Return where a tensor ``[2, ...]`` of both sides lies, and how many numbers one of them has."""
    return _pointers(tensor)[0], tensor.stride(0)


class _Side(ctypes.Structure):
    """One side of a chain, as the C code has it."""

    _fields_: ClassVar = [
        ("sites", ctypes.c_longlong),
        *((name, ctypes.POINTER(ctypes.c_longlong)) for name in ("dims", "site_at", "core_at", "state_at")),
    ]


@lru_cache(maxsize=512)
def _sides(plan: Layout) -> "ctypes.Array[_Side]":
    """Return bonds, and where sites, cores and states of both sides lie."""
    lists = zip(plan.sides, plan.sites, plan.cores, stored_states(plan).places, strict=True)
    return (_Side * 2)(
        *(_Side(len(one[0]) - 1, *((ctypes.c_longlong * max(len(row), 1))(*row) for row in one)) for one in lists)
    )


@dataclass(frozen=True)
class Compiler:
    """A C compiler: its program, and all that decides whether a built library can be used again."""

    program: str
    fingerprint: str


@cache
def _compiler() -> Compiler:
    program = next(filter(None, map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")))), None)
    if program is None:
        raise NoKernelError("there is no C compiler (cc, gcc or clang) on the PATH")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    try:  # a home folder may be shared by machines of different processors
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
    """Return the library for ``float`` or ``double``, built unless it is in the cache."""
    compiler = _compiler()
    path = Path.home() / ".cache" / "kdzoo" / "kernels" / f"sweep-{number}-{compiler.fingerprint}.so"
    if not path.is_file():
        write_file(path, lambda temporary: _build(compiler.program, number, temporary))
    library = ctypes.CDLL(str(path))
    integer, pointer = ctypes.c_longlong, ctypes.c_void_p
    shared: list[Any] = [integer, ctypes.POINTER(_Side), *[integer] * 3, *[pointer] * 3, *[pointer, integer] * 3]
    library.sweep_forward.argtypes = [*shared, pointer]
    library.sweep_backward.argtypes = [*shared, integer, pointer, pointer]
    library.sweep_forward.restype = library.sweep_backward.restype = None
    return library


def _build(program: str, number: str, path: Path) -> None:
    """Build the library, with threads if the compiler knows those of OpenMP."""
    command = [program, *FLAGS, f"-DREAL={number}", str(SOURCE), "-o", str(path), "-lm"]
    for more in ([THREADS], []):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=300, check=False)
        if not done.returncode:
            return
    raise NoKernelError(f"{program} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


@cache
def _width(number: str) -> int:
    return int(_library(number).sweep_width())


@cache
def _failure(number: str) -> str | None:
    try:
        _library(number)
    except (KdzooError, OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None
