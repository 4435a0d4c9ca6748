"""The protocol of text transformers, on a small BERT and on models that do not satisfy it."""

import pytest
import torch
from torch import nn

from kdzoo.models import RNNLM, Bert
from kdzoo.text.transformer import TextTransformer, TransformerOutput


@pytest.fixture(scope="module")
def bert():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    return Bert(vocab_size=20, hidden_size=16, heads=2, layers=3, max_length=8).eval()


def test_a_bert_is_a_text_transformer_and_other_models_are_not(bert):
    assert isinstance(bert, TextTransformer)
    assert not isinstance(RNNLM(vocab_size=20), TextTransformer)
    assert not isinstance(nn.Linear(2, 2), TextTransformer)


def test_the_output_has_the_documented_shapes(bert):
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    bert.enable_attention_outputs()
    result = bert.read(ids, attentions=True)
    assert isinstance(result, TransformerOutput)
    assert result.output.shape == (2, 4, 20)
    assert [tuple(hidden.shape) for hidden in result.hidden] == [(2, 4, bert.hidden_size)] * 4
    assert [tuple(weights.shape) for weights in result.attentions] == [(2, 2, 4, 4)] * 3
    assert all((weights[1, :, :, 3] == 0).all() and (weights[0] > 0).all() for weights in result.attentions)
    assert bert.read(ids).attentions == ()
    torch.testing.assert_close(result.output, bert(ids))
