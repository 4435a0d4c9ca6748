"""Pen strokes as sequences of steps (pen, dx, dy), and drawings of them as images.

As in Graves 2013, "Generating sequences with recurrent neural networks", section 4: dx and dy are the offset to the
next point, and pen is 1 if the pen is lifted after it, else 0.
"""

from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core.abilities import Scaling
from kdzoo.core.validation import integer
from kdzoo.errors import DataError

# Height of an image divided by the width of a line. A line is one pixel wide at 28 x 28, the size of MNIST.
_HEIGHT_PER_PEN = 28
# Segments that are drawn at once. It bounds memory to about 100 MB at 28 x 28: nine pixels around each segment, and
# some ten numbers for every pixel.
_BLOCK = 2**17


def offset_scaling(offsets: npt.NDArray[np.number]) -> Scaling:
    """Return mean and standard deviation of each coordinate of offsets ``[n, 2]``, n >= 1.

    Raises:
        DataError: A coordinate is the same in all offsets.

    Example:
        >>> offset_scaling(np.array([[1, 2], [3, 6]]))
        {'mean': (2.0, 4.0), 'std': (1.0, 2.0)}
    """
    # float64, because sums of many 16-bit integers overflow or lose digits in their own type.
    mean, std = offsets.mean(0, dtype=np.float64), offsets.std(0, dtype=np.float64)
    if not (std > 0).all():
        raise DataError(f"offsets have the standard deviations {std.tolist()}; allowed: > 0")
    return {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}


def stroke_steps(pen: npt.NDArray[np.number], offsets: npt.NDArray[np.number], scaling: Scaling) -> Tensor:
    """Return steps with standardised offsets.

    Args:
        pen: Pen states 0 or 1, ``[n]``.
        offsets: Offsets (dx, dy), ``[n, 2]``.
        scaling: Mean and standard deviation of dx and dy.

    Returns:
        float32 ``[n, 3]``.

    Raises:
        DataError: A pen state is neither 0 nor 1.

    Example:
        >>> stroke_steps(np.array([1]), np.array([[5, -2]]), {"mean": (1.0, 0.0), "std": (2.0, 4.0)})
        tensor([[ 1.0000,  2.0000, -0.5000]])
    """
    invalid = np.flatnonzero((pen != 0) & (pen != 1))
    if len(invalid):
        raise DataError(f"pen state {pen[invalid[0]]} at step {invalid[0]} is not allowed; allowed: 0 or 1")
    standardised = (offsets - np.asarray(scaling["mean"])) / np.asarray(scaling["std"])
    return torch.from_numpy(np.column_stack([pen, standardised]).astype(np.float32))


def unstandardised(steps: Tensor, scaling: Scaling) -> Tensor:
    """Return steps ``[..., 3]`` whose standardised offsets are converted back to those of the drawing.

    Example:
        >>> unstandardised(torch.tensor([[1.0, 2.0, -0.5]]), {"mean": (1.0, 0.0), "std": (2.0, 4.0)})
        tensor([[ 1.,  5., -2.]])
    """
    mean, std = (steps.new_tensor(scaling[key]) for key in ("mean", "std"))
    return torch.cat([steps[..., :1], steps[..., 1:] * std + mean], -1)


def stroke_images(steps: Tensor, lengths: Tensor | None = None, size: int | tuple[int, int] = 28) -> Tensor:
    """Return drawings as antialiased images: ink is 1 and paper is 0.

    The pen starts on the paper at the origin. A drawing is scaled, by the same factor in both directions, and moved so
    that it fills the image and is centred; y grows downwards. A line is as wide as one 28th of the image's height, and
    at least a pixel; the value of a pixel falls from 1 to 0 over the pixel around the line's edge.

    Args:
        steps: Steps (pen, dx, dy), not standardised, ``[n, T, 3]``; the pen is lifted after a step where pen > 0.5.
        lengths: Number of steps of each drawing, int64 ``[n]``; None for T. Drawings without steps, and those that are
            not finite, are blank.
        size: Height and width in pixels, each >= 8; one number for both.

    Returns:
        float32 ``[n, 1, height, width]`` in [0, 1].

    Raises:
        ConfigError: A size is below 8.
    """
    sides = (size, size) if isinstance(size, int) else size
    height, width = (integer("size", side, 8) for side in sides)
    pen = max(1.0, height / _HEIGHT_PER_PEN)
    window = ceil(pen / 2 + 0.5)  # distance in pixels from the middle of a segment to which it has ink
    starts, ends, is_drawn = _lines(steps.float(), lengths)
    # A margin at each side, so that no window reaches over the edge of the image.
    room = steps.new_tensor([width, height], dtype=torch.float32) - 2 * (window + 1)
    starts, ends = _fitted(starts, ends, is_drawn, room)
    is_drawn = is_drawn & starts.isfinite().all(2) & ends.isfinite().all(2)
    starts, ends = (points[is_drawn] + (room + 2 * window + 1) / 2 for points in (starts, ends))
    canvas = steps.new_zeros(len(steps) * height * width, dtype=torch.float32)
    _ink(canvas, is_drawn.nonzero()[:, 0], starts, ends, (height, width), pen, window)
    return canvas.reshape(-1, 1, height, width)


