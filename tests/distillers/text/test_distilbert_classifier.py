"""The triple loss between classifiers of texts, and whole runs."""

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

import kdzoo
from kdzoo.core.batch import IGNORE
from kdzoo.distillers import DistilBERTClassifier
from kdzoo.errors import ConfigError
from kdzoo.runs.evaluation import evaluate_folder
from tests.distillers.text.cases import batch_of, pair

pytest.importorskip("transformers")


def test_the_terms_on_logits_are_those_of_torch():
    student, teacher = pair("classification")
    batch, T = batch_of("classification"), 3.0
    terms = DistilBERTClassifier(student, teacher, temperature=T).losses(batch)
    # In float64: the divergence of these two models is as small as the rounding of a float32 softmax.
    student_logits, teacher_logits = student(batch["input"]).double(), teacher.eval()(batch["input"]).double()
    log_q, p = (student_logits / T).log_softmax(-1), (teacher_logits / T).softmax(-1)
    soft = T**2 * kl_div(log_q, p, reduction="none").sum(-1)
    torch.testing.assert_close(terms["soft"].double(), soft, atol=1e-9, rtol=1e-5)
    hard = cross_entropy(student_logits, batch["target"], reduction="none")
    torch.testing.assert_close(terms["hard"].double(), hard, atol=1e-9, rtol=1e-5)


def test_unlabelled_texts_have_soft_targets_only():
    batch = batch_of("classification")
    batch["target"][1:] = IGNORE
    terms = DistilBERTClassifier(*pair("classification")).losses(batch)
    assert {name: len(values) for name, values in terms.items()} == {"soft": 6, "hard": 1, "cosine": 6}


def test_soft_targets_without_weight_are_not_computed():
    distiller = DistilBERTClassifier(*pair("classification"), loss_weights={"soft": 0.0})
    assert distiller.losses(batch_of("classification")).keys() == {"hard", "cosine"}


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"^temperature must be"):
        DistilBERTClassifier(*pair("classification"), temperature=0.0)


# ---------------------------------------------------------------- whole runs


def test_a_run_trains_a_control_and_exports_the_student(run, tables, tmp_path):
    report = run("distiller=distilbert_classifier", *tables, "student.family=distilbert")
    assert report["control"]["parameters"] == report["student"]["parameters"]
    assert (tmp_path / "run" / "student" / "hf" / "config.json").is_file()
    assert kdzoo.load_student(tmp_path / "run" / "student").task == "classification"


def test_an_exported_student_is_evaluated_with_the_accuracy_of_its_run(run, tables, tmp_path):
    report = run("distiller=distilbert_classifier", *tables, "control=false")
    settings = [*tables, "data.vocab_size=120", "seed=0", f"cache_dir={tmp_path / 'cache'}"]
    evaluation = evaluate_folder(tmp_path / "run", kdzoo.compose("distiller=distilbert_classifier", *settings))
    assert evaluation["metrics"]["accuracy"] == report["student"]["metrics"]["accuracy"]


def test_a_search_without_validation_texts_is_refused_before_the_teacher_is_trained(run, tables, monkeypatch):
    monkeypatch.setattr("kdzoo.runs.teachers.train", lambda *_: pytest.fail("the teacher was trained"))
    with pytest.raises(
        ConfigError, match=r"^student\.layers='auto' (chooses|selects).* validation texts, and data has none"
    ):
        run("distiller=distilbert_classifier", *tables, "student.layers=auto", "data.val_size=0")
