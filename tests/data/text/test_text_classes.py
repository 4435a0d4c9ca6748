"""Texts with classes: files, labels, padding, batches of similar length."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.data import SST2, ClassifiedTexts, TextClasses
from kdzoo.data.loading.grouping import POOL, LengthBatches, group
from kdzoo.data.text.tables import classes_of, read_table
from kdzoo.errors import CheckpointError, ConfigError, DataError
from kdzoo.text.tokenizers import fingerprint, train_tokenizer

# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", 'label\ttext\n1\tan "odd, one\n-1\ttwo\n'),
        ("a.csv", '\ufefftext,id,label\r\n"an ""odd, one",7,1\r\ntwo,8,-1\r\n'),
        ("a.jsonl", '{"text": "an \\"odd, one", "label": 1}\n{"text": "two", "label": "-1"}\n'),
    ],
    ids=["tsv", "csv", "jsonl"],
)
def test_tables(tmp_path, name, content):
    (tmp_path / name).write_text(content, newline="")
    assert read_table(tmp_path / name, "text", "label") == (['an "odd, one', "two"], ["1", "-1"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", r"a.txt is no table; allowed: a file that ends in .tsv, .csv, .jsonl or .json"),
        ("a.tsv", None, "a.tsv does not exist; allowed: a text file"),
        ("a.tsv", "", "a.tsv has no row; allowed: at least 1"),
        ("a.tsv", "text\tlabel\n", "a.tsv has no row; allowed: at least 1"),
        ("a.tsv", "sentence\tlabel\nx\t1\n", "a.tsv, line 2 has no 'text'; allowed: one of sentence, label"),
        ("a.tsv", "text\tlabel\nx\t1\ny\n", "a.tsv, line 3 has no 'label'; allowed: one of text, label"),
        ("a.csv", "text,label\nx,y,1\n", "a.csv, line 2 has more than the 2 columns; allowed: text, label"),
        ("a.csv", "text,label\n" + "x" * 200_000 + ",1\n", r"a.csv, line 1 cannot be read \(field larger"),
        ("a.json", '{"text": "x", "label": true}', "a.json, line 1 has no 'label'"),
        ("a.json", '{"text": 3, "label": "y"}', "a.json, line 1 has no 'text'"),
    ],
    ids=["ending", "absent", "empty", "no row", "no column", "short", "long", "huge", "bool", "number"],
)
def test_bad_tables(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / name, "text", "label")
    assert "\n" not in str(caught.value)


def test_classes_are_sorted():
    assert classes_of(["10", "-1", "9", "10"]) == ("-1", "9", "10")
    assert classes_of(["pos", "neg", "10"]) == ("10", "neg", "pos")


# ---------------------------------------------------------------- batches of similar length


def batches(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [rows for _, rows in sampler]


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, 9), st.booleans(), st.integers(0, 3))
def test_every_text_is_met_once_the_longest_of_a_batch_first(n, batch_size, grouped, epoch):
    lengths = torch.randint(1, 30, (n,), generator=torch.Generator().manual_seed(n))
    found = batches(LengthBatches(lengths, grouped, n=n, batch_size=batch_size, seed=1), epoch)
    assert sorted(torch.cat(found).tolist()) == list(range(n))
    assert all((lengths[rows].diff() <= 0).all() for rows in found)
    assert [len(rows) for rows in found[:-1]] == [batch_size] * (len(found) - 1)


def test_grouped_batches_have_similar_lengths_and_their_order_is_random():
    n, size = 4 * POOL * 2 + 3, 4
    lengths = torch.randint(1, 1000, (n,), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    found = group(order, lengths, size, 0, 0)
    spread = [int(lengths[rows].max() - lengths[rows].min()) for rows in found[:-3].split(size)]
    assert sum(spread) / len(spread) < 30
    assert torch.equal(found[-3:], order[-3:])
    for pool in order[:-3].split(POOL * size):
        inside = {int(row) for row in pool}
        assert sum(set(rows.tolist()) <= inside for rows in found[:-3].split(size)) == POOL
    assert not torch.equal(found, group(order, lengths, size, 0, 1))
    longest = [int(lengths[rows].max()) for rows in found[:-3].split(size)]
    assert longest != sorted(longest)


@given(st.integers(2, 40), st.integers(2, 9), st.booleans())
def test_grouping_is_resumed_and_shared(n, batch_size, grouped):
    batch_size = min(n, batch_size)
    lengths = torch.arange(n) % 7 + 1
    make = {"n": n, "batch_size": batch_size, "seed": 3}
    whole = batches(LengthBatches(lengths, grouped, **make), 1)
    again = LengthBatches(lengths, grouped, **make)
    again.start = 1
    rest = batches(again, 1)
    assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in whole[1:]]
    shares = [batches(LengthBatches(lengths, grouped, **make, rank=rank, world_size=2), 1) for rank in (0, 1)]
    for one, *parts in zip([rows for rows in whole if len(rows) > 1], *shares, strict=True):
        assert sorted(torch.cat(parts).tolist()) == sorted(one.tolist())


# ---------------------------------------------------------------- data

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
    assert data.sizes == {"num_classes": 2, "vocab_size": size, "pad_id": 0, "tokenizer": name}
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


def test_long_texts_are_cut(make):
    data = make(max_length=4)
    assert int(data.splits.train.texts.lengths.max()) == 4
    (batch,) = data.test_dataloader()
    assert (batch["input"][:, 0] == 2).all()
    assert (batch["input"].gather(1, (batch["input"] != 0).sum(1, keepdim=True) - 1) == 3).all()


@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "not grouped"])
def test_training_continues_at_any_batch(make, grouped):
    data = make(group_by_length=grouped)
    data.train_sampler.set_epoch(1)
    whole = list(data.train_dataloader())
    again = make(group_by_length=grouped)
    again.train_sampler.set_position(6 + 2)
    for one, other in zip(again.train_dataloader(), whole[2:], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_parts_do_not_depend_on_the_seed(make):
    first, second = make(seed=0, train_size=20), make(seed=1, train_size=20)
    assert first.fingerprint() == second.fingerprint() != make().fingerprint()
    assert first.splits.val.texts.to_lists() == second.splits.val.texts.to_lists()
    assert first.summary()["n_train"] == 20


def test_an_own_tokenizer_and_labels_that_are_numbers(make, tmp_path):
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
        ({"max_length": 31}, ConfigError, r"max_length=31 is more than the tokenizer .* allows; allowed: \.\.30"),
        ({"val_size": 1.5}, ConfigError, r"val_size=1.5 is not allowed; allowed: a fraction in \[0, 1\) or a count"),
        ({"val_size": 60}, ConfigError, "val_size=60 takes 60 of 60 samples"),
        ({"group_by_length": 1}, ConfigError, "group_by_length must be true or false, got 1"),
        ({"tokenizer": "absent"}, CheckpointError, "no tokenizer can be loaded from absent"),
        ({"train_file": "absent.tsv"}, DataError, "absent.tsv does not exist"),
        ({"train_size": 49}, ConfigError, "train_size=49 is more than the 48 training samples"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_mistakes(make, options, error, message):
    with pytest.raises(error, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_an_unknown_label(make, tmp_path):
    (tmp_path / "test.tsv").write_text("text\tlabel\ngood\tneutral\n")
    with pytest.raises(DataError, match="test has the label 'neutral'; allowed: neg, pos, as in train"):
        make(test_file=tmp_path / "test.tsv")


def test_sst2_in_small(folder, tmp_path):
    (tmp_path / "sst2").mkdir()
    for name, n in (("train.tsv", 30), ("dev.tsv", 9)):
        (tmp_path / "sst2" / name).write_text(table(n).replace("text", "sentence"))
    data = SST2(root=tmp_path, tokenizer=folder / "tokenizer", max_length=20, val_size=0.1, train_size=20, batch_size=4)
    data.setup()
    assert data.summary() == {"n_train": 20, "n_labelled": 20, "n_val": 3, "n_test": 9, "num_classes": 2}
    with pytest.raises(DataError, match=r"sst2: not all of train.tsv, dev.tsv are in"):
        SST2(root=tmp_path / "absent").setup()


def test_the_published_files(folder, real_root):
    if not (real_root / "sst2").is_dir():
        pytest.skip(f"no {real_root / 'sst2'}")
    train, test = SST2(root=real_root).read()
    assert (len(train.texts), len(test.texts)) == (67_349, 872)
    assert (train.labels.count("1"), test.labels.count("1")) == (37_569, 444)


def test_before_setup():
    with pytest.raises(RuntimeError, match=r"call SST2.setup\(\) first"):
        SST2().sizes  # noqa: B018
