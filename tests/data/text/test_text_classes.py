"""Texts with classes: labels, padding, batches of similar length, and refusals."""

import pytest
import torch

from kdzoo.core.batch import IGNORE
from kdzoo.data import ClassifiedTexts, TextClasses
from kdzoo.errors import CheckpointError, ConfigError, DataError, KdzooWarning
from kdzoo.text.tokenizers import fingerprint, train_tokenizer

WORDS = ["the", "film", "is", "good", "bad", "and", "not", "very", "boring", "brilliant"]


def table(n, start=0):
    rows = (
        f"{' '.join(WORDS[(i + k) % 10] for k in range(1 + i * 7 % 9))}\t{'pos' if i % 3 else 'neg'}"
        for i in range(start, start + n)
    )
    return "text\tlabel\n" + "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    found = tmp_path_factory.mktemp("classes")
    (found / "train.tsv").write_text(table(60))
    (found / "test.tsv").write_text(table(11, 60))
    tokenizer = train_tokenizer(WORDS, 90)
    tokenizer.model_max_length = 30
    tokenizer.save_pretrained(found / "tokenizer")
    return found


@pytest.fixture
def make(folder):
    def made(**options):
        files = {"train_file": folder / "train.tsv", "test_file": folder / "test.tsv"}
        options = {"tokenizer": folder / "tokenizer", "max_length": 20, "batch_size": 8, "val_size": 12, **options}
        data = TextClasses(**{**files, **options})
        data.setup()
        return data

    return made


def test_batches_are_padded_to_their_longest_text(make):
    data = make()
    size, name = len(data.tokenizer), fingerprint(data.tokenizer)
    longest = max(batch["input"].shape[1] for batch in (*data.train_eval_dataloader(), *data.test_dataloader()))
    sizes = {"num_classes": 2, "vocab_size": size, "pad_id": 0, "tokenizer": name, "text_length": longest}
    assert data.sizes == {**sizes, "classes": ("neg", "pos")}
    assert data.summary() == {"n_train": 48, "n_labelled": 48, "n_val": 12, "n_test": 11, "num_classes": 2}
    assert (data.classes, data.is_augmented) == (("neg", "pos"), False)
    rows = [line.split("\t") for line in table(60).splitlines()[1:]]
    texts = {text.replace(" ", ""): label for text, label in rows}
    for batch in data.train_dataloader():
        assert list(batch) == ["input", "target", "index"]
        assert {one.dtype for one in batch.values()} == {torch.int64}
        lengths = (batch["input"] != 0).sum(1)
        assert batch["input"].shape == (8, int(lengths[0]))
        assert (lengths.diff() <= 0).all()
        for ids, target in zip(batch["input"], batch["target"], strict=True):
            text = data.tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "")
            assert texts[text] == data.classes[target]
    assert isinstance(data, ClassifiedTexts)


def test_evaluation_keeps_the_order_of_the_file(make):
    data = make(eval_batch_size=4)
    expected = [line.split("\t")[0].replace(" ", "") for line in table(11, 60).splitlines()[1:]]
    found = [
        data.tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "")
        for batch in data.test_dataloader()
        for ids in batch["input"]
    ]
    assert found == expected
    assert torch.cat([batch["index"] for batch in data.train_eval_dataloader()]).tolist() == list(range(48))


def test_long_texts_are_truncated(make):
    data = make(max_length=4)
    assert int(data.splits.train.texts.lengths.max()) == 4
    (batch,) = data.test_dataloader()
    assert (batch["input"][:, 0] == 2).all()
    assert (batch["input"].gather(1, (batch["input"] != 0).sum(1, keepdim=True) - 1) == 3).all()


@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "not grouped"])
def test_training_continues_at_any_batch(make, grouped):
    data = make(group_by_length=grouped)
    data.train_sampler.set_epoch(1)
    batches = list(data.train_dataloader())
    again = make(group_by_length=grouped)
    again.train_sampler.set_position(6 + 2)
    for resumed, expected in zip(again.train_dataloader(), batches[2:], strict=True):
        assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_splits_do_not_depend_on_the_seed(make):
    first, second = make(seed=0, train_size=20), make(seed=1, train_size=20)
    assert first.fingerprint() == second.fingerprint() != make().fingerprint()
    assert first.splits.val.texts.to_lists() == second.splits.val.texts.to_lists()
    assert first.summary()["n_train"] == 20


