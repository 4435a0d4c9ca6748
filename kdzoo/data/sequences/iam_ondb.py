"""IAM-OnDB: handwritten lines of text, from the XML files of the original distribution."""

from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core.abilities import Scaling
from kdzoo.data.files.folders import roots
from kdzoo.data.loading.shares import share, share_rows
from kdzoo.data.sequences.real_sequences import RealSequences, SequenceData
from kdzoo.data.sequences.strokes import stroke_images, stroke_steps, unstandardised
from kdzoo.errors import DataError

_FOLDER, _LINES = "iam_ondb", "lineStrokes"


class IAMOnDB(SequenceData):
    """Lines of English written on a whiteboard (Liwicki & Bunke 2005) as float32 ``[T, 3]``.

    A step is (pen, dx, dy) as in :mod:`kdzoo.data.sequences.strokes`; y grows upwards. As in Chung et al. 2015, "A
    recurrent latent variable model for sequential data", a line begins at its first point, so that n points are n - 1
    steps, and offsets are standardised by the mean and standard deviation of all training lines. Lines of fewer than
    two points are left out. The lines of a form (``a01-000``) are all in one split; a writer may have written several.

    The folder ``lineStrokes`` (from lineStrokes-all.tar.gz, with files such as a01/a01-000/a01-000u-01.xml) is looked
    for in ``<root>/iam_ondb`` and ``<root>``; without ``root``, in the same way below $KDZOO_DATA and ~/.cache/kdzoo.
    Only its owners give the files away, so nothing is downloaded.

    Args:
        root: Folder of the data; None for the usual places.
        val_size: Share of the forms for val: a fraction in [0, 1) or a count; 0 for none.
        test_size: Share of the forms for test: a fraction above 0 or a count >= 1.
        options: See :class:`kdzoo.data.sequences.real_sequences.SequenceData`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, the files are missing or damaged.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        val_size: float | int = 0.1,
        test_size: float | int = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root = root
        self.val_size = share("val_size", val_size)
        self.test_size = share("test_size", test_size)

    @property
    def offsets(self) -> Scaling:
        """Mean and standard deviation of (dx, dy): an offset of the drawing is step * std + mean."""
        # The values of Chen et al. 2023 for this data set, so that likelihoods can be compared with theirs; values
        # computed here would change with the division into splits.
        return {"mean": (8.18, -0.11), "std": (41.95, 37.12)}

    def pictures(self, samples: Tensor, lengths: Tensor | None = None, size: int = 28) -> Tensor:
        """Return steps ``[n, T, 3]`` as images ``[n, 1, size, 8 * size]``.

        See :func:`kdzoo.data.sequences.strokes.stroke_images`.
        """
        # Images have y downwards. A line of text is much wider than high; 8 to 1 holds most lines without margins.
        downwards = unstandardised(samples, self.offsets) * samples.new_tensor([1, 1, -1])
        return stroke_images(downwards, lengths, (size, 8 * size))

    def read(self) -> tuple[RealSequences, RealSequences, RealSequences]:
        """Read all lines, and divide them by their forms."""
        forms: dict[str, list[Path]] = {}
        for file in sorted(self._folder().glob("*/*/*.xml")):
            forms.setdefault(file.parent.name, []).append(file)
        names = sorted(forms)
        train, val, test = (
            RealSequences.of([line for row in rows.tolist() for line in self._lines(forms[names[row]])], size=3)
            for rows in share_rows(len(names), self.val_size, self.test_size)
        )
        return train, val, test

    def _folder(self) -> Path:
        candidates = [folder for base in roots(self.root) for folder in (base / _FOLDER, base)]
        folder = next((candidate / _LINES for candidate in candidates if (candidate / _LINES).is_dir()), None)
        if folder is None:
            raise DataError(
                f"{_FOLDER}: no folder {_LINES} is in {' or '.join(map(str, candidates))}; "
                "set data.root or KDZOO_DATA to the folder that holds it"
            )
        return folder

    def _lines(self, files: list[Path]) -> list[Tensor]:
        """Return the steps ``[T, 3]`` of every line that has any."""
        lines = [line_steps(read_points(file), self.offsets) for file in files]
        return [line for line in lines if len(line)]


def line_steps(points: npt.NDArray[np.int64], scaling: Scaling) -> Tensor:
    """Return the steps between consecutive points of a line.

    Args:
        points: Points (pen, x, y) with y downwards, ``[n, 3]``.
        scaling: Mean and standard deviation by which offsets are standardised.

    Returns:
        float32 ``[n - 1, 3]`` with y upwards; ``[0, 3]`` for n = 0.

    Example:
        >>> unscaled = {"mean": (0.0, 0.0), "std": (1.0, 1.0)}
        >>> line_steps(np.array([[0, 10, 10], [1, 13, 14]]), unscaled).tolist()
        [[1.0, 3.0, -4.0]]
    """
    if not len(points):
        return torch.empty(0, 3)
    return stroke_steps(points[1:, 0], np.diff(points[:, 1:], axis=0) * [1, -1], scaling)


def read_points(path: Path) -> npt.NDArray[np.int64]:
    """Return the points of all strokes of a file, int64 ``[n, 3]``: (1 at the end of a stroke and else 0, x, y).

    Raises:
        DataError: The file is missing, is not XML, declares an entity, or has a point without integer x and y.
    """
    points: list[tuple[int, int, int]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "Point":
            points.append((0, int(attributes["x"]), int(attributes["y"])))

    def end(name: str) -> None:
        if name == "Stroke" and points:
            points[-1] = (1, *points[-1][1:])

    def reject(name: str, *_: Any) -> None:
        raise DataError(f"{path} declares the entity {name!r}; allowed: none")

    # expat with handlers for elements alone opens no other file and leaves external entities out. A file that declares
    # entities is rejected, because they might expand without end.
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.EntityDeclHandler = start, end, reject
    try:
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    except expat.ExpatError as error:
        raise DataError(f"{path} is not XML ({error})") from error
    except (KeyError, ValueError) as error:
        if isinstance(error, DataError):  # a ValueError too: raised by ``reject``
            raise
        line = parser.CurrentLineNumber
        raise DataError(f"{path}, line {line} has a point without integer x and y; allowed: both") from error
    return np.array(points, np.int64).reshape(-1, 3)
