"""The base of token-sequence data: padding, order, fingerprints, and refusals."""

import warnings

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.core.batch import labels
from kdzoo.data import IGNORE, UHL, Corpus, RandomAutomaton, Reber, TokenSequenceData, Tomita
from kdzoo.data.loading.split_data import SplitBatches
from kdzoo.data.sequences.token_sequence_data import PaddedTokenSequences
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences, token_sequences_of

N = 22


class Numbered(TokenSequenceData):
    """Sequences whose first token is their index."""

    def __init__(self, has_ends=True, n_val=3, **options):
        super().__init__(**{"batch_size": 4, **options})
        self.has_ends, self.n_val = has_ends, n_val

    def load(self):
        part = [TokenSequences.of([[i, *[0] * (i % 4)] for i in range(n)]) for n in (N, self.n_val, 5)]
        return Corpus(*part, symbols=tuple(map(str, range(N))), has_ends=self.has_ends)


def ready(data):
    data.setup()
    return data


def numbers(loader):
    return [int(row[1]) for batch in loader for row in batch["input"]]


def test_batches_are_padded_to_their_longest_sequence():
    data = ready(Numbered())
    assert data.sizes == {"num_classes": N + 1, "vocab_size": N + 1}
    seen = []
    for batch in data.train_dataloader():
        assert list(batch) == ["input", "target", "mask", "index"]
        sequences = data.corpus.train.select(batch["index"])
        assert batch["input"].shape == batch["target"].shape == batch["mask"].shape
        assert batch["input"].shape[1] == 1 + int(sequences.lengths.max())
        assert (batch["input"][:, 0] == N).all()
        assert torch.equal(batch["mask"], torch.arange(batch["mask"].shape[1]) <= sequences.lengths[:, None])
        assert torch.equal(batch["mask"], batch["target"] != IGNORE)
        assert token_sequences_of(batch).to_lists() == sequences.to_lists()
        assert labels(batch).tolist() == [t for one in sequences.to_lists() for t in [*one, N]]
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(N))


def test_ends_of_chunks_are_not_predicted():
    batch = PaddedTokenSequences(TokenSequences.of([[0, 1], [1]]), 3, has_ends=False).batch(torch.tensor([0, 1]))
    assert batch["target"].tolist() == [[0, 1, IGNORE], [1, IGNORE, IGNORE]]
    assert token_sequences_of(batch).to_lists() == [[0, 1], [1]]
    (whole,) = ready(Numbered(has_ends=False, eval_batch_size=100)).train_eval_dataloader()
    assert not (whole["target"] == N).any()


def test_evaluation_loaders_keep_the_order_and_draw_no_random_numbers():
    data = ready(Numbered(seed=3, eval_batch_size=10))
    before = torch.get_rng_state()
    assert numbers(data.train_eval_dataloader()) == list(range(N))
    assert numbers(data.val_dataloader()) == [0, 1, 2]
    assert numbers(data.test_dataloader()) == list(range(5))
    first = numbers(data.train_dataloader())
    assert first != list(range(N))
    assert first == numbers(ready(Numbered(seed=3)).train_dataloader())
    assert first != numbers(ready(Numbered(seed=4)).train_dataloader())
    assert torch.equal(before, torch.get_rng_state())
    assert ready(Numbered(n_val=0)).val_dataloader() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_training_continues_at_any_batch(workers):
    data = ready(Numbered(seed=1))
    data.train_sampler.set_epoch(1)
    whole = list(data.train_dataloader())
    data = ready(Numbered(seed=1, num_workers=workers))
    data.train_sampler.set_position(len(whole) + 2)
    rest = list(data.train_dataloader())
    assert len(rest) == len(whole) - 2 == 4
    for batch, expected in zip(rest, whole[2:], strict=True):
        assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_a_trainer_trains_on_it():
    class Unigram(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(8))

        def training_step(self, batch, _):
            flat = batch["target"].flatten()
            return nn.functional.cross_entropy(self.logits.expand(len(flat), -1), flat)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=5.0)

    model = Unigram()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's recommendations for loaders and workers
        trainer = pl.Trainer(
            max_epochs=3, accelerator="cpu", use_distributed_sampler=False, enable_model_summary=False, **options
        )
        trainer.fit(model, datamodule=Reber(n_train=300))
    train = ready(Reber(n_train=300)).corpus.train
    expected = torch.bincount(train.tokens, minlength=8).double()
    expected[7] = len(train)
    assert model.logits.softmax(0).tolist() == pytest.approx((expected / expected.sum()).tolist(), abs=0.05)


