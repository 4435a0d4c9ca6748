"""Ragged sequences of vectors, their padding and cutting, and the data modules that are made of them."""

import warnings

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.data import RealSequences, SequenceData
from kdzoo.errors import ConfigError, DataError

LENGTHS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


def made(lengths, size=2, start=1):
    """Sequences whose numbers count from ``start`` on, so that none is 0 and none comes twice."""
    sequences = []
    for length in lengths:
        sequences.append(torch.arange(start, start + length * size).reshape(length, size).float())
        start += length * size
    return sequences


class Counting(SequenceData):
    """Sequences of pairs; the longest of all is in the test part."""

    def __init__(self, lengths=LENGTHS, test=(12, 2), **options):
        super().__init__(**{"batch_size": 4, **options})
        self.three = [
            RealSequences.of(made(part, start=10 * k + 1), size=2) for k, part in enumerate((lengths, (), test))
        ]

    def read(self):
        return tuple(self.three)


def ready(data):
    data.setup()
    return data


ragged = st.lists(st.integers(1, 7), min_size=1, max_size=8)


@given(ragged, st.integers(1, 9), st.data())
@settings(max_examples=100, deadline=None)
def test_padding_keeps_every_step_and_nothing_else(lengths, width, data):
    sequences = made(lengths)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    inputs, mask = RealSequences.of(sequences, size=2).padded(torch.tensor(rows, dtype=torch.int64), width)
    assert inputs.shape == (len(rows), width, 2)
    assert mask.shape == (len(rows), width)
    for row, found, there in zip(rows, inputs, mask, strict=True):
        kept = min(lengths[row], width)
        assert there.tolist() == [True] * kept + [False] * (width - kept)
        assert torch.equal(found[:kept], sequences[row][:kept])
        assert not found[kept:].any()


@given(ragged, st.integers(1, 9), st.data())
@settings(max_examples=100, deadline=None)
def test_selecting_and_cutting_equal_those_of_lists(lengths, most, data):
    sequences = made(lengths)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    found = RealSequences.of(sequences, size=2).truncate(most).select(torch.tensor(rows, dtype=torch.int64))
    expected = [sequences[row][:most] for row in rows]
    assert found.lengths.tolist() == [len(one) for one in expected]
    assert torch.equal(found.steps, torch.cat([torch.empty(0, 2), *expected]))


def test_all_batches_are_padded_to_the_longest_of_all_parts():
    data = ready(Counting(eval_batch_size=3))
    assert data.sizes == {"in_shape": (12, 2)}
    assert data.lengths.tolist() == LENGTHS
    assert data.lengths.dtype == torch.int64
    expected = made(LENGTHS)
    for loader in (data.train_dataloader(), data.train_eval_dataloader()):
        seen = []
        for batch in loader:
            assert list(batch) == ["input", "mask", "index"]
            assert [batch[key].dtype for key in batch] == [torch.float32, torch.bool, torch.int64]
            assert batch["input"].shape[1:] == (12, 2)
            for row, one, mask in zip(batch["index"].tolist(), batch["input"], batch["mask"], strict=True):
                assert torch.equal(one[mask], expected[row])
                assert not one[~mask].any()
            seen += batch["index"].tolist()
        assert sorted(seen) == list(range(10))
    (test,) = data.test_dataloader()
    assert test["mask"].sum(1).tolist() == [12, 2]
    assert data.val_dataloader() == []
    assert data.summary() == {"n_train": 10, "n_labelled": 0, "n_val": 0, "n_test": 2, "num_classes": 0}


@pytest.mark.parametrize("max_steps", [3, 20])
def test_max_steps_is_the_length_of_all_batches(max_steps):
    data = ready(Counting(max_steps=max_steps))
    assert data.sizes == {"in_shape": (max_steps, 2)}
    assert data.lengths.tolist() == [min(length, max_steps) for length in LENGTHS]
    (batch,) = data.test_dataloader()
    assert batch["input"].shape == (2, max_steps, 2)
    assert batch["mask"].sum(1).tolist() == [min(12, max_steps), 2]


