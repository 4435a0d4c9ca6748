"""Settings that all figures share, and the one function that writes a figure to a file."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# One colour per role, the same in every figure, so that the figures of a report can be read without their legends.
ROLE_COLOURS = {"teacher": "#4c4c4c", "student": "#1b7f5c", "control": "#c8553d"}

# Colour of what belongs to no role, such as a baseline.
OTHER_COLOUR = "#33587a"

# Guide lines, such as the diagonal "model equals reference".
GUIDE_COLOUR = "#bbbbbb"

# Pixels per inch of every file. More makes sharper text and larger files; ``images.py`` counts pixels by it.
DPI = 120

# Cells and pixels keep sharp borders: matplotlib's default smooths an image that it resamples, which would invent
# values between neighbouring cells.
NEAREST: dict[str, Any] = {"interpolation": "nearest"}


def save_figure(figure: Figure, path: Path, *, caption: str) -> Path:
    """Write a figure to a file, create missing folders, and return the path.

    Args:
        figure: The figure.
        path: Path of the file; its ending chooses the format.
        caption: One or two sentences that say what is drawn. A PNG stores them, and the report finds them there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # "Description" is a keyword of the PNG format; other formats have other keywords.
    metadata = {"Description": caption} if path.suffix.lower() == ".png" else None
    figure.savefig(path, dpi=DPI, metadata=metadata)
    return path


def axes_row(figure: Figure, count: int) -> list[Any]:
    """Return ``count`` axes side by side; always a list, also for one."""
    return list(figure.subplots(1, count, squeeze=False)[0])


def display_name(name: str) -> str:
    """Return a configuration key as the label of a figure, with spaces instead of underscores."""
    return name.replace("_", " ")