def _lines(steps: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the start and the end of the line of each step, ``[n, T, 2]``, and which steps exist, bool ``[n, T]``.

    The line of a step after which the pen was lifted before is a dot at its end.
    """
    n, count = steps.shape[:2]
    ends = steps[..., 1:].cumsum(1)
    starts = torch.cat([ends.new_zeros(n, 1, 2), ends[:, :-1]], 1)
    was_lifted = torch.cat([steps.new_zeros(n, 1), steps[:, :-1, 0]], 1) > 0.5
    time = torch.arange(count, device=steps.device)
    counts = torch.full((n,), count, device=steps.device) if lengths is None else lengths.to(steps.device)
    return torch.where(was_lifted[..., None], ends, starts), ends, time < counts[:, None]


def _fitted(starts: Tensor, ends: Tensor, is_drawn: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Return lines scaled to fit into a rectangle of the size ``room`` ``[2]`` around the origin."""
    absent = ~is_drawn[..., None]
    low = torch.minimum(starts, ends).masked_fill(absent, torch.inf).amin(1, keepdim=True)
    high = torch.maximum(starts, ends).masked_fill(absent, -torch.inf).amax(1, keepdim=True)
    scale = (room / (high - low)).amin(2, keepdim=True)
    scale = torch.where(scale.isinf(), 0.0, scale)  # a single dot has no extent
    return (starts - (low + high) / 2) * scale, (ends - (low + high) / 2) * scale


def _ink(
    canvas: Tensor, rows: Tensor, starts: Tensor, ends: Tensor, size: tuple[int, int], pen: float, window: int
) -> None:
    """Draw lines into the images of a canvas, in place.

    A line is divided into segments of at most a pixel, each of which is drawn into a small window around its middle.
    The darkest of several values stays, so a pixel has the value of its least distance to any segment. The cost follows
    the length of the lines and not the area of the images.

    Args:
        canvas: Images ``[n * height * width]``.
        rows: Image of each line, int64 ``[m]``.
        starts: Starts (x, y) of the lines in pixels, ``[m, 2]``.
        ends: Ends of the lines, ``[m, 2]``.
        size: Height and width.
        pen: Width of a line in pixels.
        window: Pixels on each side of the middle of a segment.
    """
    height, width = size
    along = ends - starts
    counts = along.norm(dim=1).ceil().long().clamp_min(1)  # a dot is one segment too
    stops = counts.cumsum(0)
    total = int(stops[-1]) if len(stops) else 0
    reach = torch.arange(-window, window + 1, device=canvas.device)
    around = torch.cartesian_prod(reach, reach)  # [k, 2]
    for begin in range(0, total, _BLOCK):
        segment = torch.arange(begin, min(begin + _BLOCK, total), device=canvas.device)
        line = torch.searchsorted(stops, segment, right=True)
        half = along[line] / (2 * counts[line, None])
        # The middles are at 1/2c, 3/2c, 5/2c, ... of a line of c segments, in units of half a segment.
        steps_to_middle = 2 * (segment - stops[line] + counts[line]) + 1
        middle = starts[line] + half * steps_to_middle[:, None]
        pixels = middle.round().long()[:, None] + around  # [segments, k, 2]
        offset = pixels - middle[:, None]
        # The closest point of a segment is middle + t * half with t in [-1, 1]; a dot has half = 0.
        t = (offset @ half[:, :, None]) / half.square().sum(1)[:, None, None].clamp_min(1e-12)
        distance = (offset - t.clamp(-1, 1) * half[:, None]).norm(dim=2)
        positions = (rows[line, None] * height + pixels[..., 1]) * width + pixels[..., 0]
        ink = (pen / 2 + 0.5 - distance).clamp(0, 1)
        canvas.scatter_reduce_(0, positions.flatten(), ink.flatten(), "amax")
