"""Heat maps of sequences of vectors, such as piano rolls."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdzoo.plotting.style import NEAREST, TITLE_INCHES, display_name, save_figure


def sequence_heatmaps(rows: Mapping[str, NDArray[np.floating]], path: Path, *, ylabel: str, title: str) -> Path:
    """Draw sequences of vectors as heat maps, time to the right and elements upwards, one row per name.

    Elements below the lowest and above the highest element that is ever different from 0 are left out: most pieces of
    music use only a part of the 88 keys of a piano.

    Args:
        rows: The label of a row -> sequences with values in [0, 1], ``[n, time, elements]``, all of one shape; 0 is
            white and 1 is black. NaN is drawn as 0.
        path: Path of the PNG file.
        ylabel: What an element is.
        title: Title of the figure.

    Returns:
        The path.
    """
    values = {name: np.nan_to_num(sequences) for name, sequences in rows.items()}
    count, steps, _ = next(iter(values.values())).shape
    low, high = _used_elements(values)
    width, height = 0.9 + 3 * count, 0.6 + TITLE_INCHES + 1.6 * len(rows)
    figure = Figure(figsize=(width, height))
    # Margins in inches, as shares of the figure: they stay the same for any number of rows and sequences.
    top = 1 - (0.1 + TITLE_INCHES) / height
    margins = {"left": 0.8 / width, "right": 1 - 0.1 / width, "bottom": 0.5 / height, "top": top}
    spaces = {**margins, "wspace": 0.05, "hspace": 0.1}
    grid = figure.subplots(len(rows), count, squeeze=False, sharex=True, sharey=True, gridspec_kw=spaces)
    # The centres of the cells are the numbers of the steps and of the elements, also after elements were left out.
    extent = (-0.5, steps - 0.5, low - 0.5, high + 0.5)
    for axes_of_row, (name, sequences) in zip(grid, values.items(), strict=True):
        for axes, sequence in zip(axes_of_row, sequences, strict=True):
            cells = sequence[:, low : high + 1].T
            axes.imshow(cells, cmap="Greys", vmin=0, vmax=1, origin="lower", extent=extent, aspect="auto", **NEAREST)
        axes_of_row[0].set_ylabel(f"{display_name(name)}\n{ylabel}")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return save_figure(
        figure,
        path,
        title=title,
        caption="Sequences of vectors: time to the right, elements upwards, one row for each model.",
    )


def _used_elements(rows: Mapping[str, NDArray[np.floating]]) -> tuple[int, int]:
    """Return the lowest and the highest element that is not always 0; all elements if there is none."""
    used = np.flatnonzero(np.any([sequences.any((0, 1)) for sequences in rows.values()], axis=0))
    return (int(used[0]), int(used[-1])) if len(used) else (0, next(iter(rows.values())).shape[2] - 1)
