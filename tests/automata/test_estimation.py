"""Clustering, counts, prefix trees and the other estimators, against references from their definitions."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.clustering import consecutive_labels, kmeans_labels, nearest
from kdzoo.automata.counts import Quotient, count, weighted_sum
from kdzoo.automata.ngram import ngram
from kdzoo.automata.pfa import PFA
from kdzoo.automata.prefix_tree import prefix_forest, prefix_tree
from kdzoo.automata.spectral import hankel, spectral
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences

STRINGS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=8)
PDFA = ([1.0, 0.0], [[[0.0, 0.7], [0.1, 0.0]], [[0.2, 0.0], [0.0, 0.5]]], [0.1, 0.4])


# Clustering


def test_kmeans_finds_separate_groups_from_a_sample_as_well():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    owner = torch.arange(3000) % 3
    points = centres[owner] + 0.1 * torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"sample": 60}, {"init": "random", "n_init": 20}):
        labels = kmeans_labels(points, 3, seed=1, **options)
        assert len({(int(one), int(other)) for one, other in zip(owner, labels, strict=True)}) == 3
        assert torch.equal(labels, kmeans_labels(points, 3, seed=1, **options))


def test_nearest_is_the_least_distance_and_labels_have_no_gaps():
    generator = torch.Generator().manual_seed(0)
    points, centres = torch.randn(50, 3, generator=generator), torch.randn(7, 3, generator=generator)
    assert torch.equal(nearest(points, centres), torch.cdist(points, centres).argmin(1))
    assert consecutive_labels(torch.tensor([9, 3, 9, 5])).tolist() == [2, 0, 2, 1]
    with pytest.raises(ConfigError, match="n_clusters must be at most the number of points 50, got 51"):
        kmeans_labels(points, 51)


# Counts


@settings(max_examples=25, deadline=None)
@given(sequences=STRINGS, seed=st.integers(0, 1000))
def test_counts_follow_every_string_point_by_point(sequences, seed):
    strings = TokenSequences.of(sequences)
    labels = torch.randint(0, 3, (strings.n_prefixes,), generator=torch.Generator().manual_seed(seed))
    starts, edges, symbols, point = Counter(), Counter(), Counter(), 0
    for number, sequence in enumerate(sequences):
        starts[int(labels[point])] += number + 1
        for token in sequence:
            edges[token, int(labels[point]), int(labels[point + 1])] += number + 1
            symbols[int(labels[point]), token] += number + 1
            point += 1
        symbols[int(labels[point]), 3] += number + 1
        point += 1
    weights = torch.arange(1.0, len(sequences) + 1)
    seen = TracedSequences(strings, 4, torch.zeros(strings.n_prefixes, 1))
    found = count(seen, labels, n_clusters=3, weights=weights)
    for wanted, tensor in ((starts, [found.starts]), (edges, [found.transitions]), (symbols, [found.emissions])):
        assert {tuple(i) if len(i) > 1 else i[0]: tensor[0][tuple(i)].item() for i in tensor[0].nonzero().tolist()} == (
            {key: float(value) for key, value in wanted.items()}
        )
    pfa = found.to_pfa(0.1)
    assert torch.allclose(pfa.emissions.sum(1), torch.ones(3, dtype=torch.float64), atol=1e-12)
    assert pfa.log_prob(TokenSequences.of([[0, 1, 2], [2, 2]])).isfinite().all()


def test_frequencies_are_the_likeliest_parameters():
    strings = TokenSequences.of([[0, 1], [0], [1, 1, 1]])
    seen = TracedSequences(strings, 3, torch.zeros(strings.n_prefixes, 1))
    pfa = count(seen, torch.zeros(strings.n_prefixes, dtype=torch.int64)).to_pfa()
    assert pfa.emissions[0].tolist() == pytest.approx([2 / 9, 4 / 9, 3 / 9])
    double = weighted_sum([count(seen, torch.zeros(9, dtype=torch.int64))] * 2, [1.0, 3.0])
    assert double.weight == pytest.approx(36)


def test_merging_all_edges_keeps_their_sum():
    generator = torch.Generator().manual_seed(0)
    quotient = Quotient(*(torch.rand(*shape, generator=generator).double() for shape in ((4,), (4, 3), (2, 4, 4))))
    groups = torch.tensor([0, 1, 0, 1])
    merged = quotient.merged(groups)
    assert merged.transitions[1, 0, 1] == pytest.approx(float(quotient.transitions[1][[0, 2]][:, [1, 3]].sum()))
    assert float(merged.starts[1]) == pytest.approx(float(quotient.starts[[1, 3]].sum()))


# Prefix trees


@settings(max_examples=30, deadline=None)
@given(sequences=STRINGS, most=st.integers(1, 20))
def test_every_prefix_is_one_node_with_its_weight(sequences, most):
    strings = TokenSequences.of(sequences)
    prefixes = Counter(tuple(one[:length]) for one in sequences for length in range(len(one) + 1))
    tree = prefix_tree(strings)
    token = {node: token for layer in tree.groups for token, first, end in layer for node in range(first, end)}

    def prefix(node):
        return () if node == 0 else (*prefix(int(tree.parent[node])), token[node])

    assert {prefix(node): tree.weight[node].item() for node in range(tree.n_nodes)} == dict(prefixes)
    ends = Counter(tuple(one) for one in sequences)
    assert {prefix(n): tree.stops[n].item() for n in range(tree.n_nodes) if tree.stops[n]} == dict(ends)
    wanted = [tuple(one[:length]) for one in sequences for length in range(len(one) + 1)]
    assert [prefix(node) for node in tree.nodes.tolist()] == wanted
    assert sum(one.total for one in prefix_forest(strings, most=most)) == tree.total == strings.n_prefixes


# N-grams


def reference_ngram(sequences, order, vocab):
    """Witten and Bell's interpolation from dictionaries; a function of history and symbol."""
    counts = {}
    for sequence in sequences:
        history = ["^"]
        for symbol in [*sequence, vocab - 1]:
            for length in range(order):
                if length <= len(history):
                    counts.setdefault(tuple(history[len(history) - length :]), Counter())[symbol] += 1
            history.append(symbol)

    def probability(history, symbol):
        known = [n for n in range(order) if n <= len(history) and tuple(history[len(history) - n :]) in counts]
        value = 1 / vocab
        for length in known:
            seen = counts[tuple(history[len(history) - length :])]
            value = (seen[symbol] + len(seen) * value) / (sum(seen.values()) + len(seen))
        return value

    return probability


