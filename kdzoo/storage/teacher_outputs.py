"""The teacher's outputs on disk, so that a frozen teacher runs once for every sample instead of once for every epoch.

A store is a folder of shards, each a safetensors file with the outputs of a fixed block of consecutive training
samples, and a manifest with the checksums of the shards and of everything that they depend on. Any number of processes
fill a store together: each takes a block that nobody else is at, and the manifest is written when no block is left.
A block is computed from the same batches whoever computes it, so that the number of processes changes no byte, and
what a killed process has finished is kept. Memory is needed for one block in writing and for one batch in reading.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kdzoo.core.batch import Batch, as_batch
from kdzoo.core.frozen_teacher import ComputeOutputs, StoredOutputs, TeacherOutputs
from kdzoo.core.progress import stage, track
from kdzoo.core.samplers import EpochBatches
from kdzoo.errors import CacheError, ConfigError
from kdzoo.storage import checked_json, locks, run_folder, sharded_rows
from kdzoo.storage.checksums import sha256_of

MANIFEST = "manifest.json"
# Increase this number when older versions of this module cannot read the files: a store of another format has another
# name, and is left alone.
FORMAT = "2"
SHARD_ROWS = 1024
"""A shard holds so many rows, or as many more as complete its last batch."""
_SHARD_NAME = re.compile(r"rows_\d{9}-\d{9}\.safetensors")


def load_or_compute(
    folder: Path, fingerprint: Mapping[str, str], compute: ComputeOutputs, batches: Iterable[Any]
) -> StoredOutputs:
    """Return the teacher's outputs [n, ...] for all training samples, from ``folder`` or computed and stored there.

    Args:
        folder: The folder of the store.
        fingerprint: What the outputs depend on (teacher, inputs and their order, dtype, ...), as checksums.
        compute: Runs the teacher on a batch; called only for blocks that the folder lacks.
        batches: All training inputs in index order, not augmented.

    Raises:
        CacheError: The store was made from something else, or a file is missing or corrupt.
        ConfigError: The teacher does not return one row for each sample.
        RunFolderError: The disk is full, or the folder cannot be made.
    """
    fill(folder, fingerprint, compute, batches)
    return read(folder, fingerprint)


def compute_all(compute: ComputeOutputs, batches: Iterable[Any]) -> TeacherOutputs:
    """Return the outputs for all samples, in memory on the CPU."""
    return _joined(_outputs(compute, batch) for batch in track(batches, "computing the teacher's outputs"))


def fill(folder: Path, fingerprint: Mapping[str, str], compute: ComputeOutputs, batches: Iterable[Any]) -> None:
    """Compute what a store lacks, with all other processes that fill it now; return when it is complete.

    See :func:`load_or_compute` for the arguments and errors.
    """
    if (folder / MANIFEST).exists():
        return
    paths = _ensure_shards(folder, compute, batches, wait=False)
    if not all(path.exists() for path in paths):
        _ensure_shards(folder, compute, batches, wait=True)
    with locks.hold(folder / run_folder.LOCK, wait_for="the teacher's outputs"):
        if not (folder / MANIFEST).exists():
            shards = [{"file": path.name, "sha256": sha256_of(path)} for path in paths]
            # Written last: a folder without a manifest is not complete.
            checked_json.write(folder / MANIFEST, {"fingerprint": dict(fingerprint), "shards": shards})


def read(folder: Path, fingerprint: Mapping[str, str]) -> StoredOutputs:
    """Return the outputs of a complete store, memory-mapped; see :func:`load_or_compute` for the errors."""
    remedy = f"delete {folder} to compute it again"
    try:
        manifest = checked_json.read(folder / MANIFEST, CacheError, remedy)
        stored = dict(manifest["fingerprint"])
        checksums = {str(shard["file"]): str(shard["sha256"]) for shard in manifest["shards"]}
        if not checksums or not all(map(_SHARD_NAME.fullmatch, checksums)):  # a manifest names only files of its folder
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise CacheError(f"{folder / MANIFEST} is not a manifest of teacher outputs; {remedy}") from None
    for name in {**stored, **fingerprint}:
        if stored.get(name) != fingerprint.get(name):
            raise CacheError(f"the teacher outputs in {folder} were made with another {name}; {remedy}")
    for name, checksum in checksums.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != checksum:
            raise CacheError(f"the teacher outputs {folder / name} are missing or corrupt; {remedy}")
    try:
        return sharded_rows.join([sharded_rows.read(folder / name) for name in checksums])
    except ValueError as error:
        raise CacheError(f"the teacher outputs in {folder} do not fit together: {error}; {remedy}") from None


def weights_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a module's class, weights and buffers."""
    digest = hashlib.sha256(repr(model).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Block:
    """Consecutive training samples whose outputs make one shard.

    Attributes:
        first: The first sample.
        stop: The sample after the last one.
        batches: Functions that load the batches.
    """

    first: int
    stop: int
    batches: list[Callable[[], Batch]]

    def path(self, folder: Path) -> Path:
        """Return the path of the shard."""
        return folder / f"rows_{self.first:09}-{self.stop - 1:09}.safetensors"


def _blocks(batches: Iterable[Any]) -> Iterator[_Block]:
    """Yield the blocks of all training samples, in order."""
    block = _Block(0, 0, [])
    for n, load in _loads(batches):
        block = _Block(block.first, block.stop + n, [*block.batches, load])
        if block.stop - block.first >= SHARD_ROWS:
            yield block
            block = _Block(block.stop, block.stop, [])
    if block.batches:
        yield block


def _loads(batches: Iterable[Any]) -> Iterator[tuple[int, Callable[[], Batch]]]:
    """Yield the number of samples of each batch, and a function that loads it."""
    if isinstance(batches, DataLoader) and isinstance(batches.sampler, EpochBatches):
        # The keys of the batches tell their sizes, so that nothing is loaded for the blocks of other processes.
        for key in batches.sampler:
            yield len(key[1]), partial(_load, batches, key)
    else:
        for batch in batches:
            yield len(as_batch(batch)["input"]), partial(as_batch, batch)


def _load(loader: DataLoader[Batch], key: Any) -> Batch:
    collate: Callable[[Any], Any] = loader.collate_fn  # annotated for lists of samples; here it gets whole batches
    return as_batch(collate(loader.dataset[key]))


def _ensure_shards(folder: Path, compute: ComputeOutputs, batches: Iterable[Any], *, wait: bool) -> list[Path]:
    """Compute every block that is neither done nor in another process's hands, and return the paths of all shards.

    With ``wait``, wait for the blocks that other processes are at, and compute those that they leave undone.
    """
    paths = []
    total = len(batches) if isinstance(batches, Sized) else None
    with stage("computing the teacher's outputs", total, "batches") as advance:
        n_seen = 0
        for block in _blocks(batches):
            path = block.path(folder)
            with _at_block(path, wait=wait) as is_mine:
                if is_mine:
                    sharded_rows.write(path, _joined(_outputs(compute, load()) for load in block.batches))
            paths.append(path)
            n_seen += len(block.batches)
            advance(n_seen, "")
    return paths


@contextmanager
def _at_block(path: Path, *, wait: bool) -> Iterator[bool]:
    """Yield whether this process is the one to compute a shard, and keep others from it meanwhile."""
    if path.exists():
        yield False
        return
    lock = path.with_suffix(".lock")
    with locks.claim(lock, wait_for="the teacher's outputs" if wait else "") as is_claimed:
        # Looked up again: another process may have finished the shard before this one got the lock.
        yield is_claimed and not path.exists()
        if path.exists():
            lock.unlink(missing_ok=True)


def _outputs(compute: ComputeOutputs, batch: Any) -> TeacherOutputs:
    """Return the outputs for a batch, on the CPU.

    Raises:
        ConfigError: There is not one row for each sample.
    """
    batch = as_batch(batch)
    with torch.no_grad():
        outputs = {name: output.cpu() for name, output in compute(batch).items()}
    for name, output in outputs.items():
        if len(output) != len(batch["input"]):
            raise ConfigError(
                f"the teacher's output {name!r} has {len(output)} rows for {len(batch['input'])} samples; to be "
                "stored it needs one for each"
            )
    return outputs


def _joined(parts: Iterable[TeacherOutputs]) -> TeacherOutputs:
    """Return the rows of all parts by name, in order."""
    parts = list(parts)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _bytes(value: Tensor) -> bytes:
    """Return the elements of a tensor in order, as they are in memory."""
    # A copy, not contiguous(): a tensor of one element is contiguous for any stride, and then has no view
    # as bytes. NumPy has no bfloat16, but it has bytes.
    plain = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
    return plain.view(-1).view(torch.uint8).numpy().tobytes()
