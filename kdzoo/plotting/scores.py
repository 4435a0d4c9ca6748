"""Bars of the scores of candidates."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kdzoo.plotting.style import ROLE_COLOURS, save_figure


def score_bars(scores: Mapping[str, float], chosen: str, path: Path, *, xlabel: str, ylabel: str) -> Path:
    """Draw one bar per candidate, the largest score on top; the chosen candidate is darker than the others.

    Args:
        scores: The name of a candidate -> its score; a candidate whose score is not finite is left out.
        chosen: Name of the chosen candidate.
        path: Path of the PNG file.
        xlabel: What a score is.
        ylabel: What a candidate is.

    Returns:
        The path.
    """
    ranked = sorted((score, name) for name, score in scores.items() if np.isfinite(score))
    figure = Figure(figsize=(5, 1.3 + 0.2 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    colours = [ROLE_COLOURS["student"] if name == chosen else "#b0b0b0" for _, name in ranked]
    bars = axes.barh([name for _, name in ranked], [score for score, _ in ranked], color=colours)
    axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
    # matplotlib's default margin grows with the number of bars; these limits leave one bar's width at each end.
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(-0.8, len(ranked) - 0.2))
    axes.margins(x=0.12)  # room for the number at the end of the longest bar
    caption = "Scores of the candidates; the chosen one is darker."
    return save_figure(figure, path, title=f"{xlabel.capitalize()} of each choice of {ylabel}", caption=caption)