@settings(max_examples=25, deadline=None)
@given(sequences=STRINGS, tests=STRINGS, order=st.integers(1, 4))
def test_ngrams_equal_their_definition(sequences, tests, order):
    model = ngram(TokenSequences.of(sequences), order, 4)
    probability = reference_ngram(sequences, order, 4)
    for sequence in tests:
        history, wanted = ["^"], 0.0
        for symbol in [*sequence, 3]:
            wanted += math.log(probability(history, symbol))
            history.append(symbol)
        strings = TokenSequences.of([sequence])
        assert float(model.log_prob(strings)) == pytest.approx(wanted, rel=1e-9)
        assert float(model.to_pfa().log_prob(strings)) == pytest.approx(wanted, rel=1e-9)


def test_ngram_steps_give_the_same_predictions_as_its_automaton():
    model = ngram(TokenSequences.of([[0, 1, 1], [1], []]), 3, 3)
    pfa, tokens = model.to_pfa(), torch.tensor([0, 1])
    state, belief = model.step(model.initial_state(2), tokens), pfa.step(pfa.initial_state(2), tokens)
    torch.testing.assert_close(model.next_log_probs(state), pfa.next_log_probs(belief))
    with pytest.raises(ConfigError, match="order must be smaller for 3 symbols, got 60"):
        ngram(TokenSequences.of([[0]]), 60, 3)


# Spectral learning


@pytest.mark.parametrize("kind", ["factor", "prefix"])
def test_the_rank_of_a_deterministic_automaton_gives_it_back(kind):
    truth = PFA.from_parameters(*PDFA)
    strings = truth.sample(20000, seed=0, max_length=200)
    model = hankel(strings, 3, kind=kind, basis=60, max_length=3).automaton(2, floor=0.0)
    tests = TokenSequences.of([[], [0], [0, 0], [0, 1, 1], [1, 0, 0, 0]])
    torch.testing.assert_close(model.weight(tests), truth.log_prob(tests).exp(), atol=4e-3, rtol=0.05)
    torch.testing.assert_close(model.log_prob(tests), truth.log_prob(tests), atol=0.05, rtol=0.02)


def test_weighted_automata_are_proper_distributions_and_chosen_on_held_out_strings():
    truth = PFA.from_parameters(*PDFA)
    train, held_out = truth.sample(500, seed=1, max_length=100), truth.sample(200, seed=2, max_length=100)
    model = spectral(train, 3, held_out=held_out, ranks=(1, 2, 8), basis=30, max_length=3)
    state = model.step(model.initial_state(3), torch.tensor([0, 1, 0]))
    torch.testing.assert_close(model.next_log_probs(state).exp().sum(1), torch.ones(3, dtype=torch.float64))
    gap = (truth.log_prob(held_out) - model.log_prob(held_out)).sum() / held_out.n_prefixes
    assert float(gap) < 0.01
    assert model.rank >= 2


# ALERGIA


def test_alergia_finds_a_deterministic_automaton():
    pytest.importorskip("aalpy")
    from kdzoo.automata.alergia import alergia

    truth = PFA.from_parameters(*PDFA)
    model = alergia(truth.sample(3000, seed=0, max_length=100), 3, eps=0.05)
    fresh = truth.sample(500, seed=1, max_length=100)
    assert float((truth.log_prob(fresh) - model.log_prob(fresh)).sum() / fresh.n_prefixes) < 5e-3
    assert model.states <= 10
    with pytest.raises(DataError, match="token 2"):
        alergia(TokenSequences.of([[2]]), 3)