@pytest.mark.parametrize(("max_steps", "width"), [(None, 4), (3, 3)])
def test_a_trial_run_cuts_sequences(max_steps, width):
    data = Counting(max_steps=max_steps)
    data.max_sequence_length = 4
    assert ready(data).sizes == {"in_shape": (width, 2)}
    (batch,) = data.test_dataloader()
    assert batch["mask"].sum(1).tolist() == [width, 2]


def test_the_length_of_batches_does_not_depend_on_train_size():
    data = ready(Counting(lengths=[1, 1, 1, 1, 30], train_size=4, batch_size=2))
    assert data.sizes == {"in_shape": (30, 2)}
    assert len(data.lengths) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_training_continues_at_any_batch(workers):
    data = ready(Counting(seed=1))
    data.train_sampler.set_epoch(1)
    whole = list(data.train_dataloader())
    data = ready(Counting(seed=1, num_workers=workers))
    data.train_sampler.set_position(len(whole) + 1)
    rest = list(data.train_dataloader())
    assert len(rest) == len(whole) - 1 == 2
    for batch, expected in zip(rest, whole[1:], strict=True):
        assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_fingerprint_tells_lengths_and_width_apart():
    base = ready(Counting()).fingerprint()
    assert ready(Counting(seed=4, batch_size=3)).fingerprint() == base
    assert ready(Counting(max_steps=13)).fingerprint() != base
    assert ready(Counting(lengths=[4, *LENGTHS[1:2], 3, *LENGTHS[3:]])).fingerprint() != base
    assert ready(Counting(train_size=9)).fingerprint() != base


def test_a_trainer_trains_on_it():
    class Mean(pl.LightningModule):
        """Learns the mean of all steps, which padding would draw to 0."""

        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(2))

        def training_step(self, batch, _):
            return ((batch["input"] - self.mean)[batch["mask"]] ** 2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    model, data = Mean(), Counting(batch_size=10)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's recommendations for loaders and workers
        trainer = pl.Trainer(
            max_epochs=50, accelerator="cpu", use_distributed_sampler=False, enable_model_summary=False, **options
        )
        trainer.fit(model, datamodule=data)
    assert model.mean.tolist() == pytest.approx(torch.cat(made(LENGTHS)).mean(0).tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Counting(max_steps=0), ConfigError, "max_steps must be an integer >= 1, got 0"),
        (lambda: Counting(lengths=[]).setup(), DataError, "the train split is empty; allowed: at least 1 sample"),
        (lambda: Counting(test=[]).setup(), DataError, "the test split is empty; allowed: at least 1 sample"),
        (
            lambda: RealSequences(torch.ones(3, 2), torch.tensor([3, 0])),
            DataError,
            "sequence 1 has 0 steps; allowed: at least 1",
        ),
        (
            lambda: RealSequences(torch.ones(3, 2), torch.tensor([2, 2])),
            DataError,
            r"steps are \[3, 2\] for lengths that add up to 4; allowed: \[sum of lengths, d\]",
        ),
        (
            lambda: RealSequences(torch.ones(3), torch.tensor([3])),
            DataError,
            r"steps are \[3\] for lengths that add up to 3",
        ),
        (
            lambda: RealSequences(torch.tensor([[0.0], [torch.inf]]), torch.tensor([2])),
            DataError,
            "step input at index 1 holds NaN or infinity; allowed: finite numbers",
        ),
    ],
    ids=["max_steps", "no_train", "no_test", "empty_sequence", "wrong_sum", "flat_steps", "infinite"],
)
def test_invalid_sequences_and_options_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_vectors_have_one_size():
    data = Counting()
    data.three[2] = RealSequences.of(made([3], size=4), size=4)
    with pytest.raises(
        DataError, match=r"vectors of train, val and test have the sizes \[2, 2, 4\]; allowed: one size"
    ):
        data.setup()
