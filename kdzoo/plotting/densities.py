"""Contours of densities in the plane."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdzoo.plotting.style import OTHER_COLOUR, ROLE_COLOURS, axes_row, display_name, save_figure

# Contours of the quartiles show the bulk of a density, and 95 % its extent, as is usual for confidence regions.
CONTOUR_MASSES = (0.25, 0.5, 0.75, 0.95)


def density_panels(
    densities: Mapping[str, NDArray[np.floating]],
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    points: NDArray[np.floating],
    path: Path,
) -> Path:
    """Draw contours of densities over observed points, one panel per name.

    The contours surround the smallest regions that hold 25, 50, 75 and 95 % of the mass on the grid.

    Args:
        densities: The name of a model -> density on the grid, ``[len(y), len(x)]``; it need not be normalized. NaN
            counts as 0.
        x: First coordinates of the grid, increasing and equally spaced.
        y: Second coordinates of the grid, increasing and equally spaced.
        points: Observed points, ``[n, 2]``.
        path: Path of the PNG file.

    Returns:
        The path.
    """
    figure = Figure(figsize=(3.6 * len(densities), 3.8), layout="constrained")
    for axes, (name, density) in zip(axes_row(figure, len(densities)), densities.items(), strict=True):
        axes.scatter(*points.T, s=5, linewidths=0, color="#999999", alpha=0.7)
        levels = mass_levels(density, CONTOUR_MASSES)
        # A density that is 0 on the whole grid has no contours; the title says so, since the panel looks empty.
        if len(levels):
            colour = ROLE_COLOURS.get(name, OTHER_COLOUR)
            axes.contour(x, y, np.nan_to_num(density), levels, colors=colour, linewidths=1.2)
        name_and_note = f"{display_name(name)}{'' if len(levels) else ': no density here'}"
        axes.set_title(name_and_note, fontsize=9)
        axes.set(xlabel="first value", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    figure.axes[0].set_ylabel("second value")
    return save_figure(
        figure,
        path,
        title="Densities",
        caption=(
            "Contours of the models' densities over observed points (grey); they surround the smallest regions that "
            "hold 25, 50, 75 and 95 % of the mass."
        ),
    )


def mass_levels(density: NDArray[np.floating], masses: Sequence[float]) -> NDArray[np.floating]:
    """Return the density values that bound the smallest regions of given shares of the mass.

    Cells are taken from the densest down until they hold the share; the density of the last cell is the level.

    Args:
        density: Density on cells of equal size, any shape; it need not be normalized. NaN is treated as 0.
        masses: Shares of the mass, in (0, 1).

    Returns:
        The levels, increasing and without repetitions; none if there is no mass.

    Example:
        >>> mass_levels(np.array([4.0, 1.0, 3.0, 2.0]), [0.5, 0.9]).tolist()
        [2.0, 3.0]
    """
    decreasing = np.sort(np.nan_to_num(density).ravel())[::-1]
    cumulative = decreasing.cumsum()
    if not cumulative[-1] > 0:
        return np.empty(0)
    # ``contour`` rejects levels that do not increase: several shares may have one level on a coarse grid.
    return np.unique(decreasing[np.searchsorted(cumulative, np.asarray(masses) * cumulative[-1])])
