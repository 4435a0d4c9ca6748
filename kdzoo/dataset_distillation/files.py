"""Synthetic sets as files that need no kdzoo: the same arrays in safetensors and in NumPy's format, with a description.

==============================================  ================================================================
images                                          ``[M, *in_shape]``, as they are given to the networks
labels                                          ``[M, C]``
step_sizes.<inner_network>                      ``[N]``, one for each step
initial_weights.<inner_network>.<parameter>     only of an inner network whose networks all start from the same weights
==============================================  ================================================================

``synthetic.json`` describes the set: layout, optimizer, loss, inner networks and versions. Both other files hold the
same text, as metadata and as the array ``about``, so that each of them can be read without the others.
"""

import dataclasses
import hashlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from kdzoo import __version__
from kdzoo.dataset_distillation.inner_network import InnerNetwork
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet
from kdzoo.errors import CheckpointError, first_line
from kdzoo.storage import atomic

# Version of the layout, to be raised by a change after which older readers would misread the files.
FORMAT = 1
NAME = "synthetic"
"""Name of the files without their suffix."""
Pixels = Mapping[str, Sequence[float]]
"""``mean`` and ``std`` of each channel, by which pixels were standardised."""
# Formulas for readers that train without kdzoo. ``g`` is the gradient of the loss in the description.
_UPDATES = {
    "sgd": "w <- w - step_size * g",
    "momentum": "b <- momentum * b + g; w <- w - step_size * b",
    "adam": "torch.optim.Adam with lr = step_size, and eps_root added under its root",
}


@dataclass(frozen=True)
class SavedSet:
    """The content of a file.

    Attributes:
        images: Images ``[M, *in_shape]``.
        labels: Labels ``[M, C]``.
        step_sizes: Step sizes ``[N]`` by the name of the inner network.
        optimizer: ``sgd``, ``momentum`` or ``adam``; its constants are in ``about``.
        initial_weights: Initial weights by inner network and parameter, of those with one fixed start.
        about: The description, as in ``synthetic.json``.
    """

    images: Tensor
    labels: Tensor
    step_sizes: dict[str, Tensor]
    optimizer: str
    initial_weights: dict[str, dict[str, Tensor]]
    about: dict[str, Any]


# ---------------------------------------------------------------- writing


def write(synthetic_set: SyntheticSet, folder: Path, pixels: Pixels | None = None) -> list[Path]:
    """Write ``synthetic.safetensors``, ``synthetic.npz`` and ``synthetic.json`` to a folder, and return their paths.

    Args:
        synthetic_set: The set.
        folder: Folder of the files.
        pixels: ``mean`` and ``std`` of each channel, if the networks were given (pixel / 255 - mean) / std; None if it
            is not known how pixels were scaled.
    """
    about = _description(synthetic_set, pixels)
    tensor_path, json_path = folder / f"{NAME}.safetensors", folder / f"{NAME}.json"
    atomic.write_bytes(tensor_path, save_safetensors(arrays(synthetic_set), {"about": json.dumps(about)}))
    atomic.write_json(json_path, about)
    return [tensor_path, write_npz(synthetic_set, folder / f"{NAME}.npz", pixels), json_path]


def write_npz(synthetic_set: SyntheticSet, path: Path, pixels: Pixels | None = None) -> Path:
    """Write a set as one file for ``numpy.load``, and return its path; for the arguments see :func:`write`."""
    content = io.BytesIO()
    by_name = {name: array.numpy() for name, array in arrays(synthetic_set).items()}
    np.savez(content, about=np.array(json.dumps(_description(synthetic_set, pixels))), **by_name)  # type: ignore[arg-type]
    atomic.write_bytes(path, content.getvalue())
    return path


def arrays(synthetic_set: SyntheticSet) -> dict[str, Tensor]:
    """Return the arrays of a set by their name in the files, on the CPU."""
    result: dict[str, Tensor] = {"images": synthetic_set.images, "labels": synthetic_set.labels}
    for name, inner_network in synthetic_set.inner_networks.items():
        result[f"step_sizes.{name}"] = synthetic_set.schedule(name)
        if inner_network.fixed is not None:
            initial = inner_network.state(inner_network.sample(1)[0])
            result |= {f"initial_weights.{name}.{key}": value for key, value in initial.items()}
    # Safetensors rejects tensors that are not contiguous or share memory, as parts of one row of weights do.
    return {name: array.detach().cpu().contiguous().clone() for name, array in result.items()}


