"""The language model with random weights that data are drawn from."""

import numpy as np
import pytest
import torch

from kdzoo.core.abilities import LoadsPretrained, TracesInParallel
from kdzoo.errors import ConfigError
from kdzoo.text.language_model import LanguageModel, stepwise_trace, trace
from kdzoo.text.oracle_lstm import OracleLSTM


def reference(model, tokens):
    """Return the log-probabilities of the next token after each symbol, by the equations of an LSTM in float64."""
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    h = c = np.zeros(model.lstm.hidden_size)
    rows = []
    for token in tokens:
        x = weights["embedding.weight"][token]
        gates = weights["lstm.weight_ih_l0"] @ x + weights["lstm.weight_hh_l0"] @ h + weights["lstm.bias_ih_l0"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = weights["head.weight"] @ h + weights["head.bias"]
        rows.append(logits - np.log(np.exp(logits).sum()))
    return np.array(rows)


def test_the_probabilities_are_those_of_an_lstm_without_an_end():
    model, tokens = OracleLSTM(vocab_size=7, hidden=5), [6, 0, 3, 5]
    log_probs = trace(model, torch.tensor([tokens])).log_probs[0]
    np.testing.assert_allclose(log_probs[:, :-1].numpy(), reference(model, tokens), atol=1e-5)
    assert log_probs[:, -1].isneginf().all()


def test_step_by_step_it_is_the_same_model():
    model = OracleLSTM(vocab_size=7, hidden=5)
    assert isinstance(model, LanguageModel)
    assert isinstance(model, TracesInParallel)
    input = torch.tensor([[6, 0, 3, 5], [6, 1, 1, 2]])
    at_once, stepwise = trace(model, input), stepwise_trace(model, input)
    torch.testing.assert_close(at_once.hidden, stepwise.hidden)
    torch.testing.assert_close(at_once.log_probs, stepwise.log_probs)
    torch.testing.assert_close(model(input), at_once.log_probs)


def test_the_weights_are_standard_normal_and_a_function_of_the_seed():
    models = [OracleLSTM(vocab_size=500, target_seed=seed) for seed in (0, 0, 1)]
    heads = [model.head.weight for model in models]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].mean().abs() < 4 / heads[0].numel() ** 0.5
    assert heads[0].std().item() == pytest.approx(1, abs=0.03)


def test_it_needs_no_training():
    model = OracleLSTM(vocab_size=5)
    assert isinstance(model, LoadsPretrained)
    assert model.new_parameters == ()
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 1}, "vocab_size must be an integer >= 2, got 1"),
        ({"hidden": 0}, "hidden must be an integer >= 1, got 0"),
        ({"target_seed": -1}, "target_seed must be an integer >= 0, got -1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        OracleLSTM(**{"vocab_size": 5, **options})
