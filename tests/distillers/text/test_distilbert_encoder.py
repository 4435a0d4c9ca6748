"""The cosine terms between encoders of texts, the start as a baseline, and whole runs."""

import pytest
import pytorch_lightning as pl
import torch

import kdzoo
from kdzoo.distillers import DistilBERTEncoder
from kdzoo.errors import ConfigError
from kdzoo.text.tokenizers import train_tokenizer
from tests.distillers.text.cases import batch_of, pair

transformers = pytest.importorskip("transformers")

TINY_BERT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


def test_the_term_on_vectors_is_that_of_mean_hidden_states():
    student, teacher = pair("embedding")
    batch = batch_of("embedding")
    terms = DistilBERTEncoder(student, teacher).losses(batch)
    teacher.eval()
    valid = batch["input"] != 0
    means = []
    for model in (student, teacher):
        hidden = model.model(input_ids=batch["input"], attention_mask=valid.long()).last_hidden_state
        means.append(torch.stack([states[tokens].mean(0) for states, tokens in zip(hidden, valid, strict=True)]))
    torch.testing.assert_close(terms["sentence"].float(), 1 - torch.cosine_similarity(*means), atol=1e-6, rtol=1e-5)
    assert terms.keys() == {"sentence", "cosine"}


def test_the_start_is_a_baseline_that_the_training_does_not_change():
    student, teacher = pair("embedding")
    batch = batch_of("embedding")
    before = student.eval()(batch["input"]).detach()
    distiller = DistilBERTEncoder(student, teacher)
    with torch.no_grad():
        for parameter in distiller.trainable():
            parameter += 1
    start = distiller.report_extras.baselines(pl.LightningDataModule())["start"].eval()
    assert torch.equal(start(batch["input"]), before)
    assert not any(name.startswith("report_extras") for name, _ in distiller.named_parameters())


# ---------------------------------------------------------------- whole runs


def save_encoder(folder, corpus):
    """Write a random BERT and its tokenizer into a folder."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer((corpus / "text.txt").read_text().splitlines(), 120)
    tokenizer.save_pretrained(folder)
    # A spread far above the usual 0.02, so that different texts have different vectors without any training.
    spread = {"num_hidden_layers": 4, "initializer_range": 0.5, "max_position_embeddings": 32}
    config = transformers.BertConfig(vocab_size=len(tokenizer), **TINY_BERT, **spread)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def test_a_run_brings_the_student_closer_to_the_teacher_than_its_start(corpus, tables, tmp_path):
    save_encoder(tmp_path / "encoder", corpus)
    teacher = ["teacher=hf", f"teacher.path={tmp_path / 'encoder'}"]
    folders = [f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"]
    training = ["seed=0", "trainer.max_epochs=4", "data.batch_size=16"]
    report = kdzoo.run(kdzoo.compose("distiller=distilbert_encoder", *teacher, *tables, *training, *folders))
    assert report["control"] is None
    assert report["fidelity"]["student"]["cosine"] > report["fidelity"]["start"]["cosine"]
    assert 0 <= report["student"]["metrics"]["probe_accuracy"] <= 1


def test_a_teacher_with_another_tokenizer_is_refused(corpus, tables, tmp_path):
    for name, lowercase in (("teacher", True), ("other", False)):
        lines = (corpus / "text.txt").read_text().replace("cat", "Cat").splitlines()
        train_tokenizer(lines, 120, lowercase=lowercase).save_pretrained(tmp_path / name)
    config = transformers.BertConfig(vocab_size=200, num_hidden_layers=2, **TINY_BERT)
    transformers.BertModel(config).save_pretrained(tmp_path / "teacher")
    settings = ["teacher=hf", f"teacher.path={tmp_path / 'teacher'}", *tables, f"data.tokenizer={tmp_path / 'other'}"]
    with pytest.raises(ConfigError, match=r"^tokenizer of .*teacher .* is not the one that makes the data's ids"):
        kdzoo.run(kdzoo.compose("distiller=distilbert_encoder", *settings, f"output_dir={tmp_path / 'run'}", "seed=0"))


def test_a_teacher_without_weights_is_refused_before_anything_is_trained(run, tables, monkeypatch):
    monkeypatch.setattr("kdzoo.runs.teachers.train", lambda *_: pytest.fail("the teacher was trained"))
    with pytest.raises(
        ConfigError, match=r"^teacher Bert has no weights, and .*encoder.* not trained here.*teacher=hf"
    ):
        run("distiller=distilbert_encoder", *tables)
