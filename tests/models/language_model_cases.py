"""What every language model promises; a subclass of ``LanguageModelTests`` builds the models of one module."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from kdzoo.core.batch import IGNORE
from kdzoo.text.language_model import LanguageModel, sample, sequence_log_probs, stepwise_trace, trace
from kdzoo.text.token_sequences import TokenSequences

V = 5
SEQUENCES = TokenSequences.of([[0, 3, 1, 1, 2, 0], [], [2], [3, 3, 3]])
INPUT, TARGET = SEQUENCES.inputs_and_targets(V)
VALID = TARGET != IGNORE


def sharpened(model: Any) -> Any:
    """Return a model whose parameters are scaled, so that its predictions are far from uniform and errors show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


class LanguageModelTests:
    """Tests of any language model of ``V`` symbols.

    Attributes:
        build: Functions of a folder for files that return the models, by name.
    """

    build: ClassVar[dict[str, Callable[[Path], Any]]] = {}

    @pytest.fixture
    def model(self, model_name: str, tmp_path: Path) -> Any:
        torch.manual_seed(0)
        return sharpened(self.build[model_name](tmp_path))

    def test_its_logits_are_its_log_probabilities(self, model):
        assert isinstance(model, LanguageModel)
        assert model.vocab_size == V
        traced = trace(model, INPUT)
        assert traced.hidden.shape[:2] == INPUT.shape
        torch.testing.assert_close(traced.log_probs.logsumexp(-1), torch.zeros(INPUT.shape), rtol=0, atol=1e-6)
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(INPUT).log_softmax(-1), traced.log_probs)

    def test_single_steps_equal_the_trace(self, model):
        at_once = trace(model, INPUT)
        model.eval()
        with torch.no_grad():
            in_steps = stepwise_trace(model, INPUT)
        torch.testing.assert_close(in_steps.hidden[VALID], at_once.hidden[VALID], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(in_steps.log_probs[VALID], at_once.log_probs[VALID], rtol=1e-4, atol=1e-5)

    def test_a_sequence_does_not_depend_on_its_batch_or_padding(self, model):
        together = trace(model, INPUT).log_probs
        for row, length in enumerate(SEQUENCES.lengths.tolist()):
            alone = trace(model, INPUT[row : row + 1, : length + 1]).log_probs[0]
            torch.testing.assert_close(together[row, : length + 1], alone, rtol=1e-4, atol=1e-5)

    def test_a_prediction_does_not_depend_on_later_symbols(self, model):
        changed = INPUT.clone()
        changed[:, 3:] = (INPUT[:, 3:] + 1) % V
        before, after = trace(model, INPUT).log_probs, trace(model, changed).log_probs
        torch.testing.assert_close(after[:, :3], before[:, :3])
        assert (after[0, 3:] - before[0, 3:]).abs().max() > 1e-4

    def test_a_step_does_not_change_its_state(self, model):
        model.eval()
        with torch.no_grad():
            state = model.step(model.initial_state(2), torch.tensor([0, 3]))
            hidden, log_probs = model.hidden(state).clone(), model.next_log_probs(state).clone()
            first = model.next_log_probs(model.step(state, torch.tensor([1, 1])))
            other = model.next_log_probs(model.step(state, torch.tensor([2, 2])))
            again = model.next_log_probs(model.step(state, torch.tensor([1, 1])))
        assert torch.equal(model.hidden(state), hidden)
        assert torch.equal(model.next_log_probs(state), log_probs)
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)

    def test_the_probabilities_of_all_sequences_add_up_to_one(self, model):
        longest = 3
        sequences = [list(s) for length in range(longest + 1) for s in itertools.product(range(V - 1), repeat=length)]
        total = float(sequence_log_probs(model, TokenSequences.of(sequences)).exp().sum())
        unfinished = [s for s in sequences if len(s) == longest]
        inputs, _ = TokenSequences.of(unfinished).inputs_and_targets(V)
        log_probs = trace(model, inputs).log_probs.double()
        prefix = log_probs[:, :-1].gather(2, inputs[:, 1:, None])[..., 0].sum(1)
        continues = prefix.exp() * (1 - log_probs[:, -1, V - 1].exp())
        assert total + float(continues.sum()) == pytest.approx(1, abs=1e-5)

    def test_samples_have_the_frequencies_of_the_model(self, model):
        n = 1500
        sequences = sample(model, n, max_length=15, seed=0, batch_size=1000)
        assert model.training  # as before
        ends = [float(sequence_log_probs(model, TokenSequences.of([s])).exp()) for s in ([], [0], [3])]
        counts = [sum(one == s for one in sequences.to_lists()) for s in ([], [0], [3])]
        for p, count in zip(ends, counts, strict=True):
            assert abs(count - n * p) <= 5 * math.sqrt(n * p * (1 - p))

    def test_gradients_reach_every_parameter(self, model):
        logits = model.train()(INPUT)
        torch.nn.functional.cross_entropy(logits[VALID], TARGET[VALID]).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert sum(p.grad.abs().sum() > 0 for p in model.parameters()) >= len(list(model.parameters())) - 1

    def test_weights_survive_a_state_dict_and_eval_mode_is_deterministic(self, model):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        expected = trace(model, INPUT).log_probs
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert not torch.allclose(trace(model, INPUT).log_probs, expected)
        model.load_state_dict(state)
        assert torch.equal(trace(model, INPUT).log_probs, expected)
