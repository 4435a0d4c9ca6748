"""Other ways from a teacher's strings to a model of them, by the names that a report gives them.

Each chooses its settings or its restart by the likelihood of held-out strings, as the method itself does. k-means and
n-grams then count all strings; the others keep what they learned from nine tenths.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.automata.alergia import alergia
from kdzoo.automata.baum_welch import baum_welch, random_pfa_start
from kdzoo.automata.clustering import INITS, kmeans_labels
from kdzoo.automata.counts import count, fallback_targets, pfa_from_counts
from kdzoo.automata.ngram import ngram
from kdzoo.automata.pfa import PFA
from kdzoo.automata.spectral import spectral
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.text.language_model import trace
from kdzoo.text.token_sequences import TokenSequences

ALERGIA_EPS = (0.005, 0.05, 0.5, 1.0)
FLOORS = (1e-2, 1e-3, 1e-4)
"""Shares of the uniform distribution."""
PSEUDOCOUNT = 0.01
HOLD_OUT = 10
"""Every so manyth string is held out."""


class LanguageModelModule(nn.Module):
    """A language model that is no module, as one that a run can measure."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.vocab_size = model.vocab_size
        for name in ("start", "step", "next_log_probs", "hidden"):
            setattr(self, name, getattr(model, name))

    @property
    def n_parameters(self) -> int:
        """Number of free parameters."""
        return self.model.n_parameters

    def forward(self, input: Tensor) -> Tensor:
        """Return the log-probabilities of the next symbol [b, T, V]."""
        return trace(self.model, input).log_probs


def kmeans_counts(seen: TracedSequences, states: int, seed: int, *, restarts: int = 10, features: str = "hidden") -> PFA:
    """Return the automaton of k-means on the points and of the counts of drawn tokens; the likeliest restart.

    Half of the restarts begin with k-means++, half with random points.
    """
    points, (train, held) = seen.features(features), held_out_split(seen.strings)
    best, best_value = torch.zeros(seen.n_prefixes, dtype=torch.int64), -torch.inf
    for number in range(restarts):
        labels = kmeans_labels(points, states, init=INITS[number % len(INITS)], seed=seed + number)
        pfa = count(seen.select(train), labels[seen.prefixes_of(train)], n_clusters=states, soft=False).to_pfa(
            PSEUDOCOUNT
        )
        value = float(pfa.log_prob(seen.strings.select(held)).sum())
        if value > best_value:
            best, best_value = labels, value
    return count(seen, best, n_clusters=states, soft=False).to_pfa(PSEUDOCOUNT)


def random_baum_welch(seen: TracedSequences, states: int, seed: int, *, restarts: int = 3, steps: int = 50) -> PFA:
    """Return the likeliest of the automata to which Baum-Welch on drawn tokens leads from random starts."""
    train, held = (seen.strings.select(part) for part in held_out_split(seen.strings))
    runs = [
        baum_welch(random_pfa_start(seen.vocab_size, states, seed + number), train, held_out=held, max_iter=steps)
        for number in range(restarts)
    ]
    return max(runs, key=lambda run: run.held_out[run.steps]).pfa


def best_alergia(seen: TracedSequences, states: int, seed: int) -> PFA:  # noqa: ARG001
    """Return the likeliest on held-out strings of what ALERGIA learns with several significances and floors."""
    train, held = (seen.strings.select(part) for part in held_out_split(seen.strings))
    learnt = [alergia(train, seen.vocab_size, eps=eps) for eps in ALERGIA_EPS]
    found = [floored(pfa, share) for pfa in learnt for share in FLOORS]
    return max(found, key=lambda pfa: float(pfa.log_prob(held).sum()))


def best_spectral(seen: TracedSequences, states: int, seed: int) -> nn.Module:  # noqa: ARG001
    """Return the spectral estimate of the rank and the statistics that suit held-out strings best."""
    train, held = (seen.strings.select(part) for part in held_out_split(seen.strings))
    return LanguageModelModule(spectral(train, seen.vocab_size, held_out=held))


def ngrams(seen: TracedSequences, states: int, seed: int, *, order: int) -> nn.Module:  # noqa: ARG001
    """Return an n-gram model of all strings."""
    return LanguageModelModule(ngram(seen.strings, order, seen.vocab_size))


def floored(pfa: PFA, share: float) -> PFA:
    """Return the automaton with a share of the uniform distribution in every state, so that no string is impossible.

    A token that a state did not know leads to where it leads most often.
    """
    emissions = (1 - share) * pfa.emissions + share / pfa.vocab_size
    return pfa_from_counts(pfa.initial, emissions, pfa.transitions, fallback_targets(pfa.transitions))


def held_out_split(strings: TokenSequences) -> tuple[Tensor, Tensor]:
    """Return the numbers of the strings to learn from, and of those that are held out."""
    number = torch.arange(len(strings))
    is_held = number % HOLD_OUT == HOLD_OUT - 1
    return (number[~is_held], number[is_held]) if is_held.any() else (number, number)


BASELINES: Mapping[str, Callable[[TracedSequences, int, int], nn.Module]] = {
    "kmeans": kmeans_counts,
    "baum_welch": random_baum_welch,
    "ngram3": partial(ngrams, order=3),
    "ngram5": partial(ngrams, order=5),
    "spectral": best_spectral,
    "alergia": best_alergia,
}
