"""Baum-Welch against enumeration of state paths and automatic differentiation."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.baum_welch import baum_welch, expected_counts, objective, prefix_trees_for, random_pfa_start
from kdzoo.automata.pfa import PFA
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.errors import DataError
from kdzoo.text.token_sequences import TokenSequences

SEQUENCES = [[0, 1, 0], [0, 1, 0], [], [1], [0, 1, 1, 0], [1, 0]]


def soft_data(seed):
    strings = TokenSequences.of(SEQUENCES)
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(strings.n_prefixes, 3, generator=generator, dtype=torch.float64)
    return TracedSequences(strings, 3, next_probs=probs / probs.sum(1, keepdim=True))


def path_counts(pfa, sequence):
    """Expected counts of one string by summing over all its state paths."""
    starts, stops, transitions = (torch.zeros_like(one) for one in (pfa.initial, pfa.stop, pfa.transitions))
    total = 0.0
    for path in itertools.product(range(pfa.states), repeat=len(sequence) + 1):
        weight = pfa.initial[path[0]] * pfa.stop[path[-1]]
        for token, one, other in zip(sequence, path, path[1:], strict=False):
            weight = weight * pfa.transitions[token, one, other]
        total += weight
        starts[path[0]] += weight
        stops[path[-1]] += weight
        for token, one, other in zip(sequence, path, path[1:], strict=False):
            transitions[token, one, other] += weight
    return starts / total, transitions / total, stops / total, float(total.log())


@pytest.mark.parametrize("seed", range(3))
def test_expected_counts_equal_the_sum_over_all_paths(seed):
    pfa = random_pfa_start(3, 3, seed)
    result = expected_counts(pfa, prefix_trees_for(TokenSequences.of(SEQUENCES), 3))
    parts = [path_counts(pfa, sequence) for sequence in SEQUENCES]
    starts, transitions, stops = (sum(part[i] for part in parts) for i in range(3))
    torch.testing.assert_close(result.starts, starts)
    torch.testing.assert_close(result.transitions, transitions)
    torch.testing.assert_close(result.emissions, torch.cat([transitions.sum(2).T, stops[:, None]], 1))
    symbols = sum(len(sequence) + 1 for sequence in SEQUENCES)
    assert result.objective == pytest.approx(sum(part[3] for part in parts) / symbols, rel=1e-12)


def conditional_objective(initial, transitions, stop, data):
    """The mean over all points of the teacher's expected log-probability, for automatic differentiation."""
    emissions = torch.cat([transitions.sum(2), stop[None]])
    total, point = 0.0, 0
    for sequence in data.strings.to_lists():
        belief = initial
        for place in range(len(sequence) + 1):
            total = total + (data.next_probs[point] * (emissions @ belief).log()).sum()
            point += 1
            if place < len(sequence):
                belief = belief @ transitions[sequence[place]]
                belief = belief / belief.sum()
    return total


@pytest.mark.parametrize("seed", range(3))
def test_soft_counts_are_parameters_times_derivatives(seed):
    data, pfa = soft_data(seed), random_pfa_start(3, 3, seed)
    parameters = [one.clone().requires_grad_() for one in (pfa.initial, pfa.transitions, pfa.stop)]
    value = conditional_objective(*parameters, data)
    value.backward()
    starts, transitions, stops = (one.grad * one.detach() for one in parameters)
    result = expected_counts(pfa, prefix_trees_for(data, 3))
    # A belief that is scaled to sum 1 does not feel the scale of the start: the counts differ by a multiple of it.
    shift = (result.starts - starts) / pfa.initial
    torch.testing.assert_close(shift, shift.mean().expand(3))
    torch.testing.assert_close(result.transitions, transitions)
    torch.testing.assert_close(result.emissions[:, -1], stops)
    assert result.objective == pytest.approx(float(value.detach()) / data.n_prefixes, rel=1e-12)
    assert float(result.emissions.sum()) == pytest.approx(data.n_prefixes, rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    sequences=st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=8),
    states=st.integers(1, 4),
    seed=st.integers(0, 1000),
    soft=st.booleans(),
)
def test_the_objective_never_falls_and_zeros_stay(sequences, states, seed, soft):
    strings = TokenSequences.of(sequences)
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(strings.n_prefixes, 4, generator=generator, dtype=torch.float64)
    data = TracedSequences(strings, 4, next_probs=probs / probs.sum(1, keepdim=True)) if soft else strings
    start = random_pfa_start(4, states, seed)
    result = baum_welch(start, data, max_iter=5, tol=1e-12)
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(result.train))
    assert objective(result.pfa, prefix_trees_for(data, states)) == pytest.approx(result.train[-1], rel=1e-9)
    again = baum_welch(result.pfa, data, max_iter=2).pfa
    assert ((again.transitions > 0) <= (result.pfa.transitions > 0)).all()


