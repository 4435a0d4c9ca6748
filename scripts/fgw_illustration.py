"""The fused Gromov-Wasserstein barycenter for alpha from 1 (k-means) to 0: plots of the states, and divergences.

    python scripts/fgw_illustration.py [--starts 5] [--strings 2500]

Synthetic data: noisy points in the plane around the states of a random deterministic automaton of 6 states. Real data:
hidden states of a GRU on strings that it samples itself, after training on the embedded Reber grammar.
"""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from bench_common import RESULTS, markdown_table, publish
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
DRAWN_ALPHAS = (1.0, 0.95, 0.9, 0.8, 0.5, 0.0)
LOSSES, STARTS = ("kl", "l2"), {"kmeans": "k-means", "random": "random plans"}
PSEUDOCOUNT, MAX_LENGTH, HELD_OUT = 0.01, 200, 2000
NOISE = 0.6  # standard deviation of the synthetic points about their centres, which have a standard deviation of 1
TEACHER: dict[str, Any] = {"strings": 4000, "epochs": 12, "batch": 64, "rate": 1e-2, "hidden": 48}


class Source(NamedTuple):
    """Token sequences with a point for each prefix, and the automaton to recover from them."""

    truth: PFA
    traced: TracedSequences
    states: int


def make_synthetic_source(strings: int) -> Source:
    """Return noisy points around the states of a random automaton."""
    truth = random_pdfa(6, 4, seed=5)
    sampled_strings = truth.sample(strings, seed=1, max_length=MAX_LENGTH)
    states = trace_token_sequences(truth, sampled_strings).hidden.argmax(1)
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(truth.states, 2, generator=generator, dtype=torch.float64)
    points = centres[states] + NOISE * torch.randn(len(states), 2, generator=generator, dtype=torch.float64)
    return Source(truth, TracedSequences.of(sampled_strings, points, vocab_size=truth.vocab_size), truth.states)


def make_reber_source(strings: int) -> tuple[Source, float]:
    """Return hidden states of a trained GRU, and the divergence of the GRU from the truth in nats per symbol."""
    truth = embedded_reber()
    teacher = train_teacher(truth.sample(TEACHER["strings"], seed=3, max_length=MAX_LENGTH), truth.vocab_size)
    sampled_strings = sample(teacher, strings, max_length=MAX_LENGTH, seed=1)
    hidden = trace_token_sequences(teacher, sampled_strings).hidden
    source = Source(
        truth, TracedSequences.of(sampled_strings, hidden.double(), vocab_size=truth.vocab_size), truth.states
    )
    return source, divergence_per_symbol(truth, teacher)


def train_teacher(strings: TokenSequences, vocab_size: int) -> RNNLM:
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


def divergence_per_symbol(truth: PFA, model: object) -> float:
    """Return the divergence from the truth to a model in nats per symbol."""
    return kl_monte_carlo(truth, model, truth.sample(HELD_OUT, seed=9, max_length=MAX_LENGTH)).value


def count_automaton(source: Source, labels: Tensor) -> PFA:
    """Return the automaton estimated from the transition counts of the labels."""
    return count(source.traced, labels, n_clusters=source.states, soft=False).to_pfa(PSEUDOCOUNT)


def barycenter_labels(source: Source, alpha: float, loss: str, init: str, starts: int) -> Tensor:
    """Return the states of the barycenter with the lowest objective among ``starts`` initialisations."""
    edges = Edges(*source.traced.strings.edges())
    settings = BarycenterSettings(alpha, loss, n_init=starts, tol=1e-6)
    return fgw_barycenter(source.traced.hidden, edges, source.states, settings, init=init).labels


def measure_divergences(source: Source, starts: int) -> tuple[list[list[str]], dict[tuple[str, str, float], Tensor]]:
    """Return the rows of the table, and the states for every loss, initialisation and alpha."""
    rows, labels_by_setting = [], {}
    for alpha in ALPHAS:
        cells = []
        for init in STARTS:
            for loss in LOSSES:
                labels = barycenter_labels(source, alpha, loss, init, starts)
                cells.append(f"{divergence_per_symbol(source.truth, count_automaton(source, labels)):.4f}")
                labels_by_setting[loss, init, alpha] = labels
        rows.append([f"{alpha:g}" + (", k-means" if alpha == 1 else ""), *cells])
    return rows, labels_by_setting


def draw_states(name: str, source: Source, labels_by_setting: Mapping[tuple[str, str, float], Tensor]) -> str:
    """Plot the first two principal components of the points, coloured by state; return the file name."""
    x = source.traced.hidden.numpy()
    x = x - x.mean(0)
    components = x @ np.linalg.svd(x[:20000], full_matrices=False)[2][:2].T
    sample_rows = np.random.default_rng(0).permutation(len(x))[:3000]
    settings = [(loss, init) for init in STARTS for loss in LOSSES]
    figure = Figure(figsize=(2.2 * len(DRAWN_ALPHAS), 2.2 * len(settings)), layout="constrained")
    for axes_row, (loss, init) in zip(figure.subplots(len(settings), len(DRAWN_ALPHAS)), settings, strict=True):
        axes_row[0].set_ylabel(f"{loss} from {STARTS[init]}")
        for axes, alpha in zip(axes_row, DRAWN_ALPHAS, strict=True):
            labels = labels_by_setting[loss, init, alpha][sample_rows]
            axes.scatter(*components[sample_rows].T, c=labels, s=4, cmap="tab20", linewidths=0, rasterized=True)
            axes.set(xticks=[], yticks=[], title=f"alpha = {alpha:g}")
    figure.savefig(RESULTS / f"{name}.png", dpi=70)
    return f"{name}.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=5, help="starts of which the lowest objective is kept")
    parser.add_argument("--strings", type=int, default=2500, help="strings of either source")
    options = parser.parse_args()
    torch.set_num_threads(1)
    headers = ["alpha", *(f"{loss} from {start}" for start in STARTS.values() for loss in LOSSES)]
    reber_source, teacher_divergence = make_reber_source(options.strings)
    paragraphs = []
    for name, title, source in (
        ("fgw_made", "Made data, 6 states", make_synthetic_source(options.strings)),
        ("fgw_reber", f"GRU on embedded Reber, 20 states; the GRU itself has {teacher_divergence:.4f}", reber_source),
    ):
        rows, labels_by_setting = measure_divergences(source, options.starts)
        paragraphs += [
            f"## {title}",
            f"![States]({draw_states(name, source, labels_by_setting)})",
            markdown_table(headers, rows),
        ]
    publish(
        "fgw_illustration",
        "The barycenter from alpha = 1 downwards",
        f"Divergence from the true automaton, in nats per symbol, of the automaton that the states' counts make "
        f"(pseudocount {PSEUDOCOUNT}), over {HELD_OUT:,} fresh strings; lower is better. {options.strings:,} strings, "
        f"{options.starts} starts of which the lowest objective is kept. At alpha = 1 both losses are k-means.",
        *paragraphs,
    )


if __name__ == "__main__":
    main()
