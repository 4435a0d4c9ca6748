"""The teacher's answers on disk, so that it costs nothing in any epoch.

A cache is a folder of safetensors shards, one for each block of 1024 rows of the training split in its
own order, and a manifest with a checksum of every shard and the fingerprint of all that the outputs
depend on. Blocks are fixed, so that the outputs do not depend on how the training draws its batches.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from kdzoo.core.base import TeacherOutputs
from kdzoo.core.batch import Batch, as_batch
from kdzoo.errors import CacheError
from kdzoo.storage import atomic
from kdzoo.storage.run_folder import is_main_process

BLOCK = 1024

Ask = Callable[[Batch], TeacherOutputs]
"""Asks the teacher about a batch, as :meth:`kdzoo.Distiller.teacher_outputs` does."""


def answers(folder: Path, fingerprint: Mapping[str, str], ask: Ask, batches: Iterable[Any]) -> TeacherOutputs:
    """Return the teacher's answers [n, ...] to all training rows, from ``folder`` or computed and kept there.

    Args:
        folder: the cache.
        fingerprint: what the answers depend on (teacher, inputs and their order, dtype, question), as checksums.
        ask: returns the answers to a batch, row by row; called only if the folder holds no complete cache.
        batches: all training inputs in index order, not augmented.

    Raises:
        CacheError: the folder was made from something else, or a shard is missing or corrupt.
    """
    manifest = folder / "manifest.json"
    if not manifest.exists():
        found = compute(ask, batches)
        if is_main_process():
            write(folder, fingerprint, found)
        return found
    return read(folder, fingerprint)


def compute(ask: Ask, batches: Iterable[Any]) -> TeacherOutputs:
    """Return the answers to all rows, on the CPU."""
    with torch.no_grad():
        return joined([{name: one.cpu() for name, one in ask(as_batch(batch)).items()} for batch in batches])


def joined(parts: Sequence[TeacherOutputs]) -> TeacherOutputs:
    """Return the rows of several answers, one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def write(folder: Path, fingerprint: Mapping[str, str], found: TeacherOutputs) -> None:
    """Write the shards, then the manifest that makes the cache complete."""
    checksums = []
    for i, start in enumerate(range(0, len(next(iter(found.values()))), BLOCK)):
        content = save({name: answer[start : start + BLOCK].contiguous() for name, answer in found.items()})
        atomic.write_bytes(shard(folder, i), content)
        checksums.append(hashlib.sha256(content).hexdigest())
    atomic.write_json(folder / "manifest.json", {"fingerprint": dict(fingerprint), "shards": checksums})


def read(folder: Path, fingerprint: Mapping[str, str]) -> TeacherOutputs:
    """Return the answers of a complete cache; see :func:`answers` for the errors."""
    remedy = f"delete {folder} to compute it again"
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        stored, checksums = dict(manifest["fingerprint"]), list(manifest["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CacheError(f"{folder / 'manifest.json'} is not a teacher-cache manifest; {remedy}") from None
    for name in {**stored, **fingerprint}:
        if stored.get(name) != fingerprint.get(name):
            raise CacheError(f"the teacher cache {folder} was made with another {name}; {remedy}")
    blocks = []
    for i, checksum in enumerate(checksums):
        path = shard(folder, i)
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != checksum:
            raise CacheError(f"teacher-cache shard {path} is missing or corrupt; {remedy}")
        blocks.append(load(content))
    return joined(blocks)


def shard(folder: Path, i: int) -> Path:
    """Return the path of the i-th shard."""
    return folder / f"shard-{i:05d}.safetensors"


def weights_fingerprint(model: nn.Module) -> str:
    """Return the sha256 of a module's class, weights and buffers."""
    digest = hashlib.sha256(repr(model).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
