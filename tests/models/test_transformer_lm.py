"""The decoder-only transformer: what every language model promises, and its formula in NumPy."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.special import erf, log_softmax, softmax

from kdzoo.errors import ConfigError
from kdzoo.models import TransformerLM
from kdzoo.text.language_model import sample, trace
from tests.models.language_model_cases import INPUT, LanguageModelTests, V


class TestTransformerLM(LanguageModelTests):
    build = {"transformer": lambda _: TransformerLM(vocab_size=V, width=8, heads=2, dropout=0.3, max_length=20)}


def test_forward_is_the_formula():
    model = TransformerLM(vocab_size=V, width=6, layers=2, heads=2, max_length=8).double()
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def norm(x, name):
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    T = INPUT.shape[1]
    x = w["embedding.weight"][INPUT[0]] + w["position"][:T]
    for i in range(2):
        query, key, value = np.split(linear(norm(x, f"blocks.{i}.before_attention"), f"blocks.{i}.project"), 3, 1)
        heads = []
        for head in (slice(0, 3), slice(3, 6)):
            scores = query[:, head] @ key[:, head].T / math.sqrt(3)
            scores[np.triu_indices(T, 1)] = -np.inf
            heads.append(softmax(scores, axis=1) @ value[:, head])
        x = x + linear(np.concatenate(heads, 1), f"blocks.{i}.merge")
        inner = linear(norm(x, f"blocks.{i}.before_network"), f"blocks.{i}.network.0")
        x = x + linear(inner * (1 + erf(inner / math.sqrt(2))) / 2, f"blocks.{i}.network.2")
    hidden = norm(x, "norm")
    result = trace(model, INPUT)
    np.testing.assert_allclose(result.hidden[0], hidden, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.log_probs[0], log_softmax(linear(hidden, "head"), axis=1), rtol=1e-9)


def test_sequences_longer_than_max_length_are_refused():
    model = TransformerLM(vocab_size=V, max_length=4)
    assert trace(model, INPUT[:, :5]).hidden.shape[1] == 5
    message = "^max_length=4 tokens is too short for a sequence of 5$"
    with pytest.raises(ConfigError, match=message):
        model(INPUT[:, :6])
    with torch.no_grad():
        model.head.bias[-1] = -100.0  # never ends
    assert sample(model, 2, max_length=4, seed=0).lengths.tolist() == [4, 4]
    with pytest.raises(ConfigError, match=message):
        sample(model, 2, max_length=6, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 9, "heads": 2}, "width must be a multiple of heads=2, got 9"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"layers": 0}, "layers must be an integer >= 1, got 0"),
        ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
        ({"dropout": -0.5}, "dropout must be in [0, 1), got -0.5"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        TransformerLM(**{"vocab_size": V, **options})


@pytest.mark.parametrize("vocab_size", [1, 2.5, True, None])
def test_an_invalid_vocab_size_is_refused(vocab_size):
    with pytest.raises(ConfigError, match=f"^vocab_size must be an integer >= 2, got {vocab_size!r}$"):
        TransformerLM(vocab_size=vocab_size)
