"""Counts over clustered prefixes against counting string by string."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.counts import Quotient, count, fallback_targets, pfa_from_counts, weighted_sum
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.text.token_sequences import TokenSequences

STRINGS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(sequences=STRINGS, seed=st.integers(0, 1000))
def test_counts_equal_counting_prefix_by_prefix(sequences, seed):
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


def test_soft_counts_take_emissions_from_the_teacher_and_edges_from_the_strings():
    strings = TokenSequences.of([[0, 1], [1]])
    probs = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probs = probs / probs.sum(1, keepdim=True)
    labels = torch.tensor([0, 1, 0, 0, 1])
    traced = TracedSequences(strings, 3, next_probs=probs)
    soft, hard = (count(traced, labels, soft=use) for use in (True, False))
    torch.testing.assert_close(soft.emissions, torch.stack([probs[labels == k].sum(0) for k in (0, 1)]))
    assert torch.equal(soft.transitions, hard.transitions)
    assert hard.emissions.tolist() == [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]


def test_pairs_without_an_edge_lead_where_their_token_leads_most_often():
    transitions = torch.zeros(2, 3, 3, dtype=torch.float64)
    transitions[0, 0, 2], transitions[0, 1, 1], transitions[1, 2, 0] = 3.0, 1.0, 1.0
    assert fallback_targets(transitions).argmax(2).flatten().tolist() == [2, 0]
    pfa = Quotient(torch.ones(3).double(), torch.ones(3, 3).double(), transitions).to_pfa()
    assert pfa.transitions[0].argmax(1).tolist() == [2, 1, 2]
    assert pfa.transitions[1].argmax(1).tolist() == [0, 0, 0]


def test_a_state_without_counts_emits_all_symbols_alike():
    emissions = torch.tensor([[2.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    pfa = pfa_from_counts(
        torch.tensor([1.0, 0.0]), emissions, torch.zeros(2, 2, 2).double(), torch.tensor([[[1.0, 0]]])
    )
    torch.testing.assert_close(pfa.emissions, torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]).double())


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_blurring_mixes_the_average_into_each_row(share):
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 3, (2, 4, 4), generator=generator).double()
    emissions = torch.cat([edges.sum(2).T, torch.ones(4, 1).double()], 1)
    quotient = Quotient(torch.tensor([1.0, 0.0, 0.0, 0.0]).double(), emissions, edges)
    blurred, sharp = quotient.to_blurred_pfa(share), quotient.to_pfa()
    average = emissions.sum(0) / emissions.sum()
    torch.testing.assert_close(blurred.emissions, (1 - share) * sharp.emissions + share * average)
    assert (blurred.initial > 0).all()
    assert (blurred.transitions > 0).all() or not (edges.sum(1) > 0).all()


def test_soft_emissions_are_weighted_like_the_strings():
    probs = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]], dtype=torch.float64)
    traced = TracedSequences.of([[0], []], None, probs)  # two prefixes of the first string, one of the second
    quotient = count(traced, torch.tensor([0, 1, 0]), weights=torch.tensor([2.0, 3.0]))
    expected = torch.stack([2 * probs[0] + 3 * probs[2], 2 * probs[1]])
    torch.testing.assert_close(quotient.emissions, expected)
