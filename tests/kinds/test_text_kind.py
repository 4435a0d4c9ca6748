"""What the kinds of text transformers have in common: tasks, tokenizers, and the parts that are passed on."""

import pytest
import torch

from kdzoo import kinds
from kdzoo.errors import ConfigError
from kdzoo.models import Transformer
from tests.kinds.text_cases import CLASSES, KIND_OF_TASK, SIZES, VOCABULARY, OneBatch, bert, texts_of

pytest.importorskip("transformers")


@pytest.mark.parametrize(("task", "name"), KIND_OF_TASK.items())
def test_a_transformer_belongs_to_the_kind_of_its_task(task, name):
    assert [other for other, kind in kinds.KINDS.items() if kind.is_exclusive_match(bert(task))] == [name]


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        (
            "masked_lm",
            "embedding",
            "teacher Bert has task='embedding', but the kind masked_lm needs task='mlm'; set teacher.task=mlm, or",
        ),
        ("classifier", "mlm", "teacher Bert has task='mlm', but the kind classifier needs task='classification'"),
        (
            "encoder",
            "mlm",
            "teacher Bert has task='mlm', but the kind encoder needs task='embedding'; set teacher.task=emb",
        ),
    ],
)
def test_a_model_of_another_task_is_refused(name, task, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        kinds.get(name).check("teacher", bert(task), texts_of(task), SIZES)


@pytest.mark.parametrize(("task", "name"), KIND_OF_TASK.items())
def test_a_model_of_another_tokenizer_is_refused(task, name):
    model = Transformer(bert(task).model, task, tokenizer="a")
    num_classes = CLASSES if task == "classification" else VOCABULARY
    sizes = {**SIZES, "num_classes": num_classes, "tokenizer": "a"}
    kinds.get(name).check("teacher", model, texts_of(task), sizes)
    message = r"^teacher Transformer was trained with the tokenizer a, but the data have b; set data\.tokenizer to"
    with pytest.raises(ConfigError, match=message):
        kinds.get(name).check("teacher", model, texts_of(task), {**sizes, "tokenizer": "b"})


def test_an_unknown_tokenizer_is_accepted():
    kinds.get("masked_lm").check_text("teacher", bert("mlm"), {**SIZES, "tokenizer": "b"})
    kinds.get("classifier").check_text("teacher", torch.nn.Linear(2, 2), {**SIZES, "tokenizer": "b"})


def test_a_transformer_is_exported_with_its_size_and_a_model_card(tmp_path):
    kind, model = kinds.get("masked_lm"), bert("mlm")
    assert [path.name for path in kind.export(model, tmp_path, OneBatch(texts_of("mlm")))] == ["hf", "program.pt2"]
    assert kind.properties(model)["layer_parameters"] < sum(parameter.numel() for parameter in model.parameters())
    report = {"distiller": "distilbert", "data": "text", "command": "kdzoo", "seed": 0, "student": {}, "teacher": {}}
    kind.describe(tmp_path, {**report, "fidelity": {}, "versions": {}})
    assert "pipeline_tag: fill-mask" in (tmp_path / "hf" / "README.md").read_text()


def test_a_model_with_too_few_positions_for_the_longest_text_is_refused():
    """Even if the texts of the batch are short, as they are when a trial run cuts them."""
    model = bert("mlm")
    kinds.get("masked_lm").check("teacher", model, texts_of("mlm"), {**SIZES, "text_length": model.max_length})
    with pytest.raises(ConfigError, match=f"texts of {model.max_length + 1} tokens are longer than the"):
        kinds.get("masked_lm").check("teacher", model, texts_of("mlm"), {**SIZES, "text_length": model.max_length + 1})
