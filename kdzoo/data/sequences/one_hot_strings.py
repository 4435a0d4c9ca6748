"""The user's own strings as tables of one-hot vectors, all of one size, for models of samples of fixed shape."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from kdzoo.core.validation import integer
from kdzoo.data.loading.split_data import DataSplits
from kdzoo.data.loading.splits import SplitPlan
from kdzoo.data.points.point_data import PointData, Points
from kdzoo.data.sequences.sequence_files import read_corpus
from kdzoo.text.token_sequences import TokenSequences


class OneHotStrings(PointData):
    """Two text files of strings, each as float32 ``[length, V]``: one-hot vectors of S tokens and the end, V = S + 1.

    A string has its tokens first; the end fills the other positions. A longer string is cut. The files are those of
    :class:`kdzoo.data.TokenSequenceFiles`.

    Args:
        train_file: Path of the training file.
        test_file: Path of the test file; a token that is not in the training file is an error.
        length: Number of positions, >= 1.
        val_size: Share of the training strings for val: a fraction in [0, 1) or a count; 0 for none.
        options: See :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, a file is missing or has an unknown token.
    """

    def __init__(
        self,
        *,
        train_file: str | Path,
        test_file: str | Path,
        length: int = 20,
        val_size: float | int = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.files = Path(train_file), Path(test_file)
        self.length = integer("length", length)
        self.plan = SplitPlan(val_size, None)

    def load_splits(self) -> DataSplits[Points]:
        """Read both files."""
        corpus = read_corpus(*self.files, self.plan)
        splits = (corpus.train, corpus.val, corpus.test)
        return DataSplits(*(Points(one_hot_strings(split, corpus.vocab_size, self.length)) for split in splits))

    def summaries(self, samples: Tensor, lengths: Tensor | None = None) -> Tensor:  # noqa: ARG002 - of the protocol
        """Return the share of each symbol in the first and in the second half of strings, ``[n, 2 V]``.

        Args:
            samples: Strings ``[n, length, V]``.
            lengths: Has no effect, since the end is a symbol.
        """
        half = (samples.shape[1] + 1) // 2
        return torch.cat([samples[:, :half].mean(1), samples[:, -half:].mean(1)], 1)


def one_hot_strings(strings: TokenSequences, vocab_size: int, length: int) -> Tensor:
    """Return strings as float32 ``[n, length, V]``: tokens first, then the end V - 1.

    Example:
        >>> one_hot_strings(TokenSequences.of([[1], [0, 1, 0]]), 3, 2).argmax(2).tolist()
        [[1, 2], [0, 1]]
    """
    # The end as an extra sequence of full length makes every row long enough.
    filled = TokenSequences.cat([strings.truncate(length), TokenSequences.of([[vocab_size - 1] * length])])
    return one_hot(filled.padded(vocab_size - 1)[:-1], vocab_size).float()
