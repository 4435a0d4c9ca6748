"""The figure of a search for layers."""

from pathlib import Path

from kdzoo import plotting
from kdzoo.layer_init.search import LayerSearch


def plot_layer_search(search: LayerSearch, path: Path) -> Path:
    """Plot the score of every selection of layers that was tried, the best on top and in another colour.

    Args:
        search: Result of ``search_layers``.
        path: The PNG file to write.

    Returns:
        ``path``.
    """
    scores = {_label(layers): score for layers, score in search.scores.items()}
    return plotting.score_bars(scores, _label(search.layers), path, xlabel="score", ylabel="layers of the teacher")


def _label(layers: tuple[int, ...]) -> str:
    return " ".join(map(str, layers))
