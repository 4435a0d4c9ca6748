"""Blocks of text with masked tokens: masks, copies, ranks, the cache, and refusals."""

import math
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.data import IGNORE, BlockData, TextBlocks
from kdzoo.data.text.packing import DividedText
from kdzoo.data.text.text_files import reader
from kdzoo.errors import CheckpointError, ConfigError, DataError
from kdzoo.text.tokenizers import fingerprint, train_tokenizer

pytest.importorskip("transformers")

SPEECHES = [f"speaker {i % 7}:\nnow is the winter of our discontent {i}\nmade glorious summer\n\n" for i in range(120)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A text in a folder, and a cache beside it."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "corpus.txt").write_text("".join(SPEECHES))
    return folder


@pytest.fixture
def make(corpus):
    def made(**options):
        options = {
            "path": corpus / "corpus.txt",
            "cache": corpus / "cache",
            "block_size": 16,
            "batch_size": 8,
            **options,
        }
        data = TextBlocks(**{"vocab_size": 120, **options})
        data.setup()
        return data

    return made


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def epoch_of(data, epoch=0):
    data.train_sampler.set_epoch(epoch)
    return list(data.train_dataloader())


def text_of(data, part):
    rows = part.batch(torch.arange(len(part)))["input"]
    return data.tokenizer.decode(rows.flatten(), skip_special_tokens=True).replace(" ", "")


def test_no_word_of_the_text_is_lost(make):
    data = make()
    full = "".join(text_of(data, part) for part in (data.splits.train, data.splits.val, data.splits.test))
    assert full == "".join("".join(SPEECHES).split())
    n = data.summary()
    assert n["n_val"] / (n["n_train"] + n["n_val"] + n["n_test"]) == pytest.approx(0.05, abs=0.01)
    assert n["n_labelled"] == n["n_train"]
    assert isinstance(data, BlockData)


def test_batches_have_the_documented_tensors(make):
    data = make()
    size = len(data.tokenizer)
    name = fingerprint(data.tokenizer)
    assert data.sizes == {
        "num_classes": size,
        "vocab_size": size,
        "pad_id": 0,
        "tokenizer": name,
        "text_length": data.block_size,
    }
    seen = []
    for batch in data.train_dataloader():
        assert list(batch) == ["input", "target", "index", "mask"]
        assert [batch[one].dtype for one in batch] == [torch.int64] * 3 + [torch.bool]
        to_container = data.splits.train.batch(batch["index"])
        assert torch.equal(batch["mask"], to_container["mask"])
        chosen = batch["target"] != IGNORE
        assert torch.equal(batch["target"][chosen], to_container["input"][chosen])
        assert int(chosen.sum()) == -(-15 * int(to_container["mask"].sum()) // 100)
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(len(data.splits.train)))
    assert data.is_augmented


def test_every_epoch_has_different_masks(make):
    data = make(batch_size=4)
    first, second = (
        {
            int(row): target
            for batch in epoch_of(data, epoch)
            for row, target in zip(batch["index"], batch["target"], strict=True)
        }
        for epoch in (0, 1)
    )
    assert first.keys() == second.keys()
    assert sum(torch.equal(first[row], second[row]) for row in first) < len(first) / 4


@pytest.mark.parametrize("masking", ["fixed", "bernoulli"])
def test_masks_of_copies_never_change(make, masking):
    data = make(copies=3, masking=masking, batch_size=4, seed=2)
    n = len(make().splits.train)
    rows = {}
    for epoch in (0, 1):
        for batch in epoch_of(data, epoch):
            for i, row in enumerate(batch["index"].tolist()):
                row_tensors = {name: one[i] for name, one in batch.items()}
                assert same(rows.setdefault(row, row_tensors), row_tensors)
    assert sorted(rows) == list(range(3 * n))
    kept = list(data.train_eval_dataloader())
    assert torch.cat([batch["index"] for batch in kept]).tolist() == list(range(3 * n))
    assert all(
        torch.equal(rows[row]["target"], batch["target"][i])
        for batch in kept
        for i, row in enumerate(batch["index"].tolist())
    )
    assert sum(torch.equal(rows[row]["target"], rows[row + n]["target"]) for row in range(n)) < n / 4
    if masking == "fixed":
        counts = [
            (int((one["target"] != IGNORE).sum()), math.ceil(0.15 * int(one["mask"].sum()))) for one in rows.values()
        ]
        assert all(found == wanted for found, wanted in counts)
    assert not data.is_augmented
    assert data.has_equal_rows


def test_copies_are_made_after_train_size(make):
    data = make(copies=3, train_size=5, batch_size=12)
    blocks = torch.cat([batch["index"] for batch in epoch_of(data, 0)])
    assert sorted(blocks.tolist()) == list(range(15))
    assert [len(batch["index"]) for batch in epoch_of(data, 0)] == [12, 3]
    two = [make(copies=3, train_size=5, batch_size=12) for _ in range(2)]
    for rank, one in enumerate(two):
        one.train_sampler.set_share(rank, 2)
    shares = zip(*(epoch_of(one, 0) for one in two), strict=True)
    for full, parts in zip(epoch_of(data, 0), shares, strict=True):
        assert same(full, {name: torch.cat([part[name] for part in parts]) for name in full})


def test_evaluation_masks_do_not_depend_on_seed_or_masking(make):
    one, other = make(seed=0, eval_batch_size=3), make(seed=5, masking="bernoulli", batch_size=4, smoothing=0.0)
    for name in ("val_dataloader", "test_dataloader", "train_eval_dataloader"):
        parts = []
        for data, epoch in ((one, 0), (other, 7)):
            loader = getattr(data, name)()
            loader.sampler.set_epoch(epoch)  # as a trainer does
            batches = list(loader)
            parts.append({key: torch.cat([batch[key] for batch in batches]) for key in batches[0]})
        assert same(*parts)
        assert (parts[0]["target"] != IGNORE).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_training_continues_at_any_batch(make, workers):
    data = make(seed=1)
    full = epoch_of(data, 1)
    again = make(seed=1, num_workers=workers)
    again.train_sampler.set_position(len(full) + 3)
    rest = list(again.train_dataloader())
    assert len(rest) == len(full) - 3
    assert all(same(*pair) for pair in zip(rest, full[3:], strict=True))


@pytest.mark.parametrize("masking", ["fixed", "bernoulli"])
def test_ranks_share_the_batches_of_one_process(make, masking):
    options = {"masking": masking, "seed": 2, "train_size": 45}
    single = [batch for batch in epoch_of(make(**options), 1) if len(batch["index"]) >= 3]
    shares = []
    for rank in range(3):
        data = make(**options)
        data.train_sampler.set_share(rank, 3)
        shares.append(epoch_of(data, 1))
    for full, *parts in zip(single, *shares, strict=True):
        assert same({name: torch.cat([part[name] for part in parts]) for name in full}, full)


def test_the_packed_file_is_used_again(make, corpus, monkeypatch):
    first = make(block_size=12)
    files = {path: path.stat().st_mtime_ns for path in (corpus / "cache").rglob("*") if path.is_file()}
    again = make(block_size=12)
    assert same(*(next(iter(data.test_dataloader())) for data in (first, again)))
    assert files == {path: path.stat().st_mtime_ns for path in files}
    damaged = Path(again.splits.train.ids.filename)
    damaged.unlink()  # not cut: others have it mapped
    damaged.write_bytes(b"")
    assert same(*(next(iter(data.test_dataloader())) for data in (first, make(block_size=12))))


def test_the_fingerprint_is_of_blocks_tokenizer_and_masking(make, corpus):
    base = make().fingerprint()
    assert make(batch_size=4, seed=3).fingerprint() == base
    (corpus / "copy").mkdir(exist_ok=True)
    (corpus / "copy" / "other_name.txt").write_text("".join(SPEECHES))
    assert make(path=corpus / "copy").fingerprint() == base
    changes = [{"mask_rate": 0.2}, {"masking": "bernoulli"}, {"block_size": 12}, {"vocab_size": 100}, {"train_size": 9}]
    changes += [{"copies": 1}, {"copies": 2}, {"copies": 2, "seed": 3}]
    assert len({base, *(make(**change).fingerprint() for change in changes)}) == 9


def test_a_trained_tokenizer_sees_the_training_text_only(make, corpus):
    data = make(val_size=0.2, test_size=0.3)
    text = DividedText.of(reader(corpus / "corpus.txt", "text"), 0.2, 0.3)
    assert fingerprint(data.tokenizer) == fingerprint(train_tokenizer(text.train(), 120))


def test_a_given_tokenizer(make, corpus):
    tokenizer = train_tokenizer(SPEECHES, 90, lowercase=False)
    tokenizer.model_max_length = 20
    tokenizer.save_pretrained(corpus / "tokenizer")
    data = make(tokenizer=corpus / "tokenizer", block_size=20)
    assert data.sizes["tokenizer"] == fingerprint(tokenizer)
    with pytest.raises(ConfigError, match=r"block_size=21 is more than the tokenizer .* allows; allowed: at most 20"):
        make(tokenizer=corpus / "tokenizer", block_size=21)
    with pytest.raises(CheckpointError, match="no tokenizer can be loaded from"):
        make(tokenizer=corpus / "absent")


def test_nothing_is_masked_at_rate_0(make):
    data = make(mask_rate=0.0)
    assert not data.is_augmented
    batch = next(iter(data.train_dataloader()))
    assert (batch["target"] == IGNORE).all()
    assert torch.equal(batch["input"], data.splits.train.batch(batch["index"])["input"])


class Recorder(pl.LightningModule):
    """Records the batches that it is trained and validated on."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen, self.validated = [], []

    def training_step(self, batch, _):
        self.seen.append(batch)
        return self.weight.sum()

    def validation_step(self, batch, _):
        self.validated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_sees_the_batches_of_the_loaders(make):
    model = Recorder()
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's recommendations for loaders and workers
        options = {"max_epochs": 2, "accelerator": "cpu", "num_sanity_val_steps": 0}
        pl.Trainer(**options, **dict.fromkeys(quiet, False)).fit(model, datamodule=make())
    data = make()
    assert all(same(*pair) for pair in zip(model.seen, [*epoch_of(data, 0), *epoch_of(data, 1)], strict=True))
    first, second = model.validated
    assert same(first, second)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"block_size": 2}, ConfigError, "block_size must be an integer >= 3, got 2"),
        ({"vocab_size": 5}, ConfigError, "vocab_size must be an integer >= 6, got 5"),
        ({"mask_rate": 1.0}, ConfigError, r"mask_rate must be in \[0, 1\), got 1.0"),
        ({"masking": "whole"}, ConfigError, "masking must be one of fixed, bernoulli, got 'whole'"),
        ({"smoothing": -1.0}, ConfigError, r"smoothing must be a finite number >= 0, got -1\.0"),
        ({"val_size": 3}, ConfigError, r"val_size must be in \[0, 1\), got 3"),
        ({"val_size": 0.5, "test_size": 0.5}, ConfigError, "val_size=0.5 and test_size=0.5 leave nothing"),
        ({"test_size": 0}, DataError, "the test split is empty; allowed: at least 1 sample"),
        ({"batch_size": 10_000}, ConfigError, r"batch_size=10000 is larger than the \d+ training samples"),
        ({"path": "absent.txt"}, DataError, "absent.txt does not exist; allowed: a text file"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_invalid_options_are_refused(make, options, error, message):
    with pytest.raises(error, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_a_text_without_tokens_is_refused(make, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="the text is empty; allowed: at least 1 character"):
        make(path=tmp_path / "empty.txt")
    (tmp_path / "blank.jsonl").write_text('{"text": "  "}\n' * 9)
    with pytest.raises(DataError, match="the text has no tokens; allowed: at least 1"):
        make(path=tmp_path / "blank.jsonl")


def test_sizes_before_setup_are_refused():
    with pytest.raises(RuntimeError, match=r"call TextBlocks.setup\(\) first"):
        TextBlocks(path="x").sizes  # noqa: B018


def test_a_trial_run_cuts_blocks_but_knows_their_length(make, corpus):
    options = {"cache": corpus / "cache", "block_size": 16, "vocab_size": 120, "mask_rate": 0}
    trial = TextBlocks(path=corpus / "corpus.txt", **options)
    trial.max_sequence_length = 4
    trial.setup()
    batches = zip(make(mask_rate=0).test_dataloader(), trial.test_dataloader(), strict=True)
    assert all(torch.equal(batch["input"][:, :4], cut["input"]) for batch, cut in batches)
    assert trial.sizes["text_length"] == 16
