"""Baselines: other methods that learn a model from a teacher's strings, by their names in the report.

Each baseline chooses its settings or its restart by the likelihood of held-out strings, as the distillation itself
does. k-means and n-grams are then estimated again from all strings; the models of the other baselines are learned from
the strings that are not held out.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from kdzoo.automata.alergia import alergia
from kdzoo.automata.baum_welch import baum_welch, random_pfa_start
from kdzoo.automata.clustering import INITS, kmeans_labels
from kdzoo.automata.counts import count, fallback_targets, pfa_from_counts
from kdzoo.automata.ngram import NGram, ngram
from kdzoo.automata.pfa import PFA
from kdzoo.automata.spectral import WeightedAutomaton, spectral
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.text.language_model import trace
from kdzoo.text.token_sequences import TokenSequences

# Values of aalpy's ``eps``, from many merges to few. Beyond 1.0, aalpy took half a minute and returned more than a
# thousand states.
ALERGIA_EPS = (0.005, 0.05, 0.5, 1.0)

# Shares of the uniform distribution that are mixed into ALERGIA's automata. Without it, each automaton gives some
# string of the teacher probability 0, and its perplexity is infinite.
UNIFORM_SHARES = (1e-2, 1e-3, 1e-4)

# Weight added to each symbol of each state; the value that distillation uses for sampled symbols.
PSEUDOCOUNT = 0.01

# Every tenth string is held out: the share that distillation holds out by default.
HOLD_OUT_EVERY = 10


class LanguageModelModule(nn.Module):
    """A table-based language model wrapped as a module, so that a run can evaluate it like any other.

    Args:
        model: An n-gram model or a weighted automaton.
    """

    def __init__(self, model: NGram | WeightedAutomaton) -> None:
        super().__init__()
        self.model = model

    @property
    def vocab_size(self) -> int:
        """Number of symbols V."""
        return self.model.vocab_size

    @property
    def n_parameters(self) -> int:
        """Number of free parameters."""
        return self.model.n_parameters

    def initial_state(self, n: int) -> Tensor:
        """Return the state before the first token, ``n`` times."""
        return self.model.initial_state(n)

    def step(self, state: Tensor, token: Tensor) -> Tensor:
        """Return the states after one more token, int64 ``[n]``."""
        return self.model.step(state, token)

    def next_log_probs(self, state: Tensor) -> Tensor:
        """Return the log-probabilities of the next symbol in nats ``[n, V]``."""
        return self.model.next_log_probs(state)

    def hidden(self, state: Tensor) -> Tensor:
        """Return the state as a feature vector ``[n, H]``."""
        return self.model.hidden(state)

    def forward(self, input: Tensor) -> Tensor:
        """Return the log-probabilities of the next symbol ``[batch, time, V]``."""
        return trace(self.model, input).log_probs


def kmeans_counts(
    traced: TracedSequences, states: int, seed: int, *, restarts: int = 10, features: str = "hidden"
) -> PFA:
    """Return the automaton whose states are k-means clusters, with probabilities from the counts of sampled tokens.

    The restart with the highest held-out likelihood is used. Half of the restarts begin with k-means++, half with
    random prefixes: on some teachers random centres found a better optimum, and a baseline with one initialisation
    only would be too weak.

    Args:
        traced: The teacher's strings with its hidden states and next-token distributions.
        states: Number of states K.
        seed: Seed of the first restart; restart i uses ``seed + i``.
        restarts: Number of restarts, >= 1.
        features: What is clustered; see :meth:`TracedSequences.features`.
    """
    points = traced.features(features)
    train, held_out = held_out_split(traced.strings)
    best_labels, best_likelihood = torch.zeros(traced.n_prefixes, dtype=torch.int64), -torch.inf
    for restart in range(restarts):
        labels = kmeans_labels(points, states, init=INITS[restart % len(INITS)], seed=seed + restart)
        train_labels = labels[traced.prefixes_of(train)]
        quotient = count(traced.select(train), train_labels, n_clusters=states, soft=False)
        likelihood = float(quotient.to_pfa(PSEUDOCOUNT).log_prob(traced.strings.select(held_out)).sum())
        if likelihood > best_likelihood:
            best_labels, best_likelihood = labels, likelihood
    return count(traced, best_labels, n_clusters=states, soft=False).to_pfa(PSEUDOCOUNT)


def random_baum_welch(traced: TracedSequences, states: int, seed: int, *, restarts: int = 3, steps: int = 50) -> PFA:
    """Return the automaton that Baum-Welch learns from sampled tokens, from the best of several random starts.

    The start with the highest held-out likelihood is used.

    Args:
        traced: The teacher's strings; its distributions are not used.
        states: Number of states K.
        seed: Seed of the first start; start i uses ``seed + i``.
        restarts: Number of random starts, >= 1.
        steps: Maximum number of Baum-Welch steps from each start.
    """
    train, held_out = (traced.strings.select(index) for index in held_out_split(traced.strings))
    runs = [
        baum_welch(
            random_pfa_start(traced.vocab_size, states, seed + restart), train, held_out=held_out, max_iter=steps
        )
        for restart in range(restarts)
    ]
    return max(runs, key=lambda run: run.held_out[run.steps]).pfa


def best_alergia(traced: TracedSequences, states: int, seed: int) -> PFA:  # noqa: ARG001
    """Return the automaton of ALERGIA with the highest held-out likelihood.

    The candidates are all pairs of a value in ``ALERGIA_EPS`` and a share in ``UNIFORM_SHARES``.
    """
    train, held_out = (traced.strings.select(index) for index in held_out_split(traced.strings))
    automata = [alergia(train, traced.vocab_size, eps=eps) for eps in ALERGIA_EPS]
    candidates = [mixed_with_uniform(pfa, share) for pfa in automata for share in UNIFORM_SHARES]
    return max(candidates, key=lambda pfa: float(pfa.log_prob(held_out).sum()))


def best_spectral(traced: TracedSequences, states: int, seed: int) -> nn.Module:  # noqa: ARG001
    """Return the spectral estimate whose rank and statistics fit the held-out strings best."""
    train, held_out = (traced.strings.select(index) for index in held_out_split(traced.strings))
    return LanguageModelModule(spectral(train, traced.vocab_size, held_out=held_out))


def ngrams(traced: TracedSequences, states: int, seed: int, *, order: int) -> nn.Module:  # noqa: ARG001
    """Return an n-gram model of all strings, with n = ``order``."""
    return LanguageModelModule(ngram(traced.strings, order, traced.vocab_size))


def mixed_with_uniform(pfa: PFA, share: float) -> PFA:
    """Mix the uniform distribution into the emissions of every state, so that no string is impossible.

    Where a state has no transition for a token, the new transition leads to the state that this token leads to most
    often from the other states.

    Args:
        pfa: The automaton.
        share: Share of the uniform distribution over the V symbols, in [0, 1].
    """
    emissions = (1 - share) * pfa.emissions + share / pfa.vocab_size
    return pfa_from_counts(pfa.initial, emissions, pfa.transitions, fallback_targets(pfa.transitions))


def held_out_split(strings: TokenSequences) -> tuple[Tensor, Tensor]:
    """Return the indices of the strings to learn from and those of the held-out strings, int64.

    With fewer than ``HOLD_OUT_EVERY`` strings both are the indices of all strings.
    """
    index = torch.arange(len(strings))
    is_held_out = index % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
    return (index[~is_held_out], index[is_held_out]) if is_held_out.any() else (index, index)


# All have the arguments (traced, states, seed). ALERGIA, spectral learning and n-grams choose their size from the
# strings and use no randomness, so they ignore the last two.
BASELINES: Mapping[str, Callable[[TracedSequences, int, int], nn.Module]] = {
    "kmeans": kmeans_counts,
    "baum_welch": random_baum_welch,
    "ngram3": partial(ngrams, order=3),
    "ngram5": partial(ngrams, order=5),
    "spectral": best_spectral,
    "alergia": best_alergia,
}
