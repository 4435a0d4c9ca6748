"""The base of data modules of token sequences: three splits, batches padded to their longest sequence, loaders.

Notation: S tokens 0..S-1; the symbol S ends a sequence and begins every input, so V = S + 1. T is 1 + the length of the
longest sequence of a batch.

For the batches see :mod:`kdzoo.core.batch`. Where the sequences are chunks of a longer text, the target at the end of a
chunk is ``IGNORE``. The mask contains the positions before the first token and after each; it is False where padded.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdzoo.automata.pfa import PFA
from kdzoo.core.batch import IGNORE, Batch
from kdzoo.data.loading.split_data import DataSplit, DataSplits, SplitDataModule
from kdzoo.data.loading.splits import SplitPlan, split_rows, take_rows
from kdzoo.errors import DataError
from kdzoo.text.token_sequences import TokenSequences


@dataclass(frozen=True)
class Corpus:
    """Token sequences in three splits, and what is known about them.

    Args:
        train: At least one sequence.
        val: Any number of sequences.
        test: At least one sequence.
        symbols: Names of the tokens 0..S-1.
        truth: The automaton that the sequences were drawn from; None if it is not known.
        has_ends: Whether the end of a sequence is predicted; False if sequences are chunks of one text.

    Raises:
        DataError: The train or test split is empty, or a token is outside 0..S-1.
    """

    train: TokenSequences
    val: TokenSequences
    test: TokenSequences
    symbols: tuple[str, ...]
    truth: PFA | None = None
    has_ends: bool = True

    def __post_init__(self) -> None:
        for name, sequences in (("train", self.train), ("val", self.val), ("test", self.test)):
            if not len(sequences) and name != "val":
                raise DataError(f"the {name} split is empty; allowed: at least 1 sequence")
            try:
                sequences.check(self.vocab_size)
            except DataError as error:  # again, with the name of the split
                raise DataError(f"{name}: {error}") from None

    @property
    def vocab_size(self) -> int:
        """Number of symbols V: the tokens and the end."""
        return len(self.symbols) + 1


class PaddedTokenSequences(DataSplit):
    """A split of token sequences whose batches are padded to their longest sequence.

    Args:
        sequences: The token sequences.
        vocab_size: Number of tokens V with the end token.
        has_ends: Whether the end of a sequence is a target.
        truth: The automaton whose log-probabilities are added to batches; None adds nothing.

    Example:
        >>> batch = PaddedTokenSequences(TokenSequences.of([[0, 1], [1]]), 3).batch(torch.tensor([1, 0]))
        >>> batch["input"].tolist(), (batch["target"] == IGNORE).tolist()
        ([[2, 1, 2], [2, 0, 1]], [[False, False, True], [False, False, False]])
    """

    def __init__(
        self, sequences: TokenSequences, vocab_size: int, has_ends: bool = True, truth: PFA | None = None
    ) -> None:
        self.sequences = sequences
        self.vocab_size = vocab_size
        self.has_ends = has_ends
        self.truth = truth

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, rows: Tensor) -> "PaddedTokenSequences":
        """Return the sequences at ``rows`` (int64 ``[m]``), in this order."""
        return PaddedTokenSequences(self.sequences.select(rows), self.vocab_size, self.has_ends, self.truth)

    def truncate(self, length: int) -> "PaddedTokenSequences":
        """Return the first ``length`` tokens of every sequence; sequences whose end is predicted are not cut."""
        if self.has_ends:
            return self
        return PaddedTokenSequences(self.sequences.truncate(length), self.vocab_size, False, self.truth)

    def batch(self, index: Tensor) -> Batch:
        """Return ``input``, ``target`` and ``mask`` ``[b, T]``, and ``truth`` ``[b, T, V]`` if there is one."""
        inputs, targets = self.sequences.select(index).inputs_and_targets(self.vocab_size)
        # The mask comes before the ends are hidden: the position after the last token is valid, only unlabelled.
        mask = targets != IGNORE
        if not self.has_ends:
            targets = targets.masked_fill(targets == self.vocab_size - 1, IGNORE)
        batch = {"input": inputs, "target": targets, "mask": mask}
        return batch if self.truth is None else {**batch, "truth": self.truth(inputs)}

    def content(self) -> list[Tensor]:
        """Return the sizes, the lengths and the tokens."""
        # The vocabulary size is part of the inputs: it is the id of the begin marker.
        head = torch.tensor([self.vocab_size, len(self)])
        return [head, self.sequences.lengths, self.sequences.tokens]


class TokenSequenceData(SplitDataModule[PaddedTokenSequences]):
    """Token sequences held in memory; a subclass implements ``load()`` and nothing else.

    Args:
        batch_size: Sequences of a global training batch, over all processes, in 1..n_train.
        seed: Decides the order of the training sequences.
        eval_batch_size: Sequences of an evaluation batch, >= 1. It bounds memory and has no effect on results.
        num_workers: Processes that prepare training batches, >= 0; 0 is fastest for most.

    Raises:
        ConfigError: If an argument is out of range; where that depends on the data, in ``setup``.
        DataError: In ``setup``, if the data are not valid.
    """

    def __init__(
        self, *, batch_size: int = 64, seed: int = 0, eval_batch_size: int = 512, num_workers: int = 0
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, eval_batch_size=eval_batch_size, num_workers=num_workers)
        self._corpus: Corpus | None = None

    @abstractmethod
    def load(self) -> Corpus:
        """Return the token sequences and what is known about them."""

    def load_splits(self) -> DataSplits[PaddedTokenSequences]:
        """Load the corpus; batches of val and test contain the true log-probabilities if they are known."""
        corpus = self._corpus = self.load()
        size, has_ends = corpus.vocab_size, corpus.has_ends
        return DataSplits(
            # Without the truth: a student must not be able to see it, and computing it would slow training down.
            PaddedTokenSequences(corpus.train, size, has_ends),
            PaddedTokenSequences(corpus.val, size, has_ends, corpus.truth),
            PaddedTokenSequences(corpus.test, size, has_ends, corpus.truth),
        )

    @property
    def corpus(self) -> Corpus:
        """The token sequences, loaded by ``setup``."""
        if self._corpus is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._corpus

    @property
    def truth(self) -> PFA | None:
        """The automaton that the sequences were drawn from, if it is known."""
        return self.corpus.truth

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the tokens 0..S-1."""
        return self.corpus.symbols

    @property
    def sizes(self) -> dict[str, Any]:
        """``num_classes`` and ``vocab_size`` (both V)."""
        return {"num_classes": self.corpus.vocab_size, "vocab_size": self.corpus.vocab_size}

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes; every sequence is its own label."""
        counts = super().summary()
        return {**counts, "n_labelled": counts["n_train"], "num_classes": self.corpus.vocab_size}


def split_train_val(sequences: TokenSequences, plan: SplitPlan) -> tuple[TokenSequences, TokenSequences]:
    """Return the train and the val split of sequences, which are the same for every seed.

    Args:
        sequences: The sequences of a training file.
        plan: Its ``val_size`` and ``train_size`` are used.

    Raises:
        ConfigError: No sequence would be left to train on, or there are fewer than asked for.
    """
    # ``take_rows`` uses a prefix of the random order, so that a smaller train_size is a subset of a larger one.
    rows, val_rows = split_rows(len(sequences), plan.val_size)
    return sequences.select(take_rows(rows, plan.train_size)), sequences.select(val_rows)
