"""The largest table of transitions that a file may ask for."""

from pathlib import Path

import torch
from torch import Tensor

from kdzoo.errors import DataError

# Of float64: 8 GiB. A single line with a large number must not allocate whatever it says.
MAX_ENTRIES = 2**30


def empty_table(path: str | Path, *sizes: int) -> Tensor:
    """Return a table of zeros in float64.

    Args:
        path: The file that is being read, for the message.
        sizes: Its sizes, numbers of tokens and states.

    Raises:
        DataError: The table would be too large.
    """
    n_entries = 1
    for size in sizes:
        n_entries *= size
    if n_entries > MAX_ENTRIES:
        asked = " x ".join(map(str, sizes))
        raise DataError(f"{path} needs a table of {asked} probabilities; allowed: at most {MAX_ENTRIES} in total")
    return torch.zeros(*sizes, dtype=torch.float64)
