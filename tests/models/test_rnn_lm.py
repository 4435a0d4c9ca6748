"""The recurrent language model: what every language model promises, and its formula in NumPy."""

import re

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from kdzoo.errors import ConfigError
from kdzoo.models import RNNLM
from kdzoo.text.language_model import trace
from tests.models.language_model_cases import INPUT, LanguageModelTests, V


class TestRNNLM(LanguageModelTests):
    build = {
        "gru": lambda _: RNNLM(vocab_size=V, hidden=12, dropout=0.3),
        "lstm, 3 layers": lambda _: RNNLM(vocab_size=V, hidden=6, layers=3, cell="lstm", dropout=0.3),
        "gru, 2 layers": lambda _: RNNLM(vocab_size=V, embedding=4, hidden=6, layers=2),
    }


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_forward_is_the_formula(cell):
    model = RNNLM(vocab_size=V, embedding=4, hidden=3, layers=2, cell=cell).double()
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    row = INPUT[0].tolist()
    x, tops = w["embedding.weight"][row], []
    for i in range(2):
        h = c = np.zeros(3)
        outputs = []
        for symbol in x:
            a = w[f"layers.{i}.weight_ih_l0"] @ symbol + w[f"layers.{i}.bias_ih_l0"]
            b = w[f"layers.{i}.weight_hh_l0"] @ h + w[f"layers.{i}.bias_hh_l0"]
            if cell == "gru":
                (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
                z = expit(az + bz)
                h = (1 - z) * np.tanh(an + expit(ar + br) * bn) + z * h
            else:
                gate_i, gate_f, g, o = np.split(a + b, 4)
                c = expit(gate_f) * c + expit(gate_i) * np.tanh(g)
                h = expit(o) * np.tanh(c)
            outputs.append(h)
        x = np.array(outputs)
        tops.append(x)
    result = trace(model, INPUT)
    np.testing.assert_allclose(result.hidden[0], np.concatenate(tops, 1), rtol=1e-12)
    expected = log_softmax(x @ w["head.weight"].T + w["head.bias"], axis=1)
    np.testing.assert_allclose(result.log_probs[0], expected, rtol=1e-12)


def test_dropout_acts_between_layers_and_before_the_head():
    model = RNNLM(vocab_size=V, hidden=200, layers=2, dropout=0.4)
    seen = []
    model.dropout.register_forward_hook(lambda _m, _i, out: seen.append((out == 0).double().mean().item()))
    torch.manual_seed(0)
    model(INPUT)
    assert len(seen) >= 2
    assert all(0.3 < share < 0.5 for share in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "elman"}, "cell must be one of gru, lstm, got 'elman'"),
        ({"hidden": 0}, "hidden must be an integer >= 1, got 0"),
        ({"embedding": 0}, "embedding must be an integer >= 1, got 0"),
        ({"layers": 0}, "layers must be an integer >= 1, got 0"),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        RNNLM(**{"vocab_size": V, **options})


@pytest.mark.parametrize("vocab_size", [1, 2.5, True, None])
def test_an_invalid_vocab_size_is_refused(vocab_size):
    with pytest.raises(ConfigError, match=f"^vocab_size must be an integer >= 2, got {vocab_size!r}$"):
        RNNLM(vocab_size=vocab_size)
