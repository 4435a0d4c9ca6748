"""Loading of weights from a local file: safetensors, or torch files, of which no code is run."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from kdzoo.errors import CheckpointError, ConfigError, KdzooWarning, in_one_line
from kdzoo.storage.checksums import sha256_of

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
# Keys under which training scripts commonly store a state dict; Lightning uses the first.
WRAPPERS = ("state_dict", "model_state_dict", "model")
# Prefixes that wrappers add to all names: torch.compile, DataParallel, Lightning modules, and the distillers here.
PREFIXES = ("_orig_mod.", "module.", "model.", "student.")
# Maximum number of names in a message; a wrong file can have hundreds of them.
_NAMES_SHOWN = 3

Module = TypeVar("Module", bound=nn.Module)


def load_weights(module: Module, path: str | PathLike[str]) -> Module:
    """Copy the weights in a file into a module, all of them or none.

    Args:
        module: The module to fill, in place; its dtype and device stay.
        path: A local file, as for :func:`read_weights`. A prefix that a wrapper added to all names, of the file or of
            the module, is ignored.

    Returns:
        The same module.

    Raises:
        CheckpointError: If the file is unreadable, or its names, shapes or number types are not the
            module's.
        ConfigError: If the path is a URL.

    Example:
        >>> import os, tempfile, torch
        >>> path = os.path.join(tempfile.mkdtemp(), "weights.pt")
        >>> source, target = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, path)
        >>> bool((load_weights(target, path).weight == source.weight).all())
        True
    """
    weights, expected = read_weights(path), module.state_dict()
    # The names in the file have no prefix any more; those of a wrapped module, for example by torch.compile, need one.
    prefix = _common_prefix(expected)
    weights = {prefix + name: tensor for name, tensor in weights.items()}
    problems = (
        _listed("lacks", [repr(name) for name in expected if name not in weights]),
        _listed("has unknown", [repr(name) for name in weights if name not in expected]),
        _listed("does not fit", _mismatches(weights, expected)),
    )
    if any(problems):
        kind, description = type(module).__name__, "; ".join(filter(None, problems))
        raise CheckpointError(f"{path} does not match this {kind}: {description}")
    module.load_state_dict(weights)
    return module


def read_weights(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read named tensors from a local file onto the CPU; a file with Python objects is rejected and no code is run.

    The file may hold a state dict, directly or under ``state_dict``, ``model_state_dict`` or ``model``, or the
    checkpoint of a distiller, of which the student's part is read. Prefixes such as ``module.`` and ``model.`` that all
    names share are removed. Zip files, the format of ``torch.save``, are verified against their checksums. A
    safetensors file has none: it is verified against ``<name>.sha256`` beside it, as ``sha256sum`` writes it, or
    against the ``config.json`` of an exported model; without them, its values must be finite, and a warning is given.

    Args:
        path: A file named .safetensors, .pt, .pth, .ckpt or .bin.

    Returns:
        The tensors by name.

    Raises:
        CheckpointError: If the file is missing, empty, truncated or corrupt, or holds anything else than named
            tensors.
        ConfigError: If the path is a URL.

    Example:
        >>> import os, tempfile, torch
        >>> path = os.path.join(tempfile.mkdtemp(), "weights.pt")
        >>> torch.save({"model": {"module.bias": torch.zeros(2)}}, path)
        >>> read_weights(path)
        {'bias': tensor([0., 0.])}
    """
    file = _local_file(path)
    is_verified = _matches_side_car(file) or file.suffix != ".safetensors"
    try:
        content: Any = safetensors.torch.load_file(file) if file.suffix == ".safetensors" else _torch_content(file)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{file} is not a torch file, or holds Python objects, which are not run") from error
    except Exception as error:  # the readers raise errors of many kinds for bytes that are not a checkpoint
        raise CheckpointError(f"{file} cannot be read: {in_one_line(error)}") from error
    weights = _without_prefixes(_named_tensors(file, content))
    if not is_verified:
        _check_finite(file, weights)
    return weights


