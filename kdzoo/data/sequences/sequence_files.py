"""A user's own strings, from two text files."""

from pathlib import Path
from typing import Any

import torch

from kdzoo.automata.exchange.lines import Line, read_lines
from kdzoo.data.loading.splits import SplitPlan
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData, split_train_val
from kdzoo.text.token_sequences import TokenSequences


class TokenSequenceFiles(TokenSequenceData):
    """Two text files with a string on each line, its tokens separated by white space; an empty line is empty.

    Where all tokens of the training file are integers >= 0, they are taken as they are, and S is the largest + 1.
    Otherwise tokens are words, numbered in alphabetical order.

    Args:
        train_file: path of the training file.
        test_file: path of the test file; a token that is not in the training file is an error.
        val_size: part of the training strings that is set aside: a fraction in [0, 1) or a count; 0 for none.
        train_size: train on so many strings only, always the same ones; None for all.
        options: see :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.

    Raises:
        ConfigError: an option is out of range.
        DataError: in ``setup``, a file is missing or has a token that is unknown.
    """

    def __init__(
        self,
        *,
        train_file: str | Path,
        test_file: str | Path,
        val_size: float | int = 0.1,
        train_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.files = Path(train_file), Path(test_file)
        self.plan = SplitPlan(val_size, train_size)

    def load(self) -> Corpus:
        """Read both files."""
        given, test = (list(read_lines(file)) for file in self.files)
        symbols = symbols_of(given)
        train, val = split_train_val(_strings(given, symbols), self.plan)
        return Corpus(train, val, _strings(test, symbols), symbols)


def symbols_of(lines: list[Line]) -> tuple[str, ...]:
    """Return the names of the tokens 0..S-1: integers up to the largest, or the words in alphabetical order.

    Example:
        >>> [symbols_of([Line.of(text, Path("a"), 1)]) for text in ("2 0", "b a 1")]
        [('0', '1', '2'), ('1', 'a', 'b')]
    """
    words = {word for line in lines for word in line.split()}
    if words and all(word.isascii() and word.isdigit() for word in words):
        return tuple(map(str, range(1 + max(map(int, words)))))
    return tuple(sorted(words))


def _strings(lines: list[Line], symbols: tuple[str, ...]) -> TokenSequences:
    number = {symbol: token for token, symbol in enumerate(symbols)}
    tokens: list[int] = []
    for line in lines:
        for word in line.split():
            known = str(int(word)) if word.isascii() and word.isdigit() and word not in number else word
            if known not in number:
                line.refuse(f"has the token {word!r}; allowed: the {len(symbols)} of the training file")
            tokens.append(number[known])
    lengths = [len(line.split()) for line in lines]
    return TokenSequences(torch.tensor(tokens, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64))
