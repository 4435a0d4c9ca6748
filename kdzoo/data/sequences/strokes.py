"""Pen strokes as sequences of steps (pen, dx, dy), after Graves 2013, "Generating sequences with recurrent neural
networks", section 4: dx and dy lead to a point, and pen is 1 if the pen is lifted after it, else 0.
"""

from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core.abilities import Scaling
from kdzoo.core.validation import integer
from kdzoo.errors import DataError

_PIXELS_PER_PEN = 28
"""The line is as wide as one of this many parts of the image's height, at least one pixel."""
_BLOCK = 2**17
"""Pieces of line that are drawn at once."""


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


def unstandardised(steps: Tensor, scaling: Scaling) -> Tensor:
    """Return steps [..., 3] whose offsets are those of the drawing.

    Example:
        >>> unstandardised(torch.tensor([[1.0, 2.0, -0.5]]), {"mean": (1.0, 0.0), "std": (2.0, 4.0)})
        tensor([[ 1.,  5., -2.]])
    """
    mean, std = (steps.new_tensor(scaling[key]) for key in ("mean", "std"))
    return torch.cat([steps[..., :1], steps[..., 1:] * std + mean], -1)


def stroke_images(steps: Tensor, lengths: Tensor | None = None, size: int | tuple[int, int] = 28) -> Tensor:
    """Return drawings as images: ink is 1, paper is 0, and a pixel on the edge of a line lies in between.

    The pen begins on the paper at the origin. A drawing is scaled, by the same factor in both directions, and moved so
    that it fills the box and is in its middle; y grows downwards. A line is one 28th of the box's height wide, and at
    least a pixel; a pixel's ink falls from 1 to 0 between half a pixel within the line's edge and half a pixel without.

    Args:
        steps: [n, T, 3] of (pen, dx, dy), not standardised; the pen is lifted after a step where pen > 0.5.
        lengths: int64 [n], steps of each drawing; None: T. Drawings of no steps, and those that are not finite, are
            blank.
        size: height and width in pixels, each >= 8; one number for both.

    Returns:
        float32 [n, 1, height, width] in [0, 1].

    Raises:
        ConfigError: a size is below 8.
    """
    sides = (size, size) if isinstance(size, int) else size
    height, width = (integer("size", side, 8) for side in sides)
    pen = max(1.0, height / _PIXELS_PER_PEN)
    window = ceil(pen / 2 + 0.5)  # pixels around a piece's middle that its ink may reach
    starts, ends, is_drawn = _lines(steps.float(), lengths)
    room = steps.new_tensor([width, height], dtype=torch.float32) - 2 * (window + 1)
    starts, ends = _fitted(starts, ends, is_drawn, room)
    is_drawn = is_drawn & starts.isfinite().all(2) & ends.isfinite().all(2)
    starts, ends = (one[is_drawn] + (room + 2 * window + 1) / 2 for one in (starts, ends))
    canvas = steps.new_zeros(len(steps) * height * width, dtype=torch.float32)
    _ink(canvas, is_drawn.nonzero()[:, 0], starts, ends, (height, width), pen, window)
    return canvas.reshape(-1, 1, height, width)


def _lines(steps: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the line of each step begins and ends, [n, T, 2], and which there are, bool [n, T].

    After the pen was lifted a step's line is a dot at its end.
    """
    n, count = steps.shape[:2]
    ends = steps[..., 1:].cumsum(1)
    starts = torch.cat([ends.new_zeros(n, 1, 2), ends[:, :-1]], 1)
    was_lifted = torch.cat([steps.new_zeros(n, 1), steps[:, :-1, 0]], 1) > 0.5
    time = torch.arange(count, device=steps.device)
    here = torch.full((n,), count, device=steps.device) if lengths is None else lengths.to(steps.device)
    return torch.where(was_lifted[..., None], ends, starts), ends, time < here[:, None]


def _fitted(starts: Tensor, ends: Tensor, is_drawn: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Return lines scaled to a room [2] of which the middle is the origin."""
    absent = ~is_drawn[..., None]
    low = torch.minimum(starts, ends).masked_fill(absent, torch.inf).amin(1, keepdim=True)
    high = torch.maximum(starts, ends).masked_fill(absent, -torch.inf).amax(1, keepdim=True)
    scale = (room / (high - low)).amin(2, keepdim=True)
    scale = torch.where(scale.isinf(), 0.0, scale)  # a single dot
    return (starts - (low + high) / 2) * scale, (ends - (low + high) / 2) * scale


def _ink(
    canvas: Tensor, rows: Tensor, starts: Tensor, ends: Tensor, size: tuple[int, int], pen: float, window: int
) -> None:
    """Draw lines into the images of a canvas [n * height * width].

    A line is cut into pieces of at most a pixel, each of which is drawn into a small window around its middle. Of the
    ink of several pieces the darkest stays, so that the distance to a line is the least of those to its pieces.

    Args:
        canvas: is changed.
        rows: int64 [m], the image of each line.
        starts: (x, y) of the lines in pixels, [m, 2].
        ends: of the lines, [m, 2].
        size: height and width.
        pen: width of a line in pixels.
        window: pixels on each side of the middle.
    """
    height, width = size
    along = ends - starts
    pieces = along.norm(dim=1).ceil().long().clamp_min(1)
    stops = pieces.cumsum(0)
    reach = torch.arange(-window, window + 1, device=canvas.device)
    around = torch.cartesian_prod(reach, reach)  # [k, 2]
    for begin in range(0, int(stops[-1]) if len(stops) else 0, _BLOCK):
        piece = torch.arange(begin, min(begin + _BLOCK, int(stops[-1])), device=canvas.device)
        line = torch.searchsorted(stops, piece, right=True)
        half = along[line] / (2 * pieces[line, None])
        place = 2 * (piece - stops[line] + pieces[line]) + 1
        middle = starts[line] + half * place[:, None]
        pixels = middle.round().long()[:, None] + around  # [pieces, k, 2]
        away = pixels - middle[:, None]
        share = (away @ half[:, :, None]) / half.square().sum(1)[:, None, None].clamp_min(1e-12)
        distance = (away - share.clamp(-1, 1) * half[:, None]).norm(dim=2)
        places = (rows[line, None] * height + pixels[..., 1]) * width + pixels[..., 0]
        ink = (pen / 2 + 0.5 - distance).clamp(0, 1)
        canvas.scatter_reduce_(0, places.flatten(), ink.flatten(), "amax")
