"""The compiled sweep: C that is built on first use by the machine's own compiler, one thread per side of the chain.

The threads are those of OpenMP, which torch itself uses: others would compete with torch's, which spin while they wait.
Samples lie in the lanes of the vectors, so bonds of any size cost what they hold, and a step needs no more memory than
the states. The library goes to the user's cache under a name that depends on source, compiler and processor.
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

from kdzoo.atomic import write_file
from kdzoo.errors import KdzooError
from kdzoo.tensor_networks import buffers
from kdzoo.tensor_networks.layout import Layout
from kdzoo.tensor_networks.torch_sweep import EVERY, state

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


def forward(phi: Tensor, cores: Tensor, starts: tuple[Tensor, Tensor], plan: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Sweep from both ends towards the output; as ``torch_sweep.forward``, with samples padded to whole vectors."""
    library, width = _library(NUMBERS[phi.dtype]), _width(NUMBERS[phi.dtype])
    n = phi.shape[2]
    phi, cores = _padded(phi, width), cores.contiguous()
    samples = phi.shape[2]
    states = buffers.empty(plan.n_states, samples, dtype=phi.dtype)
    scales = phi.new_ones(2, max(len(bonds) - 1 for bonds in plan.sides) // EVERY, samples)
    log2 = phi.new_zeros(2, samples)
    for side, start in enumerate(starts):
        state(states, plan, side, 0).copy_(_padded(start, width))
    work = _work(phi, plan)
    library.sweep_forward(
        *(_threads(), _sides(plan), plan.d, samples, EVERY, *_pointers(phi, cores, states)),
        *(*_both(scales), *_pointers(log2), *_both(work)),
    )
    return states, scales, log2[:, :n]


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
    gradients, spares = (phi.new_empty(2, max(*plan.left, *plan.right), samples) for _ in range(2))
    for side, end in enumerate(ends):
        gradients[side, : len(end)] = _padded(end, width)
    work = _work(phi, plan)
    library.sweep_backward(
        *(_threads(), _sides(plan), plan.d, samples, EVERY, *_pointers(phi, cores, states), *_both(scales)),
        *(*_pointers(gradients), *_both(spares), *_both(work), *_pointers(core_gradients, phi_gradients)),
    )
    starts = (gradients[0, : plan.left[0], :n], gradients[1, : plan.right[0], :n])
    return None if phi_gradients is None else phi_gradients[..., :n], core_gradients, starts


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
    """Return where a tensor (2, ...) of both sides lies, and how many numbers one of them has."""
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
    lists = zip(plan.sides, plan.sites, plan.cores, plan.states, strict=True)
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
    shared: list[Any] = [integer, ctypes.POINTER(_Side), *[integer] * 3, *[pointer] * 4, integer]
    library.sweep_forward.argtypes = [*shared, pointer, pointer, integer]
    library.sweep_backward.argtypes = [*shared, pointer, pointer, integer, pointer, integer, pointer, pointer]
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
