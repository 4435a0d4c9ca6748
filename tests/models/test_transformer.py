"""The base of text transformers, on small BERTs: outputs by task, hidden states, attentions, padding and lengths."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.models import Bert
from kdzoo.models.transformer import max_text_length, mean_pooled

pytest.importorskip("transformers")

V = 50
IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])
SHAPES = {"mlm": (2, 5, V), "classification": (2, 3), "embedding": (2, 16)}


def bert(task="mlm", **options):
    torch.manual_seed(0)
    sizes = {"num_classes": 3, "hidden_size": 16, "layers": 6, "heads": 2, "max_length": 20}
    return Bert(vocab_size=V, task=task, **{**sizes, **options})


@pytest.mark.parametrize("task", SHAPES)
def test_the_output_depends_on_the_task_and_hidden_states_are_returned(task):
    model = bert(task).eval()
    result = model.read(IDS)
    assert model(IDS).shape == SHAPES[task]
    torch.testing.assert_close(result.output, model(IDS))
    assert len(result.hidden) == 7
    assert result.attentions == ()
    model.enable_attention_outputs()
    attentions = model.read(IDS, attentions=True).attentions
    assert [tuple(weights.shape) for weights in attentions] == [(2, 2, 5, 5)] * 6
    torch.testing.assert_close(attentions[0].sum(-1), torch.ones(2, 2, 5))
    for weights in attentions:  # padding is the only thing that gets no attention
        assert torch.equal(weights.sum((1, 2)) > 0, IDS != 0)


def test_an_embedding_has_norm_one_and_does_not_depend_on_padding():
    model = bert("embedding").eval()
    torch.testing.assert_close(model(IDS)[1:], model(IDS[1:, :3]))
    torch.testing.assert_close(model(IDS).norm(dim=1), torch.ones(2))


def test_enabled_attentions_are_distributions_in_training_too():
    model = bert(dropout=0.5)
    model.enable_attention_outputs()
    torch.testing.assert_close(model.read(IDS, attentions=True).attentions[0].sum(-1), torch.ones(2, 2, 5))


def test_long_texts_and_anything_but_token_ids_are_refused():
    model = bert()
    with pytest.raises(ConfigError, match=r"^texts of 21 tokens are longer than the 20 positions of Bert"):
        model(torch.ones(1, 21, dtype=torch.long))
    with pytest.raises(ConfigError, match=r"^input must be 2-D int token ids"):
        model(torch.ones(1, 4))


def test_the_mean_is_over_tokens_alone():
    hidden = torch.randn(3, 4, 5, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    for row, length in enumerate([4, 2]):
        mean = hidden[row, :length].numpy().mean(0)
        np.testing.assert_allclose(mean_pooled(hidden, mask)[row], mean / np.linalg.norm(mean), rtol=1e-12)
    assert mean_pooled(hidden, mask)[2].tolist() == [0.0] * 5  # a text without tokens
    torch.testing.assert_close(mean_pooled(hidden, None)[0], mean_pooled(hidden, mask)[0])


@pytest.mark.parametrize(
    ("settings", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xlnet"}, None),
        ({"model_type": "other", "max_position_embeddings": -1}, None),
    ],
)
def test_the_longest_text_follows_from_the_positions(settings, longest):
    assert max_text_length(SimpleNamespace(**settings)) == longest


def test_an_unknown_task_is_refused():
    with pytest.raises(ConfigError, match=r"^task must be one of mlm, classification, embedding, got 'translation'$"):
        bert("translation")
