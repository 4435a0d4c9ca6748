"""Checkpoints for resuming, and exported models: complete or absent, verified, and read without running code.

A checkpoint (``.ckpt``) is for resuming only. What users exchange is an exported model: a folder with
``model.safetensors`` and ``config.json``, which names the class, its arguments and the checksum of the weights.
"""

import hashlib
import io
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from kdzoo import config
from kdzoo.config.plain_values import check_plain
from kdzoo.config.roles import models_in
from kdzoo.errors import CheckpointError
from kdzoo.storage import atomic, checked_json

# Increase this number when older versions of this module cannot read the files.
FORMAT = 2
# Characters of torch's list of weights that are missing or left over; a network may have hundreds.
LONGEST_REASON = 200


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically; verifies them when they are read, and runs no code from them."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write the checkpoint; an existing one stays until the new one is complete."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        atomic.write_bytes(Path(path), buffer.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:  # noqa: ARG002
        """Read a checkpoint; see :func:`read_checkpoint`."""
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint file.

    Raises:
        CheckpointError: The file is missing, truncated, fails its checksum or holds more than data.
    """
    try:
        # torch.load does not verify the checksums of the archive, so a flipped bit would become a wrong weight.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        content = None if damaged else torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors and plain values; it is not loaded") from error
    except Exception as error:  # a damaged archive fails in many ways, UnicodeDecodeError among them
        size = path.stat().st_size
        raise CheckpointError(f"{path} is truncated or not a checkpoint ({size} bytes)") from error
    if content is None:
        raise CheckpointError(f"{path} is corrupt: record {damaged} fails its checksum")
    return content


def save_model(model: nn.Module, node: Mapping[str, Any], folder: Path) -> None:
    """Write ``model`` to ``folder`` as ``model.safetensors`` and ``config.json``.

    Args:
        model: The module.
        node: Its configuration: ``_target_`` and plain arguments, enough to build it again.
        folder: The folder, which is made if it does not exist; files of the same name are replaced.
    """
    # Cloned, because safetensors rejects tensors that share memory, such as tied weights.
    weights = save_safetensors({key: value.contiguous().clone() for key, value in model.state_dict().items()})
    atomic.write_bytes(folder / "model.safetensors", weights)
    description = {"format": FORMAT, "model": dict(node), "sha256": hashlib.sha256(weights).hexdigest()}
    checked_json.write(folder / "config.json", description)


def load_student(folder: str | Path, *, allow: Collection[str] = ()) -> nn.Module:
    """Return an exported model in eval mode.

    Args:
        folder: The ``student`` folder of a run (also ``teacher`` and ``control``), or a run folder.
        allow: Names of your own classes (``"my_models.Net"``) that the folder may build; packaged models are always
            allowed. A configuration that comes with weights is data, not code.

    Raises:
        CheckpointError: A file is missing or corrupt, or the weights do not fit the class.
        ConfigError: The folder names a class that is not allowed, or something else than plain values.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} must be the folder of an exported model")
    if not (folder / "config.json").exists() and (folder / "student" / "config.json").exists():
        folder = folder / "student"
    description, weights = _read_description(folder), _read_bytes(folder / "model.safetensors")
    if hashlib.sha256(weights).hexdigest() != description["sha256"]:
        raise CheckpointError(f"{folder / 'model.safetensors'} is corrupt: its sha256 is not the one in config.json")
    model = config.instantiate(description["model"], allow=models_in(allow))
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"{folder} describes {type(model).__name__}, which is not a torch.nn.Module")
    try:
        model.load_state_dict(load_safetensors(weights))
    except (RuntimeError, SafetensorError) as error:
        reason = shorten(str(error).splitlines()[-1].strip(), LONGEST_REASON, placeholder=" ...")
        raise CheckpointError(
            f"the weights in {folder} do not fit {description['model']['_target_']}, as after a change of its code; "
            f"delete the folder if it is in a cache: {reason}"
        ) from error
    return model.eval()


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    description = checked_json.read(path, CheckpointError)
    model, sha256 = description.get("model"), description.get("sha256")
    has_target = isinstance(model, dict) and isinstance(model.get("_target_"), str)
    if description.get("format") != FORMAT or not has_target or not isinstance(sha256, str):
        raise CheckpointError(f"{path} is not the description of an exported model (format {FORMAT})")
    check_plain(model, str(path))
    return description


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
