"""Models that run with some of their layers for a while, and configurations that are shortened with them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init import (
    architecture_of,
    build_model,
    copy_layers,
    find_layers,
    truncate_architecture,
    truncated_layers,
)
from kdzoo.layer_init.hugging_face import attribute
from kdzoo.layer_init.truncation import shorten_config
from tests.layer_init.cases import CONFIGS, Tagger, made, needs_transformers, outputs_of, texts


def layer_indices(model):
    """Return the ``layer_idx`` of every module of a decoder that has one."""
    return [index for module in model.modules() if (index := attribute(module, "layer_idx")) is not None]


@needs_transformers
@pytest.mark.parametrize("family", CONFIGS)
def test_a_shortened_transformer_equals_its_copy_and_is_restored(family):
    model, ids, indices = made(family), texts(), (0, 3)
    config, names, layers = model.config.to_dict(), list(model.state_dict()), list(find_layers(model)[1])
    full_logits = outputs_of(model, ids).logits
    student = build_model(truncate_architecture(architecture_of(model), indices)).eval()
    copy_layers(student, model, indices)
    with truncated_layers(model, indices):
        assert model.config.num_hidden_layers == 2
        assert list(find_layers(model)[1]) == [layers[0], layers[3]]
        logits = outputs_of(model, ids).logits
    torch.testing.assert_close(logits, outputs_of(student, ids).logits, rtol=0, atol=0)
    assert not torch.equal(logits, full_logits)
    assert model.config.to_dict() == config
    assert list(model.state_dict()) == names
    torch.testing.assert_close(outputs_of(model, ids).logits, full_logits, rtol=0, atol=0)
    assert layer_indices(model) in ([], [0, 1, 2, 3])


def test_names_of_a_sequential_are_restored_after_an_error():
    model = nn.Sequential()
    for name in ("low", "middle", "high"):
        model.add_module(name, nn.Linear(1, 1))

    def fail() -> None:
        with truncated_layers(model, [0, 2], path=""):
            assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [name for name, _ in model.named_children()] == ["low", "middle", "high"]


@needs_transformers
def test_the_layers_of_a_decoder_are_renumbered_meanwhile():
    model = made("Qwen2")
    with truncated_layers(model, [1, 3]):
        assert layer_indices(model) == [0, 1]
        assert model.config.layer_types == ["full_attention", "sliding_attention"]
    assert layer_indices(model) == [0, 1, 2, 3]
    assert model.config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 2


def test_only_lists_with_one_value_per_layer_are_shortened():
    config = SimpleNamespace(
        num_hidden_layers=4, layer_types=["a", "b", "c", "d"], no_rope_layers=[1, 0], widths=[1] * 4
    )
    shorten_config(config, [0, 3])
    assert vars(config) == {
        "num_hidden_layers": 2,
        "layer_types": ["a", "d"],
        "no_rope_layers": [1, 0],  # another length: not one value per layer
        "widths": [1] * 4,  # not a per-layer setting of transformers
    }


def test_other_layers_than_the_model_has_are_refused():
    context = truncated_layers(Tagger(3), [0, 3], path="encoder.layers")
    with pytest.raises(ConfigError, match=r"^layers\[1\] must be an integer in 0\.\.2, got 3$"):
        context.__enter__()
