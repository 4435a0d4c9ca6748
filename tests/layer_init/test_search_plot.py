"""The figure of a search for layers."""

from kdzoo import plotting
from kdzoo.layer_init import LayerSearch, plot_layer_search


def test_every_selection_has_a_bar_and_the_best_is_marked(tmp_path, monkeypatch):
    calls = []
    draw = plotting.score_bars

    def record(scores, best, path, **labels):
        calls.append((scores, best))
        return draw(scores, best, path, **labels)

    monkeypatch.setattr(plotting, "score_bars", record)
    scores = {(0, 1): 0.25, (0, 2): 0.5, (1, 2): float("nan")}
    path = tmp_path / "layers.png"
    assert plot_layer_search(LayerSearch((0, 2), 0.5, scores), path) == path
    assert path.read_bytes().startswith(b"\x89PNG")
    ((bars, best),) = calls
    assert list(bars) == ["0 1", "0 2", "1 2"]
    assert (bars["0 1"], bars["0 2"], best) == (0.25, 0.5, "0 2")
