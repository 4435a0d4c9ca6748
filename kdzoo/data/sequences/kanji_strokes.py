"""Kanji as pen strokes: a data set under an open licence that can replace handwriting."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core.abilities import Scaling
from kdzoo.data.files.folders import find_root, read_npz
from kdzoo.data.sequences.real_sequences import RealSequences, SequenceData
from kdzoo.data.sequences.strokes import offset_scaling, stroke_images, stroke_steps, unstandardised
from kdzoo.errors import DataError

# "valid" is the name of the val split in the file.
_FOLDER, _FILE = "kanji_strokes", "short_kanji.npz"
_SPLITS = ("train", "valid", "test")


class KanjiStrokes(SequenceData):
    """11,100 characters of KanjiVG (Apel 2009-2015) as float32 ``[T, 3]``: 10,000 train, 600 val and 500 test.

    A step is (pen, dx, dy) as in :mod:`kdzoo.data.sequences.strokes`; y grows downwards. Offsets are standardised by
    the mean and standard deviation of the file's training split, whatever ``train_size`` and ``max_steps`` are.

    ``short_kanji.npz`` (arrays <split>_strokes ``[sum of lengths, 3]`` of dx, dy, pen, and <split>_lengths, for the
    splits train, valid and test) is looked for in ``<root>/kanji_strokes`` and ``<root>``; without ``root``, in the
    same way below $KDZOO_DATA and ~/.cache/kdzoo.

    Args:
        root: Folder of the data; None for the usual places.
        options: See :class:`kdzoo.data.sequences.real_sequences.SequenceData`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, the file is missing or damaged.
    """

    def __init__(self, *, root: str | Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.root = root
        self._offsets: Scaling | None = None

    @property
    def offsets(self) -> Scaling:
        """Mean and standard deviation of (dx, dy): an offset of the drawing is step * std + mean."""
        if self._offsets is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._offsets

    def pictures(self, samples: Tensor, lengths: Tensor | None = None, size: int = 28) -> Tensor:
        """Return steps ``[n, T, 3]`` as square images ``[n, 1, size, size]``.

        See :func:`kdzoo.data.sequences.strokes.stroke_images`.
        """
        return stroke_images(unstandardised(samples, self.offsets), lengths, size)

    def read(self) -> tuple[RealSequences, RealSequences, RealSequences]:
        """Read the file and standardise the offsets."""
        path = find_root(self.root, _FOLDER, [_FILE]) / _FILE
        keys = [f"{split}_{kind}" for split in _SPLITS for kind in ("strokes", "lengths")]
        arrays = dict(zip(keys, read_npz(path, keys), strict=True))
        for split in _SPLITS:
            _check_strokes(f"{path}: {split}_strokes", arrays[f"{split}_strokes"])
        # Before train_size selects: students of different train_size must see the same inputs.
        scaling = self._offsets = offset_scaling(arrays["train_strokes"][:, :2])

        def sequences(split: str) -> RealSequences:
            strokes, lengths = arrays[f"{split}_strokes"], arrays[f"{split}_lengths"]
            steps = stroke_steps(strokes[:, 2], strokes[:, :2], scaling)
            return RealSequences(steps, torch.from_numpy(lengths.astype(np.int64)))

        return sequences("train"), sequences("valid"), sequences("test")


def _check_strokes(name: str, strokes: npt.NDArray[Any]) -> None:
    if strokes.ndim != 2 or strokes.shape[1] != 3 or not len(strokes):
        raise DataError(f"{name} is {list(strokes.shape)}; allowed: [n, 3] with n >= 1")
