"""Exports of text transformers: both formats are loaded again, wrong ones are removed, and the model card."""

import json

import pytest
import torch

from kdzoo.kinds import transformers_export
from kdzoo.models import HFModel, Transformer
from tests.kinds.text_cases import KIND_OF_TASK, OneBatch, bert, masked_texts, texts_of

pytest.importorskip("transformers")


@pytest.mark.parametrize("task", KIND_OF_TASK)
def test_exports_give_the_outputs_of_the_model(task, tmp_path):
    model, batch = bert(task).eval(), texts_of(task)
    folder, program_path = transformers_export.export(model, tmp_path, OneBatch(batch))
    reloaded = HFModel(str(folder), task=task).eval()
    assert reloaded.new_parameters == ()
    torch.testing.assert_close(reloaded(batch["input"]), model(batch["input"]), rtol=1e-5, atol=1e-5)
    program = torch.export.load(program_path).module()
    of_another_shape = batch["input"][:3, :5]
    torch.testing.assert_close(program(of_another_shape), model(of_another_shape), rtol=1e-5, atol=1e-5)
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 2


def test_a_classifier_carries_the_names_of_its_classes(tmp_path):
    data = OneBatch(texts_of("classification"))
    data.classes = ("no", "perhaps", "yes")
    folder, _ = transformers_export.export(bert("classification").eval(), tmp_path, data)
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "perhaps", "2": "yes"}
    assert config["label2id"] == {"no": 0, "perhaps": 1, "yes": 2}


def test_an_export_that_gives_other_outputs_is_removed(tmp_path, monkeypatch):
    forward = Transformer.forward
    calls = []

    def drifting(self, input):
        calls.append(1)
        return forward(self, input) + (0.1 if len(calls) == 2 else 0.0)

    monkeypatch.setattr(Transformer, "forward", drifting)
    with pytest.warns(UserWarning, match=r"^Bert is not exported as hf: it does not give the outputs of the model"):
        files = transformers_export.export(bert("mlm").eval(), tmp_path, OneBatch(masked_texts()))
    assert files == [tmp_path / "program.pt2"]
    assert not (tmp_path / "hf").exists()


def test_other_models_are_not_exported(tmp_path):
    assert transformers_export.export(torch.nn.Linear(2, 2), tmp_path, OneBatch(masked_texts())) == []
    assert transformers_export.layer_sizes(torch.nn.Linear(2, 2)) == {}
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_the_layers_are_counted_without_embeddings():
    layers = bert("mlm").model.bert.encoder.layer
    n_parameters = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    assert transformers_export.layer_sizes(bert("mlm")) == {"layer_parameters": n_parameters}


def test_the_model_card_holds_the_report(tmp_path):
    (tmp_path / "hf").mkdir()
    result = {
        "distiller": "distilbert",
        "data": "text",
        "command": "kdzoo distiller=distilbert",
        "seed": [0, 1],
        "student": {"metrics": {"masked_loss": {"mean": 2.5, "values": [2.4, 2.6]}}, "parameters": 1234},
        "teacher": {"metrics": {"masked_loss": 2.0}},
        "control": None,
        "fidelity": {"student": {"agreement": 0.75}},
        "versions": {"torch": "2"},
    }
    transformers_export.write_model_card(tmp_path, result, "mlm")
    card = (tmp_path / "hf" / "README.md").read_text()
    for line in (
        "| student | masked_loss | 2.5 (mean over seeds) |",
        "| teacher | masked_loss | 2 |",
        "| agreement | 0.75 |",
        "Parameters: 1234. Versions: torch 2.",
        "pipeline_tag: fill-mask",
    ):
        assert line in card
    assert transformers_export.POOLED not in card
    transformers_export.write_model_card(tmp_path, result, "embedding")
    assert transformers_export.POOLED in (tmp_path / "hf" / "README.md").read_text()


def test_no_model_card_is_written_without_an_export(tmp_path):
    transformers_export.write_model_card(tmp_path / "nowhere", {}, "mlm")
    assert not (tmp_path / "nowhere").exists()