def _description(synthetic_set: SyntheticSet, pixels: Pixels | None) -> dict[str, Any]:
    """Return everything that is needed to train on the arrays, in plain values, with a checksum of all."""
    by_name = arrays(synthetic_set)
    axes = {1: "feature", 2: "row, column", 3: "channel, row, column"}.get(synthetic_set.images.ndim - 1, "...")
    optimizer = type(synthetic_set.optimizer).__name__.lower()
    constants = dataclasses.asdict(synthetic_set.optimizer)  # type: ignore[call-overload]
    about = {
        "format": FORMAT,
        "layout": {
            "images": f"[example, {axes}], as they are given to the networks",
            "labels": "[example, class], soft; any numbers, unless label_kind is simplex or fixed (one-hot)",
            "step_sizes.<inner_network>": "[step]",
            "initial_weights.<inner_network>.<parameter>": "only where all networks start from the same weights",
        },
        "shapes": {name: list(array.shape) for name, array in by_name.items()},
        "pixels": {"value": "(pixel / 255 - mean) / std", **pixels} if pixels else "not stated by the data",
        "label_kind": synthetic_set.label_kind,
        "steps": synthetic_set.steps,
        "batch": "every step uses all examples",
        "loss": "mean over the examples of -sum_c labels[c] * log_softmax(logits)[c]",
        "optimizer": {"name": optimizer, **constants, "update": _UPDATES[optimizer]},
        "inner_networks": {name: _describe(network) for name, network in synthetic_set.inner_networks.items()},
        # Initialisations and numerical kernels may differ between releases.
        "versions": {
            "kdzoo": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return {**about, "sha256": _digest(by_name, about)}


def _describe(inner_network: InnerNetwork) -> dict[str, Any]:
    """Return the layers of an inner network and the distribution of the initial weights of each parameter."""
    start = "each network from new weights"
    if inner_network.fixed is not None:
        start = "all networks from initial_weights, which were drawn once"
    if inner_network.pool_size:
        start = (
            f"one of {inner_network.pool_size} networks that were drawn and then trained on the real data, "
            f"by {inner_network.pool_steps} steps of Adam; their weights are not in these files"
        )
    distribution = inner_network.initial
    offsets, scales = inner_network.state(distribution.offset), inner_network.state(distribution.scale)
    return {
        "class": type(inner_network.model).__name__,
        "layers": {name: str(module) for name, module in inner_network.model.named_modules() if _is_leaf(module)},
        "start": start,
        # Offset and scale are constant within a parameter: its first entry is that of all.
        "initial": {
            name: {
                "shape": list(offset.shape),
                **_distribution(float(offset.flatten()[0]), float(scales[name].flatten()[0]), distribution.is_normal),
            }
            for name, offset in offsets.items()
        },
    }


def _distribution(offset: float, scale: float, is_normal: bool) -> dict[str, Any]:
    """Return the distribution of one parameter's initial weights, as a name and its constants."""
    if not scale:
        return {"distribution": "constant", "value": offset}
    if is_normal:
        return {"distribution": "normal", "mean": offset, "std": scale}
    return {"distribution": "uniform", "low": offset - scale, "high": offset + scale}


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _digest(arrays: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Return the SHA-256 of arrays with their names, types and shapes, and of the rest of their description."""
    description = {key: value for key, value in about.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name].numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- reading


def read(path: str | Path) -> SavedSet:
    """Read a synthetic set; no code in the file is run.

    Args:
        path: Path of ``synthetic.npz`` or ``synthetic.safetensors``, or of the folder that holds one of them.

    Raises:
        CheckpointError: The file is missing or damaged, or is not a synthetic set.
    """
    path = Path(path)
    if path.is_dir():
        existing = [path / f"{NAME}{suffix}" for suffix in _READERS if (path / f"{NAME}{suffix}").exists()]
        if not existing:
            raise CheckpointError(f"{path} holds no synthetic set: neither {NAME}.safetensors nor {NAME}.npz")
        path = existing[0]
    if path.suffix not in _READERS:
        raise CheckpointError(f"{path} must be a folder or end in {' or '.join(_READERS)}")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    try:
        arrays, text = _READERS[path.suffix](path)
        about = json.loads(text or "{}")
        layout = about.get("format")
        is_intact = layout == FORMAT and about["sha256"] == _digest(arrays, about)
    except Exception as error:  # a damaged or foreign file fails in many ways, zlib.error and KeyError among them
        reason = first_line(error)
        raise CheckpointError(f"{path} is damaged or not a synthetic set: {reason}") from error
    if layout != FORMAT:
        raise CheckpointError(
            f"{path} is not a synthetic set of format {FORMAT}: its entry 'about' has format {layout!r}"
        )
    if not is_intact:
        raise CheckpointError(f"{path} is damaged: its content does not have the sha256 that it states")
    return _saved_set(arrays, about)


def _saved_set(arrays: Mapping[str, Tensor], about: dict[str, Any]) -> SavedSet:
    """Return the arrays by inner network and parameter, in the order of the description."""
    # Not by splitting the names of the arrays at their dots: the names of parameters contain dots themselves.
    step_sizes = {name: arrays[f"step_sizes.{name}"] for name in about["inner_networks"]}
    initial_weights = {}
    for name, inner_network in about["inner_networks"].items():
        names = {key: f"initial_weights.{name}.{key}" for key in inner_network["initial"]}
        if set(names.values()) <= set(arrays):
            initial_weights[name] = {key: arrays[full_name] for key, full_name in names.items()}
    optimizer = about["optimizer"]["name"]
    return SavedSet(arrays["images"], arrays["labels"], step_sizes, optimizer, initial_weights, about)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return all arrays and the text ``about``, empty where there is none."""
    with safe_open(path, framework="pt") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return arrays, (file.metadata() or {}).get("about", "")


def _read_npz(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return all arrays and the text ``about``, empty where there is none."""
    with np.load(path, allow_pickle=False) as file:  # pickled objects run code when they are loaded
        arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != "about"}
        return arrays, str(file["about"]) if "about" in file.files else ""


_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}
