"""The compiled sweep: C that is built on first use by the machine's own compiler, one thread per side of the chain.

Samples lie in the lanes of the vectors, so bonds of any size cost what they hold, and a step needs no more memory than
the states. The library goes to the user's cache under a name that depends on source, compiler and processor.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from kdzoo.atomic import write_file
from kdzoo.errors import KdzooError
from kdzoo.tensor_networks.layout import Layout
from kdzoo.tensor_networks.torch_sweep import EVERY, state

SOURCE = Path(__file__).with_name("sweep.c")
NUMBERS = {torch.float32: "float", torch.float64: "double"}
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")


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
    states = phi.new_empty(plan.n_states, samples)
    scales = phi.new_ones(2, max(len(bonds) - 1 for bonds in plan.sides) // EVERY, samples)
    log2 = phi.new_zeros(2, samples)
    for side, start in enumerate(starts):
        state(states, plan, side, 0).copy_(_padded(start, width))

    def sweep(side: int) -> None:
        numbers = (len(plan.sides[side]) - 1, plan.d, samples, EVERY)
        work = _work(phi, plan, side)
        arrays = (phi, cores, states, scales[side], log2[side], work)
        library.sweep_forward(*map(ctypes.c_longlong, numbers), *_arrays(plan, side), *map(_pointer, arrays))

    _both(sweep)
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
    core_gradients = torch.empty_like(cores)
    phi_gradients = torch.zeros_like(phi) if of_phi else None
    starts = [torch.empty(0), torch.empty(0)]

    def sweep(side: int) -> None:
        bonds = plan.sides[side]
        gradient, spare = (phi.new_empty(max(bonds), samples) for _ in range(2))
        gradient[: bonds[-1]] = _padded(ends[side], width)
        work = _work(phi, plan, side)
        numbers = (len(bonds) - 1, plan.d, samples, EVERY)
        arrays = (phi, cores, states, scales[side], gradient, spare, work, core_gradients, phi_gradients)
        library.sweep_backward(*map(ctypes.c_longlong, numbers), *_arrays(plan, side), *map(_pointer, arrays))
        starts[side] = gradient[: bonds[0], :n]

    _both(sweep)
    return None if phi_gradients is None else phi_gradients[..., :n], core_gradients, (starts[0], starts[1])


def padded_samples(samples: int, dtype: torch.dtype) -> int:
    """Return how many samples the compiled sweep holds for ``samples`` of them."""
    return samples + -samples % _width(NUMBERS[dtype])


def _both(sweep: Callable[[int], None]) -> None:
    """Sweep both sides, at once where torch may use two threads; C calls leave Python's lock."""
    if torch.get_num_threads() == 1:
        sweep(0)
        sweep(1)
        return
    other = _pool(os.getpid()).submit(sweep, 1)
    sweep(0)
    other.result()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a forked process needs a pool of its own
    return ThreadPoolExecutor(1, thread_name_prefix="sweep")


def _work(phi: Tensor, plan: Layout, side: int) -> Tensor:
    """Return room for the products of the features with a state."""
    rows = _library(NUMBERS[phi.dtype]).sweep_work_rows(plan.d * max(plan.sides[side]))
    return phi.new_empty(rows, phi.shape[2])


def _padded(tensor: Tensor, width: int) -> Tensor:
    """Return ``tensor`` contiguous, with zeros after its last dimension up to a multiple of ``width``."""
    more = -tensor.shape[-1] % width
    return (torch.nn.functional.pad(tensor, (0, more)) if more else tensor).contiguous()


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@lru_cache(maxsize=512)
def _arrays(plan: Layout, side: int) -> tuple["ctypes.Array[ctypes.c_longlong]", ...]:
    """Return bonds, and where sites, cores and states lie, as arrays for C."""
    lists = (plan.sides[side], plan.sites[side], plan.cores[side], plan.states[side])
    return tuple((ctypes.c_longlong * max(len(one), 1))(*one) for one in lists)


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
    text = "\n".join([*FLAGS, SOURCE.read_text(), version, platform.machine(), platform.processor(), processor])
    return Compiler(program, hashlib.sha256(text.encode()).hexdigest()[:16])


@cache
def _library(number: str) -> ctypes.CDLL:
    """Return the library for ``float`` or ``double``, built unless it is in the cache."""
    compiler = _compiler()
    path = Path.home() / ".cache" / "kdzoo" / "kernels" / f"sweep-{number}-{compiler.fingerprint}.so"
    if not path.is_file():
        write_file(path, lambda temporary: _build(compiler.program, number, temporary))
    return ctypes.CDLL(str(path))


def _build(program: str, number: str, path: Path) -> None:
    command = [program, *FLAGS, f"-DREAL={number}", str(SOURCE), "-o", str(path), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
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
