"""The teacher's outputs on disk, so that a frozen teacher runs once for every sample instead of once for every epoch.

A store is a folder with one raw binary file for each named output, row i belonging to sample i of the training split,
and a manifest with the shapes, the checksums and a fingerprint of everything that the outputs depend on. The files are
written while the teacher runs and are read through a memory map, so neither needs memory for all samples.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from kdzoo.core.batch import as_batch
from kdzoo.core.frozen_teacher import ComputeOutputs, TeacherOutputs
from kdzoo.core.progress import track
from kdzoo.errors import CacheError
from kdzoo.storage import atomic
from kdzoo.storage.run_folder import is_main_process

MANIFEST = "manifest.json"
# A table instead of getattr(torch, name): a manifest is data, and must not name anything else.
_DTYPES = {
    str(dtype): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


def load_or_compute(
    folder: Path, fingerprint: Mapping[str, str], compute: ComputeOutputs, batches: Iterable[Any]
) -> TeacherOutputs:
    """Return the teacher's outputs [n, ...] for all training samples, from ``folder`` or computed and stored there.

    Args:
        folder: The folder of the store.
        fingerprint: What the outputs depend on (teacher, inputs and their order, dtype, ...), as checksums.
        compute: Runs the teacher on a batch; called only if the folder holds no complete store.
        batches: All training inputs in index order, not augmented.

    Raises:
        CacheError: The store was made from something else, or a file is missing or corrupt.
        RunFolderError: The disk is full.
    """
    if not (folder / MANIFEST).exists():
        if not is_main_process():  # only one process may write
            return compute_all(compute, batches)
        write(folder, fingerprint, compute, batches)
    return read(folder, fingerprint)


def compute_all(compute: ComputeOutputs, batches: Iterable[Any]) -> TeacherOutputs:
    """Return the outputs for all samples, in memory on the CPU."""
    parts = list(_outputs(compute, batches))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def write(folder: Path, fingerprint: Mapping[str, str], compute: ComputeOutputs, batches: Iterable[Any]) -> None:
    """Run the teacher on all batches, write its outputs, and last the manifest that makes the store complete."""
    with atomic.explained_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    partial = atomic.temporary_beside(folder / "outputs")
    try:
        with atomic.explained_errors(folder), ExitStack() as stack:
            partial.mkdir()
            files: dict[str, BinaryIO] = {}
            examples: TeacherOutputs = {}
            n = 0
            for outputs in _outputs(compute, batches):
                for name, output in outputs.items():
                    if name not in files:
                        files[name] = stack.enter_context((partial / name).open("wb"))
                    files[name].write(_bytes(output))
                    examples[name] = output[:0]  # for its dtype and the shape of a row
                n += len(next(iter(outputs.values())))
        entries = {}
        for name, like in examples.items():
            entries[name] = {
                "shape": [n, *like.shape[1:]],
                "dtype": str(like.dtype),
                "sha256": _checksum(partial / name),
            }
            atomic.move_into_place(partial / name, _path(folder, name))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    # Written last: a folder without a manifest is computed again.
    atomic.write_json(folder / MANIFEST, {"fingerprint": dict(fingerprint), "outputs": entries})


def read(folder: Path, fingerprint: Mapping[str, str]) -> TeacherOutputs:
    """Return the outputs of a complete store as memory-mapped tensors; see :func:`load_or_compute` for the errors."""
    remedy = f"delete {folder} to compute it again"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        stored, entries = dict(manifest["fingerprint"]), dict(manifest["outputs"])
        described = {
            name: (tuple(map(int, entry["shape"])), _DTYPES[entry["dtype"]], str(entry["sha256"]))
            for name, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        raise CacheError(f"{folder / MANIFEST} is not a manifest of teacher outputs; {remedy}") from None
    for name in {**stored, **fingerprint}:
        if stored.get(name) != fingerprint.get(name):
            raise CacheError(f"the teacher outputs in {folder} were made with another {name}; {remedy}")
    outputs = {}
    for name, (shape, dtype, checksum) in described.items():
        path = _path(folder, name)
        size = torch.Size(shape).numel()
        if not path.is_file() or path.stat().st_size != size * dtype.itemsize or _checksum(path) != checksum:
            raise CacheError(f"the teacher outputs {path} are missing or corrupt; {remedy}")
        # Not shared: the map is copy-on-write, so nothing that a training does can change the file.
        outputs[name] = torch.from_file(str(path), shared=False, size=size, dtype=dtype).view(shape)
    return outputs


def weights_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a module's class, weights and buffers."""
    digest = hashlib.sha256(repr(model).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _outputs(compute: ComputeOutputs, batches: Iterable[Any]) -> Iterator[TeacherOutputs]:
    """Yield the outputs for each batch, on the CPU."""
    for batch in track(batches, "computing the teacher's outputs"):
        with torch.no_grad():
            outputs = compute(as_batch(batch))
        yield {name: output.cpu() for name, output in outputs.items()}


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _bytes(value: Tensor) -> bytes:
    """Return the elements of a tensor in order, as they are in memory."""
    # A copy, not contiguous(): a tensor of one element is contiguous for any stride, and then has no view
    # as bytes. NumPy has no bfloat16, but it has bytes.
    plain = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
    return plain.view(-1).view(torch.uint8).numpy().tobytes()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
