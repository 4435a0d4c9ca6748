"""The base of every data set of strings: parts, batches padded to their longest string, loaders.

S tokens 0..S-1; token S ends a string and begins every input, so V = S + 1. T is 1 + the batch's longest string.

======  =====================  =========================================================================
input   int64 [b, T]           the begin marker S, then the tokens; S where padded
target  int64 [b, T]           the next token, S at the end of the string; ``IGNORE`` where padded, and at
                               the end of a piece of a longer text
index   int64 [b]              position in the training part (or in the val or test part)
mask    bool [b, T]            the string's points: before its first token and after each; not the padding
truth   float64 [b, T, V]      val and test batches of a known source: its log-probabilities of the next
                               token after each prefix, -inf for what is impossible; uniform where padded
======  =====================  =========================================================================
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdzoo.automata.pfa import PFA
from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.samplers import EpochBatches, check_batch_size
from kdzoo.core.validation import integer
from kdzoo.data.loading.batch_loader import batch_loader
from kdzoo.data.loading.fingerprint import hash_inputs
from kdzoo.data.loading.splits import SplitPlan, split_rows, take_rows
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences


@dataclass(frozen=True)
class Corpus:
    """TokenSequences in three parts, and what is known of them.

    Args:
        train: at least one string.
        val: may have no strings.
        test: at least one string.
        symbols: what the tokens 0..S-1 stand for.
        truth: the automaton that the strings were drawn from, if it is known.
        has_ends: whether a string's end is predicted; False where strings are pieces of one text.

    Raises:
        DataError: the train or test part is empty, or a token is outside 0..S-1.
    """

    train: TokenSequences
    val: TokenSequences
    test: TokenSequences
    symbols: tuple[str, ...]
    truth: PFA | None = None
    has_ends: bool = True

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            part: TokenSequences = getattr(self, name)
            if not len(part) and name != "val":
                raise DataError(f"the {name} part is empty; allowed: at least 1 string")
            try:
                part.check(self.vocab_size)
            except DataError as error:
                raise DataError(f"{name}: {error}") from None

    @property
    def vocab_size(self) -> int:
        """Number of tokens V with the end token."""
        return len(self.symbols) + 1


class PaddedBatches(Dataset[Batch]):
    """TeacherOutputs ``dataset[epoch, indices]`` with a batch of strings, padded to the longest of them.

    Args:
        strings: the strings.
        vocab_size: V.
        has_ends: whether the end of a string is a target.
        truth: adds the log-probabilities of this automaton.

    Example:
        >>> batch = PaddedBatches(TokenSequences.of([[0, 1], [1]]), 3)[0, torch.tensor([1, 0])]
        >>> batch["input"].tolist(), batch["target"].tolist()
        ([[2, 1, 2], [2, 0, 1]], [[1, 2, -100], [0, 1, 2]])
    """

    def __init__(
        self, strings: TokenSequences, vocab_size: int, has_ends: bool = True, truth: PFA | None = None
    ) -> None:
        self.strings = strings
        self.vocab_size = vocab_size
        self.has_ends = has_ends
        self.truth = truth

    def __len__(self) -> int:
        return len(self.strings)

    def __getitem__(self, key: tuple[int, Tensor]) -> Batch:
        try:
            _, index = key
        except TypeError:
            problem = "the train loader's sampler was replaced; allowed: Trainer(use_distributed_sampler=False)"
            raise ConfigError(problem) from None
        inputs, targets = self.strings.select(index).inputs_and_targets(self.vocab_size)
        mask = targets != IGNORE
        if not self.has_ends:
            targets = targets.masked_fill(targets == self.vocab_size - 1, IGNORE)
        batch = {"input": inputs, "target": targets, "index": index, "mask": mask}
        return batch if self.truth is None else {**batch, "truth": self.truth(inputs)}


class TokenSequenceData(BatchData):
    """TokenSequences held in memory; a subclass writes ``load()`` and nothing else.

    Args:
        batch_size: strings of a global training batch, over all processes, 1..n_train.
        seed: decides on the order.
        eval_batch_size: strings of an evaluation batch, >= 1.
        num_workers: processes that prepare training batches, >= 0; 0 is fastest for most.

    Raises:
        ConfigError: an argument is out of range, at once or, where it depends on the data, in ``setup``.
        DataError: in ``setup``, the data are unfit.
    """

    def __init__(
        self, *, batch_size: int = 64, seed: int = 0, eval_batch_size: int = 512, num_workers: int = 0
    ) -> None:
        super().__init__()
        self.batch_size = integer("batch_size", batch_size, 1)
        self.seed = integer("seed", seed, 0)
        self.eval_batch_size = integer("eval_batch_size", eval_batch_size, 1)
        self.num_workers = integer("num_workers", num_workers, 0)
        self._corpus: Corpus | None = None
        self._fingerprint: str | None = None

    @abstractmethod
    def load(self) -> Corpus:
        """Return the strings and what is known of them."""

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the parts are made together
        """Load and check the strings once, and take this process's share of the batches."""
        if self._corpus is None:
            corpus = self.load()
            check_batch_size(self.batch_size, len(corpus.train))
            self.train_sampler = EpochBatches(len(corpus.train), self.batch_size, self.seed)
            self._corpus = corpus
        self.train_sampler.set_share(*self._share())

    @property
    def corpus(self) -> Corpus:
        """The strings, loaded by ``setup``."""
        if self._corpus is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._corpus

    @property
    def truth(self) -> PFA | None:
        """The automaton that the strings were drawn from, if it is known."""
        return self.corpus.truth

    @property
    def symbols(self) -> tuple[str, ...]:
        """What the tokens 0..S-1 stand for."""
        return self.corpus.symbols

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the shuffled training batches of this process."""
        corpus = self.corpus
        dataset = PaddedBatches(corpus.train, corpus.vocab_size, corpus.has_ends)
        return batch_loader(dataset, self.train_sampler, num_workers=self.num_workers)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the training strings in index order, all of them in every process."""
        return self._plain_loader(self.corpus.train, None)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return the val strings in order, all of them in every process; an empty list if there are none."""
        return self._plain_loader(self.corpus.val, self.truth) if len(self.corpus.val) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test strings in order, all of them in every process."""
        return self._plain_loader(self.corpus.test, self.truth)

    @property
    def sizes(self) -> dict[str, Any]:
        """``num_classes`` and ``vocab_size`` (both V)."""
        return {"num_classes": self.corpus.vocab_size, "vocab_size": self.corpus.vocab_size}

    @property
    def is_augmented(self) -> bool:
        """False: training strings never change."""
        return False

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the training strings in order."""
        if self._fingerprint is None:
            train = self.corpus.train
            head = torch.tensor([self.corpus.vocab_size, len(train)])
            self._fingerprint = hash_inputs([head, train.lengths, train.tokens])
        return self._fingerprint

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes; every string is its own label."""
        corpus = self.corpus
        return {
            "n_train": len(corpus.train),
            "n_labelled": len(corpus.train),
            "n_val": len(corpus.val),
            "n_test": len(corpus.test),
            "num_classes": corpus.vocab_size,
        }

    def _plain_loader(self, strings: TokenSequences, truth: PFA | None) -> DataLoader[Batch]:
        sampler = EpochBatches(len(strings), self.eval_batch_size, seed=0, shuffle=False)
        return batch_loader(PaddedBatches(strings, self.corpus.vocab_size, self.corpus.has_ends, truth), sampler)


def split_train_val(strings: TokenSequences, plan: SplitPlan) -> tuple[TokenSequences, TokenSequences]:
    """Return the train and the val part of the given strings, the same ones for every seed.

    Raises:
        ConfigError: no string would be left to train on, or there are not so many.
    """
    rows, val_rows = split_rows(len(strings), plan.val_size)
    return strings.select(take_rows(rows, plan.train_size)), strings.select(val_rows)
