"""Whole runs of transformers of text, as the command does them, small: a corpus, classified texts, an encoder."""

import random

import pytest
import torch

import kdzoo
import kdzoo.text.tokenizers
from kdzoo.errors import ConfigError

transformers = pytest.importorskip("transformers")

WORDS = ["the", "cat", "dog", "bird", "sits", "runs", "sings", "on", "a", "mat", "tree", "red", "blue", "old", "small"]
SMALL = [
    *("teacher.hidden_size=16", "teacher.layers=4", "teacher.heads=2", "teacher.max_length=16", "seed=0"),
    *("trainer.max_epochs=1", "data.batch_size=16", "data.vocab_size=120"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with a text and with two tables of classified texts."""
    folder, draw = tmp_path_factory.mktemp("corpus"), random.Random(0)
    sentences = [" ".join(draw.choices(WORDS, k=draw.randint(4, 9))) for _ in range(240)]
    (folder / "text.txt").write_text("\n".join(sentences))
    for name, part in (("train", sentences[:180]), ("test", sentences[180:])):
        rows = [f"{one}\t{int('cat' in one)}" for one in part]
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + "\n".join(rows))
    return folder


def run(tmp_path, *overrides):
    places = [f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}", f"data.cache={tmp_path / 'tokens'}"]
    if any("text_classes" in one for one in overrides):
        places = places[:2]
    return kdzoo.run(kdzoo.compose("distiller=distilbert", *SMALL, *overrides, *places))


def tables(folder):
    files = f"data.train_file={folder / 'train.tsv'}", f"data.test_file={folder / 'test.tsv'}"
    return ["data=text_classes", *files, "data.max_length=16"]


def test_a_masked_language_model_of_ones_own_text(corpus, tmp_path):
    text = [
        "data=text",
        f"data.path={corpus / 'text.txt'}",
        "data.block_size=16",
        "data.val_size=0.1",
        "data.test_size=0.1",
    ]
    report = run(
        tmp_path, *text, "control=false", "student.layers=auto", "student.objective=loss", "student.search_size=8"
    )
    folder = tmp_path / "run" / "student"
    assert report["student"]["metrics"]["layer_parameters"] * 2 == report["teacher"]["metrics"]["layer_parameters"]
    assert 0 <= report["fidelity"]["student"]["agreement"] <= 1
    student = kdzoo.load_student(folder)
    assert len(student.chosen_layers) == 2
    again = transformers.AutoModelForMaskedLM.from_pretrained(folder / "hf", local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf", local_files_only=True)
    asked = tokenizer("the [MASK] sits on a mat", return_tensors="pt")
    torch.testing.assert_close(again(**asked).logits, student(asked["input_ids"]), rtol=1e-5, atol=1e-5)
    card = (folder / "hf" / "README.md").read_text()
    assert f"| student | masked_loss | {report['student']['metrics']['masked_loss']:.4g} |" in card


def test_a_teacher_whose_likeliest_tokens_are_kept(corpus, tmp_path):
    text = ["data=text", f"data.path={corpus / 'text.txt'}", "data.block_size=16", "data.val_size=0.1", "control=false"]
    settings = [*text, "data.test_size=0.1", "data.copies=2", "distiller.top_k=8", "teacher.dropout=0.0"]
    reports = {}
    for kept in (True, False):
        reports[kept] = run(tmp_path / str(kept), *settings, f"teacher_cache={kept}")["student"]["metrics"]
        assert bool(list((tmp_path / str(kept) / "cache").glob("teacher_outputs/*/manifest.json"))) == kept
    assert reports[True] == pytest.approx(reports[False], rel=1e-4)


def test_a_classifier_of_texts_and_its_control(corpus, tmp_path):
    report = run(tmp_path, *tables(corpus), "distiller.task=classification", "student.family=distilbert")
    assert report["control"]["parameters"] == report["student"]["parameters"]
    assert (tmp_path / "run" / "student" / "hf" / "config.json").is_file()
    assert kdzoo.load_student(tmp_path / "run" / "student").task == "classification"


def test_an_encoder_beside_its_start(corpus, tmp_path):
    weights = tmp_path / "encoder"
    torch.manual_seed(0)
    tokenizer = kdzoo.text.tokenizers.train_tokenizer((corpus / "text.txt").read_text().splitlines(), 120)
    tokenizer.save_pretrained(weights)
    tiny = {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.5,
    }
    bert = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **tiny)
    transformers.BertModel(bert, add_pooling_layer=False).save_pretrained(weights)
    settings = ["distiller.task=embedding", "teacher=hf", f"teacher.path={weights}", *tables(corpus)]
    places = [f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"]
    epochs = ["seed=0", "trainer.max_epochs=4", "data.batch_size=16"]
    report = kdzoo.run(kdzoo.compose("distiller=distilbert", *settings, *epochs, *places))
    assert report["control"] is None
    assert report["fidelity"]["student"]["cosine"] > report["fidelity"]["start"]["cosine"]
    assert 0 <= report["student"]["metrics"]["probe_accuracy"] <= 1


def test_a_teacher_of_other_tokens_is_refused(corpus, tmp_path):
    for name, lowercase in (("one", True), ("other", False)):
        kdzoo.text.tokenizers.train_tokenizer(
            (corpus / "text.txt").read_text().replace("cat", "Cat").splitlines(), 120, lowercase=lowercase
        ).save_pretrained(tmp_path / name)
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertModel(transformers.BertConfig(vocab_size=200, **tiny)).save_pretrained(tmp_path / "one")
    settings = ["distiller.task=embedding", "teacher=hf", f"teacher.path={tmp_path / 'one'}", *tables(corpus)]
    other = [f"data.tokenizer={tmp_path / 'other'}", f"output_dir={tmp_path / 'run'}", "seed=0"]
    with pytest.raises(ConfigError, match=r"^tokenizer of .*one .* is not the one that makes the data's ids"):
        kdzoo.run(kdzoo.compose("distiller=distilbert", *settings, *other))


def test_an_exported_student_is_measured_as_what_it_is(corpus, tmp_path):
    from kdzoo.runs.evaluation import evaluate_folder

    report = run(tmp_path, *tables(corpus), "distiller.task=classification", "control=false")
    places = [*tables(corpus), "data.vocab_size=120", "seed=0", f"cache_dir={tmp_path / 'cache'}"]
    found = evaluate_folder(tmp_path / "run", kdzoo.compose("distiller=distilbert", *places))
    assert found["metrics"]["accuracy"] == report["student"]["metrics"]["accuracy"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["distiller.task=embedding"],
            r"teacher Bert has no weights, and an encoder is not trained here; set teacher=hf",
        ),
        (
            ["distiller.task=classification", "student.layers=auto", "data.val_size=0"],
            r"student\.layers='auto' chooses on validation texts, and data has none",
        ),
    ],
)
def test_what_cannot_end_well_is_refused_before_any_training(settings, message, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("kdzoo.runs.teachers.train", lambda *_: pytest.fail("the teacher was trained"))
    with pytest.raises(ConfigError, match=f"^{message}"):
        run(tmp_path, *tables(corpus), *settings)
