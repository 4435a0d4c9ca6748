"""Masked language models and encoders as kinds: what is measured of them and what they leave."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from kdzoo import kinds
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError
from kdzoo.kinds import transformers_export
from kdzoo.models import Bert, HFModel, Transformer

pytest.importorskip("transformers")

V = 40
OTHER_TASK = "teacher Bert is of task='{}', the distiller needs '{}'; set teacher.task={}, or another"
SIZES = {"vocab_size": V, "num_classes": V, "pad_id": 0}


def bert(task, seed=0):
    torch.manual_seed(seed)
    return Bert(vocab_size=V, task=task, num_classes=3, hidden_size=16, layers=2, heads=2, max_length=16)


def masked(rows=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, V, (rows, 8), generator=generator)
    chosen = torch.rand(rows, 8, generator=generator) < 0.4
    target = ids.masked_fill(~chosen, IGNORE)
    return {"input": ids.masked_fill(chosen, 4), "target": target, "index": torch.arange(rows), "mask": ids > 0}


def labelled(rows=30, seed=0):
    ids = torch.randint(5, V, (rows, 8), generator=torch.Generator().manual_seed(seed))
    return {"input": ids, "target": (ids[:, 0] > V // 2).long(), "index": torch.arange(rows)}


class Data:
    tokenizer = None

    def __init__(self, batch):
        self.batch = batch

    def test_dataloader(self):
        return [self.batch]

    train_eval_dataloader = test_dataloader


def test_masked_tokens_are_measured_as_torch_does():
    kind, model, batch = kinds.get("masked_lm"), bert("mlm").eval(), masked()
    metrics = kind.metrics(kind.predict(model, [batch, masked(seed=1)]))
    both = {key: torch.cat([batch[key], masked(seed=1)[key]]) for key in ("input", "target")}
    logits = model(both["input"])
    loss = cross_entropy(logits.flatten(0, 1), both["target"].flatten(), ignore_index=IGNORE)
    assert metrics["masked_loss"] == pytest.approx(loss.item(), rel=1e-5)
    there = both["target"] != IGNORE
    accuracy = (logits.argmax(-1) == both["target"])[there].double().mean()
    assert metrics["masked_accuracy"] == pytest.approx(float(accuracy))


def test_a_model_agrees_with_itself_and_less_with_another():
    kind, batches = kinds.get("masked_lm"), [masked()]
    one, other = (kind.predict(bert("mlm", seed), batches) for seed in (0, 1))
    assert kind.fidelity(one, one) == {"agreement": 1.0, "kl": pytest.approx(0.0, abs=1e-9)}
    found = kind.fidelity(one, other)
    assert found["agreement"] < 1
    assert found["kl"] > 0


def test_an_encoder_is_probed_and_compared():
    kind = kinds.get("encoder").bind(Data(labelled()), cache=Path())
    one, other = (kind.predict(bert("embedding", seed), [labelled(seed=2)]) for seed in (0, 1))
    assert 0 <= kind.metrics(one)["probe_accuracy"] <= 1
    same = kind.fidelity(one, one)
    assert same["cosine"] == pytest.approx(1.0)
    assert same["similarity_correlation"] == pytest.approx(1.0)
    assert kind.fidelity(one, other)["cosine"] < 0.999


def test_figures_are_drawn(tmp_path):
    for name, task, batch in (("masked_lm", "mlm", masked()), ("encoder", "embedding", labelled())):
        kind = kinds.get(name).bind(Data(batch), cache=Path())
        predictions = {
            role: kind.predict(bert(task, seed), [batch]) for seed, role in enumerate(("teacher", "student"))
        }
        files = kind.plot_predictions(predictions, tmp_path)
        assert files
        assert all(path.stat().st_size > 1000 for path in files)


@pytest.mark.parametrize(
    ("name", "model", "batch", "message"),
    [
        ("masked_lm", lambda: bert("embedding"), masked(), OTHER_TASK.format("embedding", "mlm", "mlm")),
        ("classifier", lambda: bert("mlm"), labelled(), OTHER_TASK.format("mlm", *["classification"] * 2)),
        ("encoder", lambda: bert("mlm"), labelled(), OTHER_TASK.format("mlm", "embedding", "embedding")),
        ("encoder", lambda: torch.nn.Embedding(V, 4), labelled(), "teacher Embedding is no encoder: it must return"),
        ("masked_lm", lambda: bert("mlm"), labelled(), "teacher Bert needs data of masked texts, such as data=text"),
        ("encoder", lambda: bert("embedding"), masked(), "teacher Bert needs data with one label per text"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(name, model, batch, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        kinds.get(name).check("teacher", model(), batch, SIZES)


def test_a_teacher_without_a_head_is_refused(tmp_path):
    bert("embedding").model.save_pretrained(tmp_path)
    teacher = HFModel(str(tmp_path), task="mlm")
    with pytest.raises(ConfigError, match=r"^teacher HFModel has no masked-language head: its folder lacks cls\."):
        kinds.get("masked_lm").check("teacher", teacher, masked(), SIZES)


@pytest.mark.parametrize(
    ("task", "batch"), [("mlm", masked()), ("classification", labelled()), ("embedding", labelled())]
)
def test_exports_are_read_again_by_the_libraries_of_their_field(task, batch, tmp_path):
    model = bert(task).eval()
    files = transformers_export.export(model, tmp_path, Data(batch))
    again = HFModel(str(tmp_path / "hf"), task=task).eval()
    assert again.new_parameters == ()
    torch.testing.assert_close(again(batch["input"]), model(batch["input"]), rtol=1e-5, atol=1e-5)
    program = torch.export.load(files[1]).module()
    other = batch["input"][:3, :5]
    torch.testing.assert_close(program(other), model(other), rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["num_hidden_layers"] == 2


def test_an_export_that_gives_other_outputs_is_not_left(tmp_path, monkeypatch):
    forward = Transformer.forward
    calls = []

    def drifting(self, input):
        calls.append(1)
        return forward(self, input) + (0.1 if len(calls) == 2 else 0.0)

    monkeypatch.setattr(Transformer, "forward", drifting)
    with pytest.warns(UserWarning, match=r"^Bert is not exported as hf: it does not give the outputs of the model"):
        files = transformers_export.export(bert("mlm").eval(), tmp_path, Data(masked()))
    assert files == [tmp_path / "program.pt2"]
    assert not (tmp_path / "hf").exists()


def test_a_transformer_belongs_to_the_kind_of_its_task():
    for task, kind in (("mlm", "masked_lm"), ("classification", "classifier"), ("embedding", "encoder")):
        assert [name for name, one in kinds.KINDS.items() if one.is_exclusive_match(bert(task))] == [kind]


def test_a_part_without_masked_tokens_is_refused():
    nothing = {**masked(), "target": torch.full((12, 8), IGNORE)}
    with pytest.raises(ConfigError, match=r"^data has no masked token to measure on; set data\.mask_rate above 0$"):
        kinds.get("masked_lm").check("student", bert("mlm"), nothing, SIZES)


@pytest.mark.parametrize(
    ("task", "kind", "batch"),
    [
        ("mlm", "masked_lm", masked()),
        ("classification", "classifier", labelled()),
        ("embedding", "encoder", labelled()),
    ],
)
def test_a_model_of_another_tokenizer_is_refused(task, kind, batch):
    model = Transformer(bert(task).model, task, tokenizer="a")
    sizes = {**SIZES, "num_classes": 3 if task == "classification" else V, "tokenizer": "a"}
    kinds.get(kind).check("teacher", model, batch, sizes)
    with pytest.raises(
        ConfigError, match=r"^teacher Transformer was made for the tokenizer a, the data have b; set data"
    ):
        kinds.get(kind).check("teacher", model, batch, {**sizes, "tokenizer": "b"})


def test_a_table_may_have_rows_to_spare():
    kinds.get("masked_lm").check("teacher", bert("mlm"), masked(), {**SIZES, "vocab_size": V - 3})


def test_other_models_are_not_exported(tmp_path):
    assert transformers_export.export(torch.nn.Linear(2, 2), tmp_path, Data(masked())) == []
    assert transformers_export.sizes(torch.nn.Linear(2, 2)) == {}
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_the_layers_are_counted_without_embeddings():
    assert transformers_export.sizes(bert("mlm")) == {
        "layer_parameters": sum(
            parameter.numel() for layer in bert("mlm").model.bert.encoder.layer for parameter in layer.parameters()
        )
    }


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
    transformers_export.model_card(tmp_path, result, "mlm")
    card = (tmp_path / "hf" / "README.md").read_text()
    for line in (
        "| student | masked_loss | 2.5 (mean over seeds) |",
        "| teacher | masked_loss | 2 |",
        "| agreement | 0.75 |",
        "pipeline_tag: fill-mask",
    ):
        assert line in card
    transformers_export.model_card(tmp_path / "nowhere", result, "mlm")
    assert not (tmp_path / "nowhere").exists()


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"^Bert needs transformers: pip install 'kdzoo\[text\]'$"):
        bert("mlm")
