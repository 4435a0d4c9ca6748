"""Texts with classes, tokenised once, in batches that are padded to their longest text.

Batches have ``input`` ``[b, T]``, token ids with the special tokens and with the padding token at the end, and
``target`` ``[b]``, the class in 0..C-1. See :mod:`kdzoo.core.batch`.
"""

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.validation import flag, integer
from kdzoo.data.loading.class_labels import check_any_label, checked_ignore_index
from kdzoo.data.loading.grouping import LengthBatches
from kdzoo.data.loading.shares import share
from kdzoo.data.loading.split_data import DataSplit, DataSplits
from kdzoo.data.loading.splits import split_rows
from kdzoo.data.text.tables import MISSING, Table, classes_of, read_table, same_integers, with_missing
from kdzoo.data.text.tokenized import TokenizedData
from kdzoo.errors import DataError, KdzooWarning, shortened
from kdzoo.text.token_sequences import TokenSequences
from kdzoo.text.tokenizers import check_length, special_token_id, truncated_ids


class LabelledTexts(DataSplit):
    """A split of texts and their classes.

    Args:
        texts: Token ids of each text, at least one per text.
        targets: Classes, int64 ``[n]``; ``IGNORE`` where the label is missing.
        pad_id: Id of the padding token.
    """

    def __init__(self, texts: TokenSequences, targets: Tensor, pad_id: int) -> None:
        self.texts, self.targets, self.pad_id = texts, targets, pad_id

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Tensor) -> "LabelledTexts":
        """Return the texts at ``rows`` (int64 ``[m]``), in this order."""
        return LabelledTexts(self.texts.select(rows), self.targets[rows], self.pad_id)

    def truncate(self, length: int) -> "LabelledTexts":
        """Return the first ``length`` tokens of every text."""
        return LabelledTexts(self.texts.truncate(length), self.targets, self.pad_id)

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` ``[b, T]`` and ``target`` ``[b]``."""
        return {"input": self.texts.select(index).padded(self.pad_id), "target": self.targets[index]}

    def unlabelled(self) -> Tensor:
        """Return whether the label of each text is missing, bool ``[n]``."""
        return self.targets == IGNORE

    def content(self) -> Iterator[Tensor]:
        """Yield the lengths and the ids."""
        # The lengths too: the same ids divided into other texts are other inputs.
        yield from (self.texts.lengths, self.texts.tokens)


class ClassifiedTexts(TokenizedData[LabelledTexts]):
    """Texts with classes; a subclass implements ``read()`` and nothing else.

    The rows of a training batch are sorted by length, the longest first, so that micro-batches need less padding.

    Args:
        max_length: Number of tokens to which longer texts are truncated, special ones included, >= 3.
        val_size: Share of the training texts for val: a fraction in [0, 1) or a count; 0 for none.
        group_by_length: Make training batches of texts of similar length.
        options: See :class:`kdzoo.data.text.tokenized.TokenizedData`.

    Raises:
        ConfigError: An argument is out of range; where that depends on the data, in ``setup``.
        CheckpointError: In ``setup``, there is no such tokenizer.
        DataError: In ``setup``, the data are not valid.
    """

    def __init__(
        self, *, max_length: int = 128, val_size: float | int = 0.1, group_by_length: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.max_length = integer("max_length", max_length, 3)
        self.val_size = share("val_size", val_size)
        self.group_by_length = flag("group_by_length", group_by_length)
        self._classes: tuple[str, ...] = ()
        self._text_length = 0
        self._n_truncated = 0

    @abstractmethod
    def read(self) -> tuple[Table, Table]:
        """Return the texts and labels for train, from which val is taken, and for test."""

    def load_splits(self) -> DataSplits[LabelledTexts]:
        """Read, divide and tokenise the texts."""
        train_table, test_table = same_integers(self.read())
        self._classes = classes_of(train_table.labels)
        rows, val_rows = split_rows(len(train_table.texts), self.val_size)
        rows = rows.sort().values  # in the order of the file; split_rows returns them shuffled
        # Trained without the validation texts, on which layers and hyperparameters may be chosen.
        self.prepare_tokenizer(lambda: self.train_tokenizer([train_table.texts[row] for row in rows.tolist()]))
        self._n_truncated = 0
        check_length("max_length", self.max_length, self.tokenizer)
        train, test = self._tokenised(train_table, "train"), self._tokenised(test_table, "test")
        self._text_length = int(torch.cat([train.texts.lengths, test.texts.lengths]).max())
        check_any_label(train.targets[val_rows], "val")
        check_any_label(test.targets, "test")
        return DataSplits(train.select(rows), train.select(val_rows), test)

    def make_sampler(self, train: LabelledTexts) -> LengthBatches:
        """Return a sampler that puts the longest texts of a batch first, and may group texts by length."""
        lengths = train.texts.lengths
        options = {"n": len(lengths), "batch_size": self.batch_size, "seed": self.seed}
        return LengthBatches(lengths, self.group_by_length, **options)

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels of the classes 0..C-1, known after ``setup``."""
        return self._classes

    @property
    def sizes(self) -> dict[str, Any]:
        """``classes``, and what :meth:`token_sizes` returns."""
        return {**self.token_sizes(len(self.classes), self._text_length), "classes": self.classes}

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test, num_classes, and n_truncated, how many texts were cut, if any."""
        n_labelled = int((~self.splits.train.unlabelled()).sum())
        counts = {**self.labelled_summary(len(self.classes)), "n_labelled": n_labelled}
        return counts | ({"n_truncated": self._n_truncated} if self._n_truncated else {})

    def _tokenised(self, table: Table, name: str) -> LabelledTexts:
        """Return the rows of a table as token ids and classes."""
        class_of_label = {label: index for index, label in enumerate(self.classes)}
        # A class that is met for the first time in the test file would have no training texts.
        class_of_label[MISSING] = IGNORE
        unknown = next((label for label in table.labels if label not in class_of_label), None)
        if unknown is not None:
            known = shortened(", ".join(self.classes))
            raise DataError(f"{name} has the label {shortened(unknown)!r}; allowed: {known}, as in train")
        targets = torch.tensor([class_of_label[label] for label in table.labels])
        ids, n_truncated = truncated_ids(self.tokenizer, table.texts, self.max_length)
        texts = _as_sequences(ids)
        if n_truncated:
            self._n_truncated += n_truncated
            message = (
                f"{n_truncated:,} of {len(texts):,} {name} texts are cut to data.max_length={self.max_length} tokens"
            )
            warnings.warn(message, KdzooWarning, stacklevel=2)
        # A tokenizer that adds no special tokens may leave nothing of a text, and the mean over no tokens is undefined.
        if len(empty := (texts.lengths == 0).nonzero()):
            raise DataError(f"{name} text {int(empty[0])} has no tokens; allowed: at least 1")
        return LabelledTexts(texts, targets, special_token_id(self.tokenizer, "pad"))


class TextClasses(ClassifiedTexts):
    """The user's own texts with classes, from two files.

    Args:
        train_file: A .tsv or .csv file whose first line names its columns, or JSON lines (.jsonl, .json).
        test_file: A file of one of these formats; a label that is not in the training file is an error.
        text_field: Column of the text.
        label_field: Column of the label, any string or integer. Classes are numbered in the order of the labels: as
            integers if all of them are, else alphabetically. Texts may lack a label
            (:func:`kdzoo.data.text.tables.read_table`).
        ignore_index: The integer that stands for a missing label.
        options: See :class:`ClassifiedTexts`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, a file is missing or not valid.
    """

    def __init__(
        self,
        *,
        train_file: str | Path,
        test_file: str | Path,
        text_field: str = "text",
        label_field: str = "label",
        ignore_index: int = IGNORE,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.ignore_index = checked_ignore_index(ignore_index)
        self.files = train_file, test_file
        self.fields = text_field, label_field

    def read(self) -> tuple[Table, Table]:
        """Read both files."""
        train, test = (read_table(file, *self.fields) for file in self.files)
        train, test = (Table(texts, with_missing(labels, self.ignore_index)) for texts, labels in (train, test))
        return train, test


def _as_sequences(rows: Sequence[Sequence[int]]) -> TokenSequences:
    """Return lists of ids as token sequences.

    ``TokenSequences.of`` makes a tensor of each list, which is much slower for tens of thousands of texts.
    """
    tokens, lengths = [token for row in rows for token in row], [len(row) for row in rows]
    return TokenSequences(torch.tensor(tokens, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64))
