"""The fused Gromov-Wasserstein barycenter from alpha = 1, which is k-means, downwards: pictures and divergences.

    python scripts/fgw_illustration.py [--starts 5] [--strings 2500]

Made data: points about the states of a random deterministic automaton of 6 states, in the plane. Real data: hidden
states of a GRU that was trained on strings of the embedded Reber grammar, at strings that it draws itself.
"""

import argparse
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from bench_common import RESULTS, publish, table
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy

from kdzoo.automata import PFA, TracedSequences, kl_monte_carlo
from kdzoo.automata.counts import count
from kdzoo.automata.targets import embedded_reber, random_pdfa
from kdzoo.core.batch import IGNORE
from kdzoo.functional import BarycenterSettings, Edges, fgw_barycenter
from kdzoo.models import RNNLM
from kdzoo.text.language_model import sample, trace_token_sequences
from kdzoo.text.token_sequences import TokenSequences

ALPHAS = (1.0, 0.99, 0.95, 0.9, 0.8, 0.5, 0.2, 0.0)
DRAWN = (1.0, 0.95, 0.9, 0.8, 0.5, 0.0)
LOSSES, STARTS = ("kl", "l2"), {"kmeans": "k-means", "random": "random plans"}
PSEUDOCOUNT, MAX_LENGTH, HELD_OUT = 0.01, 200, 2000
NOISE = 0.6  # standard deviation of the made points; the states' places have 1
TEACHER = {"strings": 4000, "epochs": 12, "batch": 64, "rate": 1e-2, "hidden": 48}


class Source(NamedTuple):
    """TokenSequences with a point at each of their places, and the automaton that is to be found."""

    truth: PFA
    seen: TracedSequences
    states: int


def made(strings: int) -> Source:
    """Return points about the states of a random automaton."""
    truth = random_pdfa(6, 4, seed=5)
    seen = truth.sample(strings, seed=1, max_length=MAX_LENGTH)
    state = trace_token_sequences(truth, seen).hidden.argmax(1)
    g = torch.Generator().manual_seed(2)
    places = torch.randn(truth.states, 2, generator=g, dtype=torch.float64)
    points = places[state] + NOISE * torch.randn(len(state), 2, generator=g, dtype=torch.float64)
    return Source(truth, TracedSequences.of(seen, points, vocab_size=truth.vocab_size), truth.states)


def real(strings: int) -> tuple[Source, float]:
    """Return hidden states of a trained GRU, and how far the GRU is from the truth, in nats per symbol."""
    truth = embedded_reber()
    teacher = trained(truth.sample(TEACHER["strings"], seed=3, max_length=MAX_LENGTH), truth.vocab_size)
    seen = sample(teacher, strings, max_length=MAX_LENGTH, seed=1)
    hidden = trace_token_sequences(teacher, seen).hidden
    source = Source(truth, TracedSequences.of(seen, hidden.double(), vocab_size=truth.vocab_size), truth.states)
    return source, divergence(truth, teacher)


def trained(strings: TokenSequences, vocab_size: int) -> RNNLM:
    """Return a GRU that was trained on the strings."""
    torch.manual_seed(0)
    model = RNNLM(vocab_size=vocab_size, hidden=TEACHER["hidden"])
    batches = -(-len(strings) // TEACHER["batch"])
    optimizer = torch.optim.Adam(model.parameters(), lr=TEACHER["rate"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, TEACHER["rate"], total_steps=TEACHER["epochs"] * batches)
    for _ in range(TEACHER["epochs"]):
        for index in torch.randperm(len(strings)).chunk(batches):
            inputs, targets = strings.select(index).inputs_and_targets(vocab_size)
            optimizer.zero_grad()
            cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORE).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def divergence(truth: PFA, model: object) -> float:
    """Return the divergence from the truth to a model in nats per symbol."""
    return kl_monte_carlo(truth, model, truth.sample(HELD_OUT, seed=9, max_length=MAX_LENGTH)).value


def counted(source: Source, labels: Tensor) -> PFA:
    """Return the automaton of the counts between the states."""
    return count(source.seen, labels, n_clusters=source.states, soft=False).to_pfa(PSEUDOCOUNT)


def labels_of(source: Source, alpha: float, loss: str, init: str, starts: int) -> Tensor:
    """Return the states of the start with the lowest objective."""
    edges = Edges(*source.seen.strings.edges())
    settings = BarycenterSettings(alpha, loss, n_init=starts, tol=1e-6)
    return fgw_barycenter(source.seen.hidden, edges, source.states, settings, init=init).labels


def measured(source: Source, starts: int) -> tuple[list[list[str]], dict[tuple[str, str, float], Tensor]]:
    """Return the lines of the table, and the states for every loss, start and alpha."""
    rows, shown = [], {}
    for alpha in ALPHAS:
        cells = []
        for init in STARTS:
            for loss in LOSSES:
                labels = labels_of(source, alpha, loss, init, starts)
                cells.append(f"{divergence(source.truth, counted(source, labels)):.4f}")
                shown[loss, init, alpha] = labels
        rows.append([f"{alpha:g}" + (", k-means" if alpha == 1 else ""), *cells])
    return rows, shown


def draw(name: str, source: Source, shown: Mapping[tuple[str, str, float], Tensor]) -> str:
    """Draw the points in their two principal components, coloured by state; return the file's name."""
    x = source.seen.hidden.numpy()
    x = x - x.mean(0)
    plane = x @ np.linalg.svd(x[:20000], full_matrices=False)[2][:2].T
    some = np.random.default_rng(0).permutation(len(x))[:3000]
    lines = [(loss, init) for init in STARTS for loss in LOSSES]
    figure = Figure(figsize=(2.2 * len(DRAWN), 2.2 * len(lines)), layout="constrained")
    for row, (loss, init) in zip(figure.subplots(len(lines), len(DRAWN)), lines, strict=True):
        row[0].set_ylabel(f"{loss} from {STARTS[init]}")
        for axes, alpha in zip(row, DRAWN, strict=True):
            labels = shown[loss, init, alpha][some]
            axes.scatter(*plane[some].T, c=labels, s=4, cmap="tab20", linewidths=0, rasterized=True)
            axes.set(xticks=[], yticks=[], title=f"alpha = {alpha:g}")
    figure.savefig(RESULTS / f"{name}.png", dpi=70)
    return f"{name}.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=5, help="starts of which the lowest objective is kept")
    parser.add_argument("--strings", type=int, default=2500, help="strings of either source")
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = ["alpha", *(f"{loss} from {start}" for start in STARTS.values() for loss in LOSSES)]
    reber, teacher = real(options.strings)
    parts = []
    for name, title, source in (
        ("fgw_made", "Made data, 6 states", made(options.strings)),
        ("fgw_reber", f"GRU on embedded Reber, 20 states; the GRU itself has {teacher:.4f}", reber),
    ):
        rows, shown = measured(source, options.starts)
        parts += [f"## {title}", f"![States]({draw(name, source, shown)})", table(heads, rows)]
    publish(
        "fgw_illustration",
        "The barycenter from alpha = 1 downwards",
        f"Divergence from the true automaton, in nats per symbol, of the automaton that the states' counts make "
        f"(pseudocount {PSEUDOCOUNT}), over {HELD_OUT:,} fresh strings; lower is better. {options.strings:,} strings, "
        f"{options.starts} starts of which the lowest objective is kept. At alpha = 1 both losses are k-means.",
        *parts,
    )


if __name__ == "__main__":
    main()
