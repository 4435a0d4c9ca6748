"""Distillation of trajectories whose teacher is a known automaton."""

import pytest
import torch

from kdzoo.automata.distill import distill, distill_states
from kdzoo.automata.pfa import PFA
from kdzoo.automata.targets import embedded_reber, tomita
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences


def teacher_of(truth, n, seed, *, noise=0.02, soft=True, turn=0):
    """TracedSequences of a teacher whose hidden state is the belief of an automaton, turned and with noise."""
    strings = truth.sample(n, seed=seed, max_length=200)
    inputs, targets = strings.inputs_and_targets(truth.vocab_size)
    belief, beliefs = truth.initial_state(len(strings)), []
    for place in range(inputs.shape[1]):
        belief = truth.step(belief, inputs[:, place]) if place else belief
        beliefs.append(belief)
    points = torch.stack(beliefs, 1)[targets >= 0]
    generator = torch.Generator().manual_seed(turn)
    turned = points @ torch.linalg.qr(torch.randn(truth.states, truth.states, generator=generator).double()).Q
    hidden = turned + noise * torch.randn(turned.shape, generator=generator)
    probs = points @ truth.emissions
    return TracedSequences(strings, truth.vocab_size, hidden.float(), probs if soft else None)


def divergence(truth, pfa):
    """Kullback-Leibler divergence in nats per symbol, from fresh strings."""
    fresh = truth.sample(1000, seed=99, max_length=200)
    return float((truth.log_prob(fresh) - pfa.log_prob(fresh)).sum()) / fresh.n_prefixes


def test_reber_comes_back_from_states_that_predict_alike():
    truth = embedded_reber()
    traced = teacher_of(truth, 200, 0)
    result = distill([traced], states=20, restarts=1, em=False)
    assert divergence(truth, result.pfa) < 2e-3
    assert result.labels.shape == (traced.n_prefixes,)
    assert int(result.labels.max()) < 20
    assert result.pfa.states == result.states == 20


def test_each_step_can_be_switched_off():
    traced = teacher_of(tomita(3), 100, 1)
    for options, names in (
        ({"em": False}, {"clusters", "merged", "refined", "kmeans"}),
        ({"merge": False, "em": False, "states": 4}, {"kmeans"}),
        ({"determinism": 2.0}, {"clusters", "merged", "refined", "refined+em"}),
    ):
        result = distill([traced], restarts=1, em_steps=3, **options)
        assert set(result.candidate_scores) == names
        assert result.chosen in names
    hard = distill([traced], states=4, restarts=1, em=False, soft=False).pfa
    soft = distill([traced], states=4, restarts=1, em=False, soft=True).pfa
    assert divergence(tomita(3), soft) < divergence(tomita(3), hard)


@pytest.mark.parametrize("language", [1, 4, 6])
def test_the_number_of_states_is_found(language):
    truth = tomita(language)
    result = distill([teacher_of(truth, 250, 2)], restarts=1, em=False)
    assert result.pfa.states >= truth.states - 1  # states without a way to the end are never traced
    assert result.pfa.states <= truth.states + 3
    assert divergence(truth, result.pfa) < 5e-3


def test_the_result_depends_on_the_seed_alone():
    traced = teacher_of(tomita(4), 60, 3)
    torch.manual_seed(1)
    one = distill([traced], states=3, seed=7, em_steps=3, restarts=1)
    torch.manual_seed(2)
    other = distill([traced], states=3, seed=7, em_steps=3, restarts=1)
    assert one.chosen == other.chosen
    assert torch.equal(one.pfa.transitions, other.pfa.transitions)
    assert torch.equal(one.labels, other.labels)


def test_two_teachers_share_their_states():
    truth = tomita(4)
    one, other = teacher_of(truth, 150, 4, turn=1), teacher_of(truth, 150, 5, turn=2)
    result = distill([one, other], [1.0, 2.0], states=3, restarts=1, em=False)
    assert divergence(truth, result.pfa) < 5e-3
    states = result.labels.split([one.n_prefixes, other.n_prefixes])
    assert set(states[0].tolist()) == set(states[1].tolist()) == {0, 1, 2}
    pooled = distill([one, one], [1.0, 1.0], states=3, restarts=1, em=False, held_out=0)
    alone = distill([one], states=3, restarts=1, em=False, held_out=0, pseudocount=5e-5)
    torch.testing.assert_close(pooled.pfa.stop.sort().values, alone.pfa.stop.sort().values, atol=1e-6, rtol=1e-4)


def test_a_teacher_that_is_not_deterministic_needs_baum_welch():
    truth = PFA.from_parameters([0.5, 0.5], [[[0.6, 0.2], [0.0, 0.2]], [[0.1, 0.0], [0.1, 0.6]]], [0.1, 0.1])
    traced = teacher_of(truth, 200, 6)
    result = distill([traced], states=2, restarts=1, em_steps=30)
    assert result.chosen in {"blurred+em", "random+em", "kmeans+em"}
    assert divergence(truth, result.pfa) < 4e-3


def test_distillation_needs_arrays_only():
    sequences = [[0, 1] * (number % 3) for number in range(60)]
    hidden = [torch.tensor([[1.0], [-1.0]] * 4)[: len(one) + 1].numpy() for one in sequences]
    result = distill_states(sequences, hidden, states=2, em=False, held_out=0)
    assert result.pfa.log_prob(TokenSequences.of([[0, 1]])).exp().item() == pytest.approx(1 / 3, abs=0.1)
    assert result.labels[1:4].tolist() in ([0, 1, 0], [1, 0, 1])  # the points of [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": 0}, "states must be an integer >= 1, got 0"),
        ({"states": 999}, "states must be at most the number of prefixes 4, got 999"),
        ({"states": 3, "clusters": 2}, "clusters must be at least states = 3, got 2"),
        ({"merge": False}, "states must be given if merge is false"),
        ({"features": "all"}, "features must be one of hidden, sqrt_probs, both, learned, got 'all'"),
        ({"determinism": -1.0}, "determinism must be finite and > 0, got -1.0"),
        ({"held_out": 1.0}, r"held_out must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        distill_states([[0], [1]], torch.eye(4), **options)


def test_wrong_data_are_named():
    with pytest.raises(DataError, match="sequence 1 has token 5 at position 0"):
        distill_states([[0], [5]], torch.eye(4), vocab_size=3)
    with pytest.raises(DataError, match=r"hidden must have shape \[4, .\]"):
        distill_states([[0], [1]], torch.eye(3))
    with pytest.raises(DataError, match="at least one string"):
        distill_states([], torch.eye(3))
    one, other = (TracedSequences.of([[0]], torch.eye(2), vocab_size=size) for size in (2, 3))
    with pytest.raises(DataError, match=r"same vocab_size, got \[2, 3\]"):
        distill([one, other])


def test_a_set_of_empty_strings_is_learned_too():
    result = distill_states([[], [], []], torch.zeros(3, 2), states=1, vocab_size=3)
    assert float(result.pfa.log_prob(TokenSequences.of([[]])).exp()) > 0.9


def test_an_unknown_option_is_named():
    with pytest.raises(ConfigError, match="state is not a valid option"):
        distill_states([[0]], torch.zeros(2, 2), state=1)
