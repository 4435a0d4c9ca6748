"""Synthetic sets as files for anyone: the same arrays in safetensors and NumPy's format, and what they are in words.

==============================================  ================================================================
images                                          [M, *in_shape], as the networks get them
labels                                          [M, C]
step_sizes.<inner_network>                            [N], one for each step
initial_weights.<inner_network>.<parameter>           only of an inner network whose networks all start from the same weights
==============================================  ================================================================

``synthetic.json`` says the rest; both other files hold the same text, as metadata and as the array ``about``.
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
from kdzoo.errors import CheckpointError
from kdzoo.storage import atomic

FORMAT = 1
"""Grows when files change so that older readers would misread them."""
NAME = "synthetic"
Pixels = Mapping[str, Sequence[float]]
_UPDATES = {
    "sgd": "w <- w - step_size * g",
    "momentum": "b <- momentum * b + g; w <- w - step_size * b",
    "adam": "torch.optim.Adam with lr = step_size, and eps_root added under its root",
}


@dataclass(frozen=True)
class SavedSet:
    """The content of a file.

    Attributes:
        images: [M, *in_shape].
        labels: [M, C].
        step_sizes: of each inner network, by name, [N].
        optimizer: ``sgd``, ``momentum`` or ``adam``; its constants are in ``about``.
        initial_weights: by inner network and parameter, of inner_networks with one fixed start.
        about: all that ``synthetic.json`` says.
    """

    images: Tensor
    labels: Tensor
    step_sizes: dict[str, Tensor]
    optimizer: str
    initial_weights: dict[str, dict[str, Tensor]]
    about: dict[str, Any]


# ---------------------------------------------------------------- writing


def write(few: SyntheticSet, folder: Path, pixels: Pixels | None = None) -> list[Path]:
    """Write ``synthetic.safetensors``, ``synthetic.npz`` and ``synthetic.json`` to a folder, and return their paths.

    Args:
        few: the set.
        folder: for the files.
        pixels: ``mean`` and ``std`` of each channel, if real pixels became (pixel / 255 - mean) / std for the networks.
    """
    about = _about(few, pixels)
    tensors, table = folder / f"{NAME}.safetensors", folder / f"{NAME}.json"
    atomic.write_bytes(tensors, save_safetensors(arrays(few), {"about": json.dumps(about)}))
    atomic.write_json(table, about)
    return [tensors, write_npz(few, folder / f"{NAME}.npz", pixels), table]


def write_npz(few: SyntheticSet, path: Path, pixels: Pixels | None = None) -> Path:
    """Write a set as one file for ``numpy.load``, and return its path; arguments as of :func:`write`."""
    content = io.BytesIO()
    held = {name: array.numpy() for name, array in arrays(few).items()}
    np.savez(content, about=np.array(json.dumps(_about(few, pixels))), **held)  # type: ignore[arg-type]
    atomic.write_bytes(path, content.getvalue())
    return path


def arrays(few: SyntheticSet) -> dict[str, Tensor]:
    """Return everything that is numbers, by name."""
    found: dict[str, Tensor] = {"images": few.images, "labels": few.labels}
    for name, inner_network in few.inner_networks.items():
        found[f"step_sizes.{name}"] = few.schedule(name)
        if inner_network.fixed is not None:
            start = inner_network.state(inner_network.sample(1)[0])
            found |= {f"initial_weights.{name}.{key}": value for key, value in start.items()}
    return {name: array.detach().cpu().contiguous().clone() for name, array in found.items()}


def _about(few: SyntheticSet, pixels: Pixels | None) -> dict[str, Any]:
    """Return what a set is, in plain values."""
    held = arrays(few)
    image = {1: "feature", 2: "row, column", 3: "channel, row, column"}
    kind = type(few.optimizer).__name__.lower()
    about = {
        "format": FORMAT,
        "layout": {
            "images": f"[example, {image.get(few.images.ndim - 1, '...')}], as the networks get them",
            "labels": "[example, class], soft; any numbers, unless label_kind is simplex or fixed (one-hot)",
            "step_sizes.<inner_network>": "[step]",
            "initial_weights.<inner_network>.<parameter>": "only where all networks of an inner network start from the same weights",
        },
        "shapes": {name: list(array.shape) for name, array in held.items()},
        "pixels": {"value": "(pixel / 255 - mean) / std", **pixels} if pixels else "not stated by the data",
        "label_kind": few.label_kind,
        "steps": few.steps,
        "batch": "every step sees all examples",
        "loss": "mean over the examples of -sum_c labels[c] * log_softmax(logits)[c]",
        "optimizer": {"name": kind, **dataclasses.asdict(few.optimizer), "update": _UPDATES[kind]},  # type: ignore[call-overload]
        "inner_networks": {name: _about_learner(inner_network) for name, inner_network in few.inner_networks.items()},
        "versions": {
            "kdzoo": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return {**about, "sha256": _digest(held, about)}


def _about_learner(inner_network: InnerNetwork) -> dict[str, Any]:
    """Return a network's layers and where its weights start, parameter by parameter."""
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
        "layers": {name: str(one) for name, one in inner_network.model.named_modules() if _is_leaf(one)},
        "start": start,
        "initial": {
            name: {
                "shape": list(offset.shape),
                **_distribution(float(offset.flatten()[0]), float(scales[name].flatten()[0]), distribution.is_normal),
            }
            for name, offset in offsets.items()
        },
    }


