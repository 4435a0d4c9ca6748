"""Finding the list of layers in transformers and in any other module."""

import pytest
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init import find_layers
from tests.layer_init.cases import CONFIGS, Tagger, made, needs_transformers

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


def test_lists_inside_of_layers_and_of_different_modules_are_not_candidates():
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
def test_an_ambiguous_or_missing_list_is_refused(model, path, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        find_layers(model, path)