def test_the_fingerprint_depends_on_the_training_sequences_alone():
    base = ready(Reber(n_train=100, batch_size=10)).fingerprint()
    assert ready(Reber(n_train=100, n_test=5, batch_size=3)).fingerprint() == base
    assert ready(Reber(n_train=100, seed=1)).fingerprint() != base
    one, other = (PaddedData([[0, 1], [1]]), PaddedData([[0], [1, 1]]))
    assert ready(one).fingerprint() != ready(other).fingerprint()


class PaddedData(TokenSequenceData):
    """Two sequences."""

    def __init__(self, rows):
        super().__init__(batch_size=1)
        self.rows = TokenSequences.of(rows)

    def load(self):
        return Corpus(self.rows, self.rows, self.rows, ("a", "b"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Reber(n_train=0), ConfigError, "n_train must be an integer >= 1, got 0"),
        (lambda: Reber(n_val=-1), ConfigError, "n_val must be an integer >= 0"),
        (lambda: Reber(n_test=0), ConfigError, "n_test must be an integer >= 1"),
        (lambda: Reber(max_length=0), ConfigError, "max_length must be an integer >= 1"),
        (lambda: Reber(eval_batch_size=0), ConfigError, "eval_batch_size must be an integer >= 1"),
        (lambda: Reber(num_workers=-1), ConfigError, "num_workers must be an integer >= 0"),
        (lambda: Reber(seed=-1), ConfigError, "seed must be an integer >= 0"),
        (
            lambda: ready(Reber(n_train=10, batch_size=11)),
            ConfigError,
            "batch_size=11 is larger than the 10 training samples; allowed: 1..10",
        ),
        (lambda: Tomita(language=8), ConfigError, "language must be an integer in 1..7"),
        (lambda: UHL(language=0), ConfigError, "language must be an integer in 1..3"),
        (lambda: RandomAutomaton(kind="dfa"), ConfigError, "kind must be one of pdfa, pnfa, hmm, got 'dfa'"),
        (lambda: RandomAutomaton(target_seed=-1), ConfigError, "target_seed must be an integer >= 0"),
        (
            lambda: RandomAutomaton(transition_density=0.1),
            ConfigError,
            "transition_density=0.1 has no meaning for a pdfa; allowed: null",
        ),
        (
            lambda: ready(PaddedData([[0], [2]])),
            DataError,
            r"train: sequence 1 has token 2 at position 0; allowed: 0\.\.1",
        ),
        (lambda: ready(PaddedData([])), DataError, "the train split is empty; allowed: at least 1 sequence"),
        (
            lambda: SplitBatches(PaddedTokenSequences(TokenSequences.of([[0]]), 2))[3],
            ConfigError,
            "the train loader's sampler was replaced",
        ),
    ],
)
def test_invalid_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_before_setup():
    with pytest.raises(RuntimeError, match=r"call Reber.setup\(\) first"):
        Reber().sizes  # noqa: B018


@pytest.mark.parametrize(("has_ends", "longest"), [(True, 4), (False, 2)])
def test_a_trial_run_cuts_sequences_whose_end_is_not_predicted(has_ends, longest):
    data = Numbered(has_ends)
    data.max_sequence_length = 2
    ready(data)
    assert int(data.splits.train.sequences.lengths.max()) == longest
    assert numbers(data.train_eval_dataloader()) == list(range(N))
