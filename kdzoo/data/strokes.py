"""Pen strokes as sequences of steps (pen, dx, dy), after Graves 2013, "Generating sequences with recurrent neural
networks", section 4: dx and dy lead to a point, and pen is 1 if the pen is lifted after it, else 0.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.data.tensors import Scaling
from kdzoo.errors import DataError


def offset_scaling(offsets: npt.NDArray[np.number]) -> Scaling:
    """Return mean and standard deviation of each coordinate of offsets [n, 2], n >= 1.

    Raises:
        DataError: a coordinate never changes.

    Example:
        >>> offset_scaling(np.array([[1, 2], [3, 6]]))
        {'mean': (2.0, 4.0), 'std': (1.0, 2.0)}
    """
    mean, std = offsets.mean(0, dtype=np.float64), offsets.std(0, dtype=np.float64)
    if not (std > 0).all():
        raise DataError(f"offsets have the standard deviations {std.tolist()}; allowed: > 0")
    return {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}


def stroke_steps(pen: npt.NDArray[np.number], offsets: npt.NDArray[np.number], scaling: Scaling) -> Tensor:
    """Return steps float32 [n, 3] of pen states [n], 0 or 1, and offsets [n, 2], which are standardised.

    Raises:
        DataError: a pen state is neither 0 nor 1.

    Example:
        >>> stroke_steps(np.array([1]), np.array([[5, -2]]), {"mean": (1.0, 0.0), "std": (2.0, 4.0)})
        tensor([[ 1.0000,  2.0000, -0.5000]])
    """
    wrong = np.flatnonzero((pen != 0) & (pen != 1))
    if len(wrong):
        raise DataError(f"pen state {pen[wrong[0]]} at step {wrong[0]} is not allowed; allowed: 0 or 1")
    standardised = (offsets - np.asarray(scaling["mean"])) / np.asarray(scaling["std"])
    return torch.from_numpy(np.column_stack([pen, standardised]).astype(np.float32))
