"""A picture of what a search for layers has found."""

from pathlib import Path

from kdzoo import plotting
from kdzoo.layer_init.search import LayerSearch


def plot_layer_search(search: LayerSearch, path: Path) -> Path:
    """Draw the score of every choice of layers that was tried, the best on top and in another colour.

    Args:
        search: What `search_layers` returned.
        path: The file, a PNG.
    """
    scores = {" ".join(map(str, layers)): score for layers, score in search.scores.items()}
    chosen = " ".join(map(str, search.chosen))
    return plotting.score_bars(scores, chosen, path, xlabel="score", ylabel="layers of the teacher")
