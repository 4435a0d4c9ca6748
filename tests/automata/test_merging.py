"""Greedy merging against brute force."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.counts import Quotient
from kdzoo.automata.merging import cost, merge_path, refine
from kdzoo.errors import ConfigError


def random_quotient(seed, clusters=6, tokens=3, hard=True):
    """Sparse random counts; emissions of hard counts agree with the edges, and soft ones do not."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(0, 6, (tokens, clusters, clusters), generator=generator).double()
    edges *= torch.rand(edges.shape, generator=generator) < 0.5
    stops = torch.randint(0, 4, (clusters,), generator=generator).double()
    emissions = torch.cat([edges.sum(2).T, stops[:, None]], 1)
    if not hard:
        emissions = emissions + torch.rand(emissions.shape, generator=generator, dtype=torch.float64)
    return Quotient(torch.ones(clusters, dtype=torch.float64), emissions, edges)


def reference_cost(quotient, determinism):
    """The cost from its definition, cell by cell."""
    total = 0.0
    for state in range(quotient.n_clusters):
        symbols = quotient.emissions[state]
        for weight in symbols[symbols > 0]:
            total -= float(weight * (weight / symbols.sum()).log())
        for row in quotient.transitions[:, state]:
            for weight in row[row > 0]:
                total -= determinism * float(weight * (weight / row.sum()).log())
    return total


def merge_pair(clusters, pair):
    labels = torch.arange(clusters)
    labels[pair[1]] = pair[0]
    return torch.unique(labels, return_inverse=True)[1]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), hard=st.booleans(), determinism=st.sampled_from([0.5, 1.0, 3.0]))
def test_each_merge_is_the_best_of_all_pairs(seed, hard, determinism):
    quotient = random_quotient(seed, hard=hard)
    assert cost(quotient, determinism) == pytest.approx(reference_cost(quotient, determinism), rel=1e-12)
    path = merge_path(quotient, determinism=determinism)
    current = quotient
    for entry, states in enumerate(path.n_states):
        assert path.costs[entry] == pytest.approx(reference_cost(current, determinism), rel=1e-9, abs=1e-9)
        groups = path.groups(states)
        assert int(groups.max()) + 1 == states
        assert reference_cost(quotient.merged(groups), determinism) == pytest.approx(path.costs[entry], abs=1e-9)
        if states > 1:
            best = min(
                reference_cost(current.merged(merge_pair(states, pair)), determinism)
                for pair in itertools.combinations(range(states), 2)
            )
            assert path.costs[entry + 1] == pytest.approx(best, rel=1e-9, abs=1e-9)
            current = quotient.merged(path.groups(states - 1))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), hard=st.booleans(), determinism=st.sampled_from([0.5, 1.0, 3.0]))
def test_refinement_ends_where_no_single_move_helps(seed, hard, determinism):
    quotient = random_quotient(seed, clusters=8, hard=hard)
    before = torch.arange(8) % 3
    after = refine(quotient, before, determinism=determinism, max_sweeps=50)
    least = cost(quotient.merged(after), determinism)
    assert least <= cost(quotient.merged(before), determinism) + 1e-9
    assert sorted(after.unique().tolist()) == [0, 1, 2]
    for cluster, group in itertools.product(range(8), range(3)):
        moved = after.clone()
        moved[cluster] = group
        if len(moved.unique()) == 3:
            assert cost(quotient.merged(moved), determinism) >= least - 1e-6


def test_a_split_deterministic_automaton_is_put_together_again():
    # Two states, each split into three clusters that are entered at random: the split costs nothing to undo.
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(6, generator=generator).double() + 0.2
    owner = torch.arange(6) % 2
    target = torch.tensor([[0, 1], [1, 0]])  # by state and token
    emission = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], dtype=torch.float64)
    edges = torch.zeros(2, 6, 6, dtype=torch.float64)
    for cluster in range(6):
        for token in range(2):
            to = (owner == target[owner[cluster], token]).double() * share
            edges[token, cluster] = 1000 * share[cluster] * emission[owner[cluster], token] * to / to.sum()
    quotient = Quotient(share, 1000 * share[:, None] * emission[owner], edges)
    path = merge_path(quotient)
    assert path.best() == 2
    assert path.groups(2).tolist() == owner.tolist()
    assert path.costs[-2] == pytest.approx(float(-(quotient.emissions * emission[owner].log()).sum()))


def test_arguments_are_checked():
    with pytest.raises(ConfigError, match="n_states must be at most the number of clusters 6, got 7"):
        merge_path(random_quotient(0), n_states=7)
    with pytest.raises(ConfigError, match="determinism must be finite and > 0, got 0"):
        merge_path(random_quotient(0), determinism=0)


def test_the_penalty_is_the_bayesian_information_criterion():
    """Half the logarithm of the number of symbols for each of the K (S + 1) parameters of a deterministic automaton."""
    quotient = random_quotient(0, clusters=4, tokens=3)
    path = merge_path(quotient, penalty=1.5)
    expected = [1.5 * states * 4 * math.log(quotient.weight) / 2 for states in (4, 3, 2, 1)]
    assert path.penalties == pytest.approx(expected)
