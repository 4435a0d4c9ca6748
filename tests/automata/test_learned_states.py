"""States of a network that reads along with a teacher."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from kdzoo.automata import TracedSequences
from kdzoo.automata.distill import distill
from kdzoo.automata.learned_states import learned_states
from kdzoo.text.token_sequences import TokenSequences


@pytest.fixture(scope="module")
def traced() -> TracedSequences:
    """Strings 0220 and 1221 of a teacher with constant hidden states; the first token matters at the end only."""
    strings = TokenSequences.of([[number % 2, 2, 2, number % 2] for number in range(80)])
    symbols = torch.tensor([[a, 2, 2, a, 3] for a in strings.tokens[strings.offsets].tolist()])
    probs = torch.nn.functional.one_hot(symbols, 4).double()
    probs[:, 0] = torch.tensor([0.5, 0.5, 0, 0])
    return TracedSequences(strings, 4, torch.zeros(strings.n_prefixes, 2), probs.flatten(0, 1))


def test_the_states_tell_what_the_next_token_alone_does_not(traced: TracedSequences) -> None:
    """With learned states only the first token is uncertain; with constant hidden states the last one is as well."""
    learned = replace(traced, hidden=learned_states(traced, steps=100))
    informed, uninformed = (
        distill([data], states=8, em=False, restarts=1).candidate_scores["refined"] for data in (learned, traced)
    )
    assert informed == pytest.approx(-math.log(2) / 5, abs=1e-3)
    assert uninformed < -1.99 * math.log(2) / 5


def test_learned_features_are_the_states_and_the_distributions(
    traced: TracedSequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the states had been the teacher's own hidden vectors."""
    states = learned_states(traced, steps=1, seed=3)
    monkeypatch.setattr("kdzoo.automata.candidate_scores.learned_states", partial(learned_states, steps=1))
    options = {"states": 4, "em": False, "restarts": 1, "seed": 3}
    learned = distill([traced], features="learned", **options)
    assert torch.equal(learned.labels, distill([replace(traced, hidden=states)], **options).labels)


def test_the_same_seed_gives_the_same_states_and_leaves_the_global_state_alone(traced: TracedSequences) -> None:
    """The seed alone decides."""
    before = torch.random.get_rng_state()
    first, again, other = (learned_states(traced, steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_drawn_tokens_are_learnt_where_no_distributions_are_known(traced: TracedSequences) -> None:
    """There is a state for each point either way."""
    drawn = TracedSequences(traced.strings, 4, traced.hidden)
    with torch.no_grad():
        states = learned_states(drawn, steps=3)
    assert states.shape[0] == traced.n_prefixes
    assert not states.requires_grad
    assert not torch.equal(states, learned_states(traced, steps=3))