def _distribution(offset: float, scale: float, is_normal: bool) -> dict[str, Any]:
    """Return the distribution of one parameter's weights, in words and numbers."""
    if not scale:
        return {"distribution": "constant", "value": offset}
    if is_normal:
        return {"distribution": "normal", "mean": offset, "std": scale}
    return {"distribution": "uniform", "low": offset - scale, "high": offset + scale}


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _digest(arrays: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Return the SHA-256 of arrays, with their names, types and shapes, and of what else is said of them."""
    said = {key: value for key, value in about.items() if key != "sha256"}
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name].numpy()
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


# ---------------------------------------------------------------- reading


def read(path: str | Path) -> SavedSet:
    """Return the content of ``synthetic.npz``, ``synthetic.safetensors`` or of the folder that holds one of them.

    Raises:
        CheckpointError: the file is missing, damaged or no synthetic set.
    """
    path = Path(path)
    if path.is_dir():
        there = [path / f"{NAME}{suffix}" for suffix in _READERS if (path / f"{NAME}{suffix}").exists()]
        if not there:
            raise CheckpointError(f"{path} holds no synthetic set: neither {NAME}.safetensors nor {NAME}.npz")
        path = there[0]
    if path.suffix not in _READERS:
        raise CheckpointError(f"{path} must be a folder or end in {' or '.join(_READERS)}")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    try:
        arrays, text = _READERS[path.suffix](path)
        about = json.loads(text or "{}")
        layout = about.get("format")
        is_whole = layout == FORMAT and about["sha256"] == _digest(arrays, about)
    except Exception as error:  # a damaged or foreign file fails in many ways, zlib.error and KeyError among them
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or no synthetic set: {reason}") from error
    if layout != FORMAT:
        raise CheckpointError(f"{path} is no synthetic set of format {FORMAT}: its entry 'about' has format {layout!r}")
    if not is_whole:
        raise CheckpointError(f"{path} is damaged: its content does not have the sha256 that it states")
    return _distilled(arrays, about)


def _distilled(arrays: Mapping[str, Tensor], about: dict[str, Any]) -> SavedSet:
    """Return the arrays by inner network and parameter, in the order in which the set has them."""
    sizes = {name: arrays[f"step_sizes.{name}"] for name in about["inner_networks"]}
    starts = {}
    for name, inner_network in about["inner_networks"].items():
        full = {key: f"initial_weights.{name}.{key}" for key in inner_network["initial"]}
        if set(full.values()) <= set(arrays):
            starts[name] = {key: arrays[path] for key, path in full.items()}
    return SavedSet(arrays["images"], arrays["labels"], sizes, about["optimizer"]["name"], starts, about)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return all arrays and the text ``about``, empty where there is none."""
    with safe_open(path, framework="pt") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        return arrays, (file.metadata() or {}).get("about", "")


def _read_npz(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return all arrays and the text ``about``, empty where there is none."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != "about"}
        return arrays, str(file["about"]) if "about" in file.files else ""


_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}
