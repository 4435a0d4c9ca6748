"""Pictures: what is drawn is looked for in the figure; pixels are not compared."""

import subprocess

import matplotlib.figure
import pytest
import torch
from matplotlib.patches import Circle, FancyArrowPatch

from kdzoo.automata import automaton_plots
from kdzoo.automata.automaton_plots import draw, draw_with_matplotlib
from kdzoo.automata.pfa import PFA
from kdzoo.automata.targets import REBER_SYMBOLS, embedded_reber, random_pnfa, tomita
from kdzoo.errors import ConfigError


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    saved = []
    save = matplotlib.figure.Figure.savefig

    def remember(figure, *args, **kwargs):
        saved.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return saved


def arrows(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_one_arrow_for_each_pair_of_states_as_wide_as_it_is_likely(figures, tmp_path):
    pfa = embedded_reber()
    assert draw_with_matplotlib(pfa, tmp_path / "a" / "reber.png", REBER_SYMBOLS) == tmp_path / "a" / "reber.png"
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
    draw_with_matplotlib(pfa, tmp_path / "a.svg", ["a", "$", "c"])
    assert sorted(words(figures[0])) == ["0", "1\n1", "a .50\n\\$ .30\nc .19"]


@pytest.mark.parametrize(
    "pfa",
    [
        tomita(1),
        random_pnfa(12, 6, seed=1),
        PFA(vocab_size=30, states=3),
        PFA.from_parameters(torch.tensor([0.5, 0.5]), torch.zeros(1, 2, 2), torch.ones(2)),
    ],
    ids=["one state", "many arcs", "uniform", "no arcs"],
)
def test_any_automaton_is_drawn(pfa, tmp_path):
    assert draw_with_matplotlib(pfa, tmp_path / "a.png").stat().st_size > 1000


def test_graphviz_draws_where_it_is_installed(monkeypatch, tmp_path):
    called = {}

    def run(command, *, input, **_):
        called.update(command=command, text=input)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(automaton_plots.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(automaton_plots.subprocess, "run", run)
    draw(tomita(2), tmp_path / "a.pdf", threshold=0.2)
    assert called["command"] == ["/bin/dot", "-Tpdf", "-o", str(tmp_path / "a.pdf")]
    assert "0 -> 1" in called["text"]
    failed = subprocess.CompletedProcess([], 1, "", 'Format: "odd" not recognized\n')
    monkeypatch.setattr(automaton_plots.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ConfigError, match=r"dot cannot draw .*a.odd: Format: \"odd\" not recognized"):
        draw(tomita(2), tmp_path / "a.odd")


def test_matplotlib_draws_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(automaton_plots.shutil, "which", lambda name: None)
    assert draw(tomita(2), tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_invalid_arguments_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="symbols must be 2 names, one for each token, got 3"):
        draw_with_matplotlib(tomita(1), tmp_path / "a.png", "abc")
    with pytest.raises(ConfigError, match=r"threshold must be in \[0, 1\), got 1"):
        draw_with_matplotlib(tomita(1), tmp_path / "a.png", threshold=1)
