"""Finding the list of layers in transformers and in any module, and cutting it for a while."""

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init import find_layers, truncated_layers
from tests.layer_init.cases import CONFIGS, Tagger, answers, made, needs_transformers, texts

PATHS = {
    "Bert": "bert.encoder.layer",
    "Roberta": "roberta.encoder.layer",
    "Electra": "electra.encoder.layer",
    "DebertaV2": "deberta.encoder.layer",
    "DistilBert": "distilbert.transformer.layer",
    "GPT2": "transformer.h",
    "Qwen2": "model.layers",
}


@needs_transformers
@pytest.mark.parametrize("family", CONFIGS)
def test_the_layers_of_a_transformer_are_found(family):
    model = made(family)
    path, layers = find_layers(model)
    assert path == PATHS[family]
    assert layers is model.get_submodule(path)
    assert len(layers) == 4


def test_a_named_list_of_any_module_is_found():
    model = Tagger(3)
    assert find_layers(model, "encoder.layers") == ("encoder.layers", model.encoder.layers)


class Configured(nn.Module):
    """A module that looks like a transformer of two layers."""

    def __init__(self, **lists: nn.Module) -> None:
        super().__init__()
        self.config = type("Config", (), {"num_hidden_layers": 2})()
        for name, blocks in lists.items():
            self.add_module(name, blocks)


def blocks(n: int = 2) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(1, 1) for _ in range(n))


def test_lists_inside_of_layers_and_of_different_modules_are_no_layers():
    experts = nn.ModuleList(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)) for _ in range(2))
    model = Configured(layers=experts, head=nn.Sequential(nn.Linear(1, 1), nn.Tanh()), other=blocks(3))
    assert find_layers(model)[0] == "layers"


@pytest.mark.parametrize(
    ("model", "path", "line"),
    [
        (
            Tagger(3),
            None,
            "path of the layers of Tagger is needed, since its configuration has no number of layers; "
            r"lists of modules, with their length: 'encoder\.layers' \(3\), 'head' \(3\)",
        ),
        (Configured(one=blocks(), two=blocks()), None, r".*, since 2 lists have 2; .* 'one' \(2\), 'two' \(2\)"),
        (Configured(one=blocks(3)), None, r".*, since 0 lists have 2; .* 'one' \(3\)"),
        (nn.Linear(1, 1), "layers", "path must name a list of layers of Linear, got 'layers'; .*: none"),
        (Tagger(3), "embedding", "path must name a list of layers of Tagger, got 'embedding'; .*"),
        (Configured(one=nn.ModuleList()), "one", "path must name a list of layers of Configured, got 'one'; .*"),
    ],
    ids=["no-configuration", "two-fit", "none-fits", "no-such-path", "not-a-list", "empty-list"],
)
def test_no_list_or_several_are_refused(model, path, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        find_layers(model, path)


@needs_transformers
@pytest.mark.parametrize("family", CONFIGS)
def test_a_shortened_transformer_answers_as_its_copy_and_is_restored(family):
    from kdzoo.layer_init import architecture_of, build_model, copy_layers, truncate_architecture

    model, ids, chosen = made(family), texts(), (0, 3)
    config, names, layers = model.config.to_dict(), list(model.state_dict()), list(find_layers(model)[1])
    whole = answers(model, ids).logits
    student = build_model(truncate_architecture(architecture_of(model), chosen)).eval()
    copy_layers(student, model, chosen)
    with truncated_layers(model, chosen):
        assert model.config.num_hidden_layers == 2
        assert list(find_layers(model)[1]) == [layers[0], layers[3]]
        cut = answers(model, ids).logits
    torch.testing.assert_close(cut, answers(student, ids).logits, rtol=0, atol=0)
    assert not torch.equal(cut, whole)
    assert model.config.to_dict() == config
    assert list(model.state_dict()) == names
    torch.testing.assert_close(answers(model, ids).logits, whole, rtol=0, atol=0)
    assert [block.layer_idx for block in model.modules() if hasattr(block, "layer_idx")] in ([], [0, 1, 2, 3])


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
