"""New BERTs of any size: their configuration, their size, and refusals."""

import sys

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.models import Bert

TRANSFORMERS = pytest.importorskip("transformers")
SIZES = {"vocab_size": 30, "hidden_size": 16, "layers": 2, "heads": 2, "max_length": 12}


def test_the_configuration_holds_the_arguments():
    model = Bert(**SIZES, pad_id=3, dropout=0.2, intermediate_size=20)
    config = model.model.config
    assert type(model.model) is TRANSFORMERS.BertForMaskedLM
    assert (config.vocab_size, config.pad_token_id, config.hidden_size, config.num_hidden_layers) == (30, 3, 16, 2)
    assert (config.num_attention_heads, config.intermediate_size, config.max_position_embeddings) == (2, 20, 12)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.2, 0.2)
    assert (model.pad_id, model.vocab_size, model.hidden_size, model.max_length) == (3, 30, 16, 12)


def test_the_number_of_parameters_is_that_of_the_formula():
    d, f = 16, 4 * 16  # the feed-forward network is four times as wide by default
    embeddings = (30 + 12 + 2) * d + 2 * d
    layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
    head = (d * d + d) + 2 * d + 30  # its weight is tied to the embeddings
    model = Bert(**SIZES)
    assert sum(parameter.numel() for parameter in model.parameters()) == embeddings + 2 * layer + head


@pytest.mark.parametrize(("task", "cls"), [("classification", "ForSequenceClassification"), ("embedding", "Model")])
def test_the_task_determines_the_class(task, cls):
    model = Bert(**SIZES, task=task, num_classes=5)
    assert type(model.model).__name__ == f"Bert{cls}"
    assert model(torch.ones(2, 4, dtype=torch.long)).shape == ((2, 5) if task == "classification" else (2, 16))


def test_a_random_start_is_that_of_transformers():
    torch.manual_seed(7)
    model = Bert(**SIZES, start="random")
    torch.manual_seed(7)
    expected = TRANSFORMERS.BertForMaskedLM(model.model.config)
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(model.model.get_parameter(name), parameter, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 15}, "hidden_size=15 must be a multiple of heads=2"),
        ({"vocab_size": 1}, "vocab_size must be an integer >= 2, got 1"),
        ({"pad_id": 30}, r"pad_id must be an integer in 0\.\.29, got 30"),
        ({"layers": 0}, "layers must be an integer >= 1, got 0"),
        ({"intermediate_size": 0}, "intermediate_size must be an integer >= 1, got 0"),
        ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1\.0"),
        ({"task": "classification"}, "num_classes is needed for task='classification'; allowed: an integer >= 1"),
        ({"start": "zero"}, "start must be one of local_attention, random, got 'zero'"),
    ],
)
def test_invalid_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        Bert(**{**SIZES, **options})


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"^Bert needs transformers: pip install 'kdzoo\[text\]'$"):
        Bert(**SIZES)


def test_every_parameter_of_an_encoder_has_an_effect():
    torch.manual_seed(0)
    model = Bert(vocab_size=40, task="embedding", hidden_size=16, layers=2, heads=2, max_length=8).eval()
    model(torch.tensor([[5, 6, 7]]))[:, 0].sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
