"""Texts with classes, tokenised once, in batches padded to their longest text.

Batches have ``input`` ``[b, T]``, the ids with the special tokens and the padding token at the end, and ``target``
``[b]``, the class in 0..C-1. See :mod:`kdzoo.core.batch`.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.batch import Batch
from kdzoo.core.validation import flag, integer
from kdzoo.data.loading.grouping import LengthBatches
from kdzoo.data.loading.shares import share
from kdzoo.data.loading.split_data import DataSplit, DataSplits, SplitDataModule
from kdzoo.data.loading.splits import split_rows
from kdzoo.data.text.blocks import sizes_of
from kdzoo.data.text.tables import Table, classes_of, read_table
from kdzoo.errors import DataError
from kdzoo.text.token_sequences import TokenSequences
from kdzoo.text.tokenizers import check_length, load_tokenizer, special_token_id, token_ids, train_tokenizer


class LabelledTexts(DataSplit):
    """Texts and their classes.

    Args:
        texts: the ids of each text, at least one of them.
        targets: int64 [n].
        pad_id: what batches are padded with.
    """

    def __init__(self, texts: TokenSequences, targets: Tensor, pad_id: int) -> None:
        self.texts, self.targets, self.pad_id = texts, targets, pad_id

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Tensor) -> "LabelledTexts":
        """Return the texts at ``rows`` (int64 [m]), in this order."""
        return LabelledTexts(self.texts.select(rows), self.targets[rows], self.pad_id)

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` [b, T] and ``target`` [b]."""
        return {"input": self.texts.select(index).padded(self.pad_id), "target": self.targets[index]}

    def content(self) -> Iterator[Tensor]:
        """Yield the lengths and the ids."""
        yield from (self.texts.lengths, self.texts.tokens)


class ClassifiedTexts(SplitDataModule[LabelledTexts]):
    """Texts with classes; a subclass writes ``read()`` and nothing else.

    The rows of a training batch are in the order of their lengths, the longest first, so that what is computed in
    parts needs less padding.

    Args:
        tokenizer: local folder or cached name of a Hugging Face tokenizer; None trains one on the training texts.
        vocab_size: tokens at most of the one that is trained.
        lowercase: whether capital letters make no difference to the one that is trained.
        max_length: tokens to which longer texts are cut, special ones included, >= 3.
        val_size: part of the training texts that is set aside: a fraction in [0, 1) or a count; 0 for none.
        group_by_length: make training batches of texts of similar length.
        options: see :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: an argument is out of range, at once or, where it depends on the data, in ``setup``; the extra
            `kdzoo[text]` is not installed.
        CheckpointError: in ``setup``, there is no such tokenizer.
        DataError: in ``setup``, the data are unfit.
    """

    def __init__(
        self,
        *,
        tokenizer: str | Path | None = None,
        vocab_size: int = 8000,
        lowercase: bool = True,
        max_length: int = 128,
        val_size: float | int = 0.1,
        group_by_length: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.tokenizer_path = tokenizer
        self.vocab_size = integer("vocab_size", vocab_size, 6)
        self.lowercase = flag("lowercase", lowercase)
        self.max_length = integer("max_length", max_length, 3)
        self.val_size = share("val_size", val_size)
        self.group_by_length = flag("group_by_length", group_by_length)
        self._tokenizer: Any = None
        self._classes: tuple[str, ...] = ()

    @abstractmethod
    def read(self) -> tuple[Table, Table]:
        """Return the texts and labels of train, from which val is taken, and of test."""

    def load_splits(self) -> DataSplits[LabelledTexts]:
        """Read the texts, divide and tokenise them."""
        train, test = self.read()
        self._classes = classes_of(train.labels)
        rows, val_rows = split_rows(len(train.texts), self.val_size)
        rows = rows.sort().values
        if self.tokenizer_path is None:
            texts = [train.texts[row] for row in rows.tolist()]
            self._tokenizer = train_tokenizer(texts, self.vocab_size, lowercase=self.lowercase)
        else:
            self._tokenizer = load_tokenizer(self.tokenizer_path)
        check_length("max_length", self.max_length, self.tokenizer)
        given = self._part(train, "train")
        return DataSplits(given.select(rows), given.select(val_rows), self._part(test, "test"))

    def make_sampler(self, train: LabelledTexts) -> LengthBatches:
        """Return a sampler that puts the longest texts of a batch first, and may group texts by length."""
        lengths = train.texts.lengths
        options = {"n": len(lengths), "batch_size": self.batch_size, "seed": self.seed}
        return LengthBatches(lengths, self.group_by_length, **options)

    @property
    def tokenizer(self) -> Any:
        """The ``transformers.PreTrainedTokenizerFast``, loaded or trained by ``setup``."""
        if self._tokenizer is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._tokenizer

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that 0..C-1 stand for, known after ``setup``."""
        return self._classes

    @property
    def sizes(self) -> dict[str, Any]:
        """``num_classes``, ``vocab_size``, ``pad_id``, and ``tokenizer``, what tells it from others."""
        return sizes_of(self.tokenizer, len(self.classes))

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes."""
        found = super().summary()
        return {**found, "n_labelled": found["n_train"], "num_classes": len(self.classes)}

    def _part(self, table: Table, name: str) -> LabelledTexts:
        number = {label: place for place, label in enumerate(self.classes)}
        unknown = next((label for label in table.labels if label not in number), None)
        if unknown is not None:
            raise DataError(f"{name} has the label {unknown!r}; allowed: {', '.join(self.classes)}, as in train")
        targets = torch.tensor([number[label] for label in table.labels])
        texts = _strings(token_ids(self.tokenizer, table.texts, self.max_length))
        if len(empty := (texts.lengths == 0).nonzero()):
            raise DataError(f"{name} text {int(empty[0])} has no token; allowed: at least 1")
        return LabelledTexts(texts, targets, special_token_id(self.tokenizer, "pad"))


class TextClasses(ClassifiedTexts):
    """A user's own texts with classes, from two files.

    Args:
        train_file: a .tsv or .csv file that begins with the names of its columns, or JSON lines (.jsonl, .json).
        test_file: the like; a label that is not in the training file is an error.
        text_field: the column of the text.
        label_field: the column of the label, any string or integer. Classes are numbered in the order of the labels:
            as integers if all of them are, else by the alphabet.
        options: see :class:`ClassifiedTexts`.

    Raises:
        ConfigError: an option is out of range.
        DataError: in ``setup``, a file is missing or unfit.
    """

    def __init__(
        self,
        *,
        train_file: str | Path,
        test_file: str | Path,
        text_field: str = "text",
        label_field: str = "label",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.files = train_file, test_file
        self.fields = text_field, label_field

    def read(self) -> tuple[Table, Table]:
        """Read both files."""
        train, test = (read_table(file, *self.fields) for file in self.files)
        return train, test


def _strings(rows: Sequence[Sequence[int]]) -> TokenSequences:
    """Return ids as strings; much faster than a tensor for each."""
    tokens, lengths = [one for row in rows for one in row], [len(row) for row in rows]
    return TokenSequences(torch.tensor(tokens, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64))
