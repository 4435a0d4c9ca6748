"""The user's own token sequences, from two text files."""

from pathlib import Path
from typing import Any

import torch

from kdzoo.automata.exchange.lines import Line, read_lines
from kdzoo.data.loading.splits import SplitPlan
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData, split_train_val
from kdzoo.text.token_sequences import TokenSequences


class TokenSequenceFiles(TokenSequenceData):
    """Two text files with a sequence on each line, its tokens separated by white space; an empty line is empty.

    If all tokens of the training file are integers >= 0, they are used unchanged, and S is the largest + 1. Otherwise
    tokens are words, numbered in alphabetical order.

    Args:
        train_file: Path of the training file.
        test_file: Path of the test file; a token that is not in the training file is an error.
        val_size: Share of the training sequences for val: a fraction in [0, 1) or a count; 0 for none.
        train_size: Use only this many training sequences, always the same ones; None for all.
        options: See :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, a file is missing or has an unknown token.
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
        train_lines, test_lines = (list(read_lines(file)) for file in self.files)
        symbols = symbols_of(train_lines)
        train, val = split_train_val(_token_sequences(train_lines, symbols), self.plan)
        return Corpus(train, val, _token_sequences(test_lines, symbols), symbols)


def symbols_of(lines: list[Line]) -> tuple[str, ...]:
    """Return the names of the tokens 0..S-1: integers up to the largest, or the words in alphabetical order.

    Example:
        >>> [symbols_of([Line.of(text, Path("a"), 1)]) for text in ("2 0", "b a 1")]
        [('0', '1', '2'), ('1', 'a', 'b')]
    """
    words = {word for line in lines for word in line.split()}
    # isascii first: isdigit is also true for digits such as a superscript two, which int() rejects.
    if words and all(word.isascii() and word.isdigit() for word in words):
        return tuple(map(str, range(1 + max(map(int, words)))))
    return tuple(sorted(words))


def _token_sequences(lines: list[Line], symbols: tuple[str, ...]) -> TokenSequences:
    """Return the lines of a file as token sequences."""
    token_of_symbol = {symbol: token for token, symbol in enumerate(symbols)}
    tokens: list[int] = []
    for line in lines:
        for word in line.split():
            # "007" is the token 7 where tokens are integers, and the word "007" if the training file has this word.
            is_integer = word.isascii() and word.isdigit() and word not in token_of_symbol
            symbol = str(int(word)) if is_integer else word
            if symbol not in token_of_symbol:
                line.reject(f"has the token {word!r}; allowed: the {len(symbols)} of the training file")
            tokens.append(token_of_symbol[symbol])
    lengths = [len(line.split()) for line in lines]
    return TokenSequences(torch.tensor(tokens, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64))
