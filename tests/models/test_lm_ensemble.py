"""The ensemble of language models: what every language model promises, and the mixture by its definition."""

import re

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from kdzoo.core.abilities import CombinesMembers
from kdzoo.errors import ConfigError
from kdzoo.models import RNNLM, LMEnsemble, TransformerLM
from kdzoo.text.language_model import sequence_log_probs, stepwise_trace, trace
from kdzoo.text.token_sequences import TokenSequences
from tests.models.language_model_cases import INPUT, SEQUENCES, LanguageModelTests, V


class TestLMEnsemble(LanguageModelTests):
    build = {
        "ensemble": lambda _: LMEnsemble(
            [RNNLM(vocab_size=V, cell="lstm"), TransformerLM(vocab_size=V, dropout=0.3)], [1, 3]
        ),
    }


class Memoryless(torch.nn.Module):
    """Predicts the same distribution after every prefix."""

    def __init__(self, p):
        super().__init__()
        self.vocab_size, self.p = len(p), torch.tensor(p, dtype=torch.float64)

    def forward(self, input):
        return self.p.log().expand(*input.shape, -1)

    def initial_state(self, n):
        return torch.zeros(n, 1)

    def step(self, state, token):
        return state + 1

    def next_log_probs(self, state):
        return self.p.log().expand(len(state), -1)

    def hidden(self, state):
        return state


def test_a_sequence_has_the_mean_of_the_members_probabilities():
    torch.manual_seed(0)
    members = [RNNLM(vocab_size=V).double() for _ in range(3)]
    weights = [0.2, 0.5, 0.3]
    result = sequence_log_probs(LMEnsemble(members, weights), SEQUENCES)
    each = np.stack([sequence_log_probs(member, SEQUENCES).numpy() for member in members])
    np.testing.assert_allclose(result, logsumexp(each, axis=0, b=np.array(weights)[:, None]), rtol=1e-9)


def test_one_member_and_members_of_weight_zero():
    torch.manual_seed(0)
    first, other = (RNNLM(vocab_size=V, cell=cell) for cell in ("gru", "lstm"))
    expected = trace(first, INPUT)
    torch.testing.assert_close(trace(LMEnsemble([first]), INPUT), expected)
    torch.testing.assert_close(trace(LMEnsemble([first, other], [2, 0]), INPUT).log_probs, expected.log_probs)


def test_a_member_that_cannot_generate_the_prefix_has_no_weight():
    only_0, only_1 = Memoryless([0.9, 0.0, 0.1]), Memoryless([0.0, 0.5, 0.5])
    model = LMEnsemble([only_0, only_1])
    inputs, _ = TokenSequences.of([[0, 0], [1, 1], [0, 1]]).inputs_and_targets(3)
    for traced in (trace(model, inputs), stepwise_trace(model, inputs)):
        probabilities = traced.log_probs.exp()
        np.testing.assert_allclose(probabilities[:, 0], [[0.45, 0.25, 0.3]] * 3, rtol=1e-12)
        np.testing.assert_allclose(probabilities[0, 1:], [[0.9, 0.0, 0.1]] * 2, rtol=1e-12)
        np.testing.assert_allclose(probabilities[1, 1:], [[0.0, 0.5, 0.5]] * 2, rtol=1e-12)
        assert probabilities[2, 2].tolist() == [0.0, 0.0, 0.0]  # no member generates 0 1


def test_hidden_vectors_are_concatenated():
    model = LMEnsemble([RNNLM(vocab_size=V, hidden=3), RNNLM(vocab_size=V, hidden=4, layers=2)])
    result = trace(model, INPUT).hidden
    torch.testing.assert_close(result[..., :3], trace(model.members[0], INPUT).hidden)
    torch.testing.assert_close(result[..., 3:], trace(model.members[1], INPUT).hidden)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "members must be a list of at least one module, got an empty list"),
        (
            ([RNNLM(vocab_size=3), RNNLM(vocab_size=4)],),
            "members must be language models of one vocab_size, got [3, 4]",
        ),
        (([torch.nn.ReLU()],), "members must be language models of one vocab_size, got [None]"),
        (
            ([RNNLM(vocab_size=3)] * 2, [0, 0]),
            "weights must be 2 finite numbers >= 0, not all zero, got [0, 0]",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        LMEnsemble(*arguments)


def test_members_are_given_with_their_weights():
    members = [RNNLM(vocab_size=V) for _ in range(2)]
    model = LMEnsemble(members, [3, 1])
    assert isinstance(model, CombinesMembers)
    assert model.weighted_members() == [(members[0], 0.75), (members[1], 0.25)]