def test_strings_of_a_known_automaton_give_it_back():
    truth = PFA.from_parameters([1.0, 0.0], [[[0.0, 0.7], [0.1, 0.0]], [[0.2, 0.0], [0.0, 0.5]]], [0.1, 0.4])
    strings = truth.sample(2000, seed=0, max_length=100)
    start = PFA.from_parameters([1.0, 0.0], [[[0.1, 0.2], [0.4, 0.1]], [[0.3, 0.2], [0.1, 0.2]]], [0.2, 0.2])
    result = baum_welch(start, strings, max_iter=300, tol=1e-9)
    assert result.train[-1] >= objective(truth, prefix_trees_for(strings, 2))
    fresh = truth.sample(2000, seed=1, max_length=100)
    symbols = fresh.n_prefixes
    assert float((truth.log_prob(fresh) - result.pfa.log_prob(fresh)).sum()) / symbols < 2e-3


def test_a_matching_teacher_is_a_fixed_point():
    truth = PFA.from_parameters([1.0, 0.0], [[[0.0, 0.7], [0.1, 0.0]], [[0.2, 0.0], [0.0, 0.5]]], [0.1, 0.4])
    strings = truth.sample(20, seed=0, max_length=50)
    probs = torch.cat([truth(torch.tensor([[2, *one]]))[0] for one in strings.to_lists()]).exp()
    result = expected_counts(truth, prefix_trees_for(TracedSequences(strings, 3, next_probs=probs), 2))
    torch.testing.assert_close(result.emissions / result.emissions.sum(1, keepdim=True), truth.emissions)


def test_early_stopping_returns_the_best_step():
    truth = random_pfa_start(4, 3, 0)
    train, held_out = truth.sample(20, seed=1, max_length=30), truth.sample(200, seed=2, max_length=30)
    result = baum_welch(random_pfa_start(4, 6, 5), train, held_out=held_out, max_iter=60, patience=5)
    assert len(result.held_out) < 61
    assert result.held_out[result.steps] >= max(result.held_out) - 1e-6
    assert objective(result.pfa, prefix_trees_for(held_out, 6)) == pytest.approx(result.held_out[result.steps])


def test_weights_count_as_repetitions_and_float32_is_close():
    strings = TokenSequences.of([[0, 1], [1], []])
    repeated = strings.select(torch.tensor([0, 0, 0, 1, 2, 2]))
    start = random_pfa_start(3, 3, 0)
    weighted = baum_welch(start, strings, weights=torch.tensor([3.0, 1.0, 2.0]), max_iter=4).pfa
    torch.testing.assert_close(weighted.transitions, baum_welch(start, repeated, max_iter=4).pfa.transitions)
    rough = baum_welch(start, repeated, max_iter=4, dtype=torch.float32).pfa
    torch.testing.assert_close(weighted.transitions, rough.transitions, atol=1e-5, rtol=1e-4)


def test_impossible_strings_are_refused():
    start = PFA.from_parameters([1.0], [[[0.5]], [[0.0]]], [0.5])
    with pytest.raises(DataError, match="impossible"):
        baum_welch(start, TokenSequences.of([[0, 1]]))
