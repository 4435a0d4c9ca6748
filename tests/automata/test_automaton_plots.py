"""Pictures: what is drawn is looked for in the figure; pixels are not compared."""

from itertools import combinations

import pytest
import torch
from matplotlib.patches import Circle, FancyArrowPatch

from kdzoo.automata.automaton_plots import draw
from kdzoo.automata.pfa import PFA
from kdzoo.automata.targets import REBER_SYMBOLS, embedded_reber, random_pnfa, tomita
from kdzoo.errors import ConfigError
from kdzoo.plotting.style import DPI


def arrows(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_one_arrow_for_each_pair_of_states_as_wide_as_it_is_likely(figures, tmp_path):
    pfa = embedded_reber()
    assert draw(pfa, tmp_path / "a" / "reber.png", REBER_SYMBOLS) == tmp_path / "a" / "reber.png"
    assert (tmp_path / "a" / "reber.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    pairs = pfa.transitions.sum(0)
    assert len(arrows(figure)) == int((pairs > 0).sum())
    expected = sorted((0.5 + 3.5 * pairs[pairs > 0]).tolist())
    assert sorted(arrow.get_linewidth() for arrow in arrows(figure)) == pytest.approx(expected)
    assert {str(k) for k in range(19)} | {"19\n1"} <= set(words(figure))
    circles = [patch for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    assert len(circles) == 20 + 1  # the last state has a double ring


def test_tokens_are_stacked_and_unlikely_ones_left_out(figures, tmp_path):
    pfa = PFA.from_parameters(
        torch.tensor([1.0, 0.0]), torch.tensor([[[0, 0.5], [0, 0]], [[0, 0.3], [0, 0]], [[0.006, 0.194], [0, 0]]]),
        torch.tensor([0.0, 1.0]),
    )  # fmt: skip
    draw(pfa, tmp_path / "a.svg", ["a", "$", "c"])
    assert sorted(words(figures[0])) == ["0", "1\n1", "a: .50\n\\$: .30\nc: .19"]


@pytest.mark.parametrize(
    ("pfa", "is_graph"),
    [
        (tomita(1), True),
        (random_pnfa(12, 6, seed=1), True),
        (random_pnfa(30, 6, seed=1), False),
        (PFA(vocab_size=30, states=3), True),
        (PFA.from_parameters(torch.tensor([0.5, 0.5]), torch.zeros(1, 2, 2), torch.ones(2)), True),
    ],
    ids=["one state", "many arcs", "many states", "uniform", "no arcs"],
)
def test_any_automaton_is_drawn_with_all_its_states(pfa, is_graph, figures, tmp_path):
    draw(pfa, tmp_path / "a.png")
    axes = figures[0].axes[0]
    if is_graph:
        outer = {patch.center for patch in axes.patches if isinstance(patch, Circle)}  # two rings have one centre
        assert len(outer) == pfa.states
        assert len(arrows(figures[0])) == int((pfa.transitions.sum(0) > 0).sum())
    else:
        (image,) = axes.images
        expected = torch.cat([pfa.transitions.sum(0), pfa.stop[:, None]], 1)
        torch.testing.assert_close(torch.tensor(image.get_array()), expected)


# Numbers of states and seeds; with other seeds, 20 states may have too many transitions for a graph.
RANDOM = ((3, 1), (3, 2), (6, 1), (6, 2), (12, 1), (12, 2), (16, 1), (20, 1))


def boxes(figure):
    """Return the boxes of all labels of arrows and of all states, in pixels of the file."""
    figure.set_dpi(DPI)  # matplotlib goes back to its own after saving, but keeps the sizes of texts
    states = [patch.get_window_extent() for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    labels = [text.get_window_extent() for text in figure.axes[0].texts if text.get_bbox_patch() is not None]
    return labels, states


@pytest.mark.parametrize(
    "pfa",
    [
        embedded_reber(),
        *map(tomita, range(1, 8)),
        *(random_pnfa(k, 4, seed=seed) for k, seed in RANDOM),
    ],
    ids=[
        "reber",
        *(f"tomita {i}" for i in range(1, 8)),
        *(f"random {k}, {seed}" for k, seed in RANDOM),
    ],
)
def test_labels_do_not_overlap_and_everything_is_on_the_page(pfa, figures, tmp_path):
    draw(pfa, tmp_path / "a.png")
    (figure,) = figures
    labels, states = boxes(figure)
    assert len(labels) == len(arrows(figure)) > 0
    assert not any(a.overlaps(b) for a, b in combinations(labels, 2))
    for label in labels:
        for state in states:
            # The circle, not the square around it: its distance from the nearest point of the label.
            x, y = (state.x0 + state.x1) / 2, (state.y0 + state.y1) / 2
            across = x - min(max(x, label.x0), label.x1), y - min(max(y, label.y0), label.y1)
            assert across[0] ** 2 + across[1] ** 2 > (state.width / 2) ** 2
    page, (note,) = figure.bbox, figure.texts[:1]
    bottom = note.get_window_extent()
    assert page.x0 <= bottom.x0 < bottom.x1 <= page.x1
    for box in (*labels, *states):
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert bottom.y1 <= box.y0 < box.y1 <= figure._suptitle.get_window_extent().y0


def test_stop_probabilities_are_explained(figures, tmp_path):
    draw(tomita(1), tmp_path / "a.png")
    assert "the probability that the string ends there" in " ".join(figures[0].texts[0].get_text().split())


def test_an_automaton_of_many_states_is_a_table(figures, tmp_path):
    pfa = random_pnfa(300, 4, seed=1)
    draw(pfa, tmp_path / "a.png")
    (figure,) = figures
    axes = figure.axes[0]
    table = axes.get_images()[0].get_array()
    torch.testing.assert_close(torch.tensor(table[:, :300]), pfa.transitions.sum(0))
    torch.testing.assert_close(torch.tensor(table[:, 300]), pfa.stop)
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks[:2] == ["0", "20"]
    assert ticks[-1] == "end"
    figure.set_dpi(DPI)
    shown = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in combinations(shown, 2))
    assert max(figure.get_size_inches()) < 11


def test_a_dense_automaton_is_a_table_of_its_tokens(figures, tmp_path):
    draw(PFA(vocab_size=4, states=9), tmp_path / "a.png", "abc")
    (figure,) = figures
    texts = figure.axes[0].texts
    assert len(texts) == 81
    figure.set_dpi(DPI)
    cells = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for a, b in combinations(cells, 2))


def test_invalid_arguments_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="symbols must be 2 names, one for each token, got 3"):
        draw(tomita(1), tmp_path / "a.png", "abc")
    with pytest.raises(ConfigError, match=r"threshold must be in \[0, 1\), got 1"):
        draw(tomita(1), tmp_path / "a.png", threshold=1)