def _matches_side_car(file: Path) -> bool:
    """Return whether a checksum is beside a file, as ``sha256sum`` or an exported model writes it, and matches.

    Raises:
        CheckpointError: It does not match.
    """
    side_car = file.with_name(f"{file.name}.sha256")
    if side_car.is_file():
        stated = side_car.read_text(errors="replace").split()[:1]  # what follows is the name of the file
    elif (card := file.with_name("config.json")).is_file() and file.name == "model.safetensors":
        # Other programs write files of this name too, without a checksum.
        stated = [str(value) for key, value in _json_object(card).items() if key == "sha256"]
    else:
        stated = []
    if not stated:
        return False
    found = sha256_of(file)
    if found != stated[0]:
        raise CheckpointError(f"{file} is corrupt: its sha256 is {found}, and {stated[0]} is stated beside it")
    return True


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_finite(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Reject weights that are not numbers, the one kind of damage that shows without a checksum; say that it is so."""
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{file} is damaged: {name!r} has values that are NaN or infinite")
    warnings.warn(
        f"{file} has no checksum, so that damage to it may not be noticed; "
        f"write one beside it: sha256sum {file.name} > {file.name}.sha256",
        KdzooWarning,
        stacklevel=3,
    )


def _local_file(path: str | PathLike[str]) -> Path:
    if "://" in str(path):
        raise ConfigError(f"path must be a local file, got the URL {str(path)!r}")
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"{file} is missing or not a regular file")
    if file.suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise CheckpointError(f"{file} must be named .safetensors, {', '.join(TORCH_SUFFIXES)}")
    if file.stat().st_size == 0:
        raise CheckpointError(f"{file} is empty")
    return file


def _torch_content(file: Path) -> object:
    with file.open("rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"  # the signature of a zip file
    if is_zip:
        _check_zip(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _check_zip(file: Path) -> None:
    """Verify the checksums, which ``torch.load`` ignores."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{file} is truncated or corrupt: {in_one_line(error)}") from error
    if damaged is not None:
        raise CheckpointError(f"{file} is corrupt: the checksum of {damaged} does not match")


def _named_tensors(file: Path, content: object) -> dict[str, Tensor]:
    """Return the state dict in the content of a file, of which only the student's part if there is one."""
    wrappers = [w for w in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(w), Mapping)]
    weights = content[wrappers[0]] if wrappers and isinstance(content, Mapping) else content
    if not isinstance(weights, Mapping) or not weights:
        description = "an empty one" if isinstance(weights, Mapping) else type(weights).__name__
        raise CheckpointError(f"{file} must hold a dictionary of tensors, holds {description}")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or not _is_dense(tensor):
            raise CheckpointError(f"{file} must hold dense tensors only, {name!r} is {type(tensor).__name__}")
    students = {name: tensor for name, tensor in weights.items() if name.startswith("student.")}
    return students if wrappers and students else dict(weights)


def _is_dense(tensor: Tensor) -> bool:
    # Others cannot be copied into the parameters of a module: meta tensors, for example, have no values.
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized


def _common_prefix(names: Iterable[str]) -> str:
    """Return the longest chain of known prefixes that all names share, since wrappers may be nested."""
    remaining, prefix = list(names), ""
    while shared := [p for p in PREFIXES if remaining and all(n.startswith(p) and n != p for n in remaining)]:
        remaining, prefix = [n.removeprefix(shared[0]) for n in remaining], prefix + shared[0]
    return prefix


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = _common_prefix(weights)
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def _mismatches(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    shared = [(name, tensor, expected[name]) for name, tensor in weights.items() if name in expected]
    shapes = [f"{n!r} {list(a.shape)} for {list(b.shape)}" for n, a, b in shared if a.shape != b.shape]
    # Another precision is converted; integers for floats, as of a quantised model, would be a silent error.
    return shapes + [f"{n!r} {a.dtype} for {b.dtype}" for n, a, b in shared if _number_type(a) != _number_type(b)]


def _number_type(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def _listed(verb: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{verb} {', '.join(names[:_NAMES_SHOWN])}{more}" if names else ""