def test_a_trained_tokenizer_and_labels_that_are_numbers(make, tmp_path):
    (tmp_path / "train.csv").write_text("body,stars\n" + "".join(f"{WORDS[i % 10]} film,{i % 11}\n" for i in range(40)))
    (tmp_path / "test.jsonl").write_text('{"body": "good film", "stars": 10}\n')
    files = {"train_file": tmp_path / "train.csv", "test_file": tmp_path / "test.jsonl"}
    fields = {"text_field": "body", "label_field": "stars"}
    data = make(**files, **fields, tokenizer=None, vocab_size=80, val_size=0)
    assert data.classes == tuple(map(str, range(11)))
    (batch,) = data.test_dataloader()
    assert batch["target"].tolist() == [10]
    assert data.tokenizer.decode(batch["input"][0], skip_special_tokens=True) == "good film"
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_length": 2}, ConfigError, "max_length must be an integer >= 3, got 2"),
        ({"max_length": 31}, ConfigError, r"max_length=31 is more than the tokenizer .* allows; allowed: at most 30"),
        ({"val_size": 1.5}, ConfigError, r"val_size=1.5 is not allowed; allowed: a fraction in \[0, 1\) or a count"),
        ({"val_size": 60}, ConfigError, "val_size=60 takes 60 of 60 samples"),
        ({"group_by_length": 1}, ConfigError, "group_by_length must be true or false, got 1"),
        ({"tokenizer": "absent"}, CheckpointError, "no tokenizer can be loaded from absent"),
        ({"train_file": "absent.tsv"}, DataError, "absent.tsv does not exist"),
        ({"train_size": 49}, ConfigError, "train_size=49 is more than the 48 training samples"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_invalid_options_are_refused(make, options, error, message):
    with pytest.raises(error, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_a_label_that_is_not_in_train_is_refused(make, tmp_path):
    (tmp_path / "test.tsv").write_text("text\tlabel\ngood\tneutral\n")
    with pytest.raises(DataError, match="test has the label 'neutral'; allowed: neg, pos, as in train"):
        make(test_file=tmp_path / "test.tsv")


def test_a_trial_run_cuts_texts_but_knows_their_length(folder, make):
    whole = make()
    files = {"train_file": folder / "train.tsv", "test_file": folder / "test.tsv"}
    trial = TextClasses(**files, tokenizer=folder / "tokenizer", max_length=20, batch_size=8)
    trial.max_sequence_length = 4
    trial.setup()
    batches = zip(whole.test_dataloader(), trial.test_dataloader(), strict=True)
    assert all(torch.equal(batch["input"][:, :4], cut["input"]) for batch, cut in batches)
    assert trial.sizes["text_length"] == whole.sizes["text_length"] > 4


@pytest.fixture
def partly(tmp_path):
    """Files in which some texts have no label, in two ways, and integers are written in two ways."""
    rows = [f"{WORDS[i % 10]}\t{label}" for i, label in enumerate(["0", "01", "", "-1", "1", "00"])]
    for name in ("train", "test"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    return {"train_file": tmp_path / "train.tsv", "test_file": tmp_path / "test.tsv", "val_size": 0, "batch_size": 2}


def test_texts_may_lack_a_label(make, partly):
    data = make(**partly, ignore_index=-1)
    assert data.classes == ("0", "1")
    assert data.summary()["n_labelled"] == 4
    targets = torch.cat([batch["target"] for batch in data.train_eval_dataloader()])
    assert targets.tolist() == [0, 1, IGNORE, IGNORE, 1, 0]
    assert make(**partly).classes == ("-1", "0", "1")


def test_a_test_file_without_labels_is_refused(make, partly):
    partly["test_file"].write_text("text\tlabel\nthe\t\n")
    with pytest.raises(DataError, match="the test split has no labels"):
        make(**partly)


def test_texts_that_are_cut_are_counted(make):
    with pytest.warns(KdzooWarning, match=r"of 60 train texts are cut to data.max_length=5 tokens"):
        data = make(max_length=5)
    # Texts of 1 to 9 words, and two special tokens: those of more than three words are cut.
    expected = sum(1 + i * 7 % 9 > 3 for i in range(71))
    assert data.summary()["n_truncated"] == expected
    assert "n_truncated" not in make().summary()
