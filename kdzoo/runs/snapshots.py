"""Drawings of a model in the course of its training, which show what it learns first."""

import base64
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.kinds import Kind
from kdzoo.kinds.protocols import DrawsSnapshots

Draw = Callable[[nn.Module], Tensor | None]
"""Draws a model as images ``[n, c, h, w]`` in [0, 1]; returns None for a model that it cannot draw."""
Packed = dict[str, Any]
"""Images as plain JSON: their ``shape``, and their ``pixels`` of one byte, compressed and as base64."""


def pack(images: Tensor) -> Packed:
    """Return images ``[n, c, h, w]`` in [0, 1] as plain JSON, with 256 levels for each pixel.

    Example:
        >>> import torch
        >>> unpack(pack(torch.ones(1, 1, 1, 2))).tolist()
        [[[[1.0, 1.0]]]]
    """
    pixels = (images.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return {"shape": list(pixels.shape), "pixels": base64.b64encode(zlib.compress(pixels.tobytes())).decode()}


def unpack(packed: Mapping[str, Any]) -> NDArray[np.floating]:
    """Return packed images, ``[n, c, h, w]`` in [0, 1]."""
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(packed["pixels"])), dtype=np.uint8)
    return pixels.reshape(packed["shape"]) / 255


def drawing(kind: Kind, data: Any) -> Draw | None:
    """Return the function that draws models of a kind; None for kinds that draw none."""
    return kind.snapshots(data) if isinstance(kind, DrawsSnapshots) else None


def draw(role: str, snapshots: Mapping[str, Packed], folder: Path) -> Path | None:
    """Draw the snapshots of a model, a row for each number of epochs; nothing if there are none.

    Args:
        role: The model in the run, such as ``student``.
        snapshots: Packed images by the number of epochs.
        folder: Folder for the figure.
    """
    if not snapshots:
        return None
    rows = {f"{epochs} epoch{'s' * (epochs != '1')}": unpack(packed) for epochs, packed in snapshots.items()}
    return plotting.image_rows(
        rows,
        folder / f"training_{role}.png",
        title=f"The {role} in its training",
        caption=f"Samples of the {role} from the same noise, after a growing number of epochs.",
    )
