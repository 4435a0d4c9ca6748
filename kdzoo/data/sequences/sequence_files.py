"""The user's own token sequences, from two text files."""

from pathlib import Path
from typing import Any

import torch

from kdzoo.automata.exchange.lines import MAX_DIGITS, Line, read_lines
from kdzoo.data.loading.splits import SplitPlan
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData, split_train_val
from kdzoo.errors import DataError, shortened
from kdzoo.text.token_sequences import TokenSequences

# A student has a row of weights for each token up to the largest, whether it occurs or not.
MAX_TOKENS = 10_000_000


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
        return read_corpus(*self.files, self.plan)


def read_corpus(train_file: Path, test_file: Path, plan: SplitPlan) -> Corpus:
    """Return the sequences of two files, those of the first one divided into train and val.

    Raises:
        DataError: A file is missing or has an unknown token.
    """
    train_lines, test_lines = (list(read_lines(file)) for file in (train_file, test_file))
    symbols = symbols_of(train_lines)
    train, val = split_train_val(token_sequences(train_lines, symbols), plan)
    return Corpus(train, val, token_sequences(test_lines, symbols), symbols)


def symbols_of(lines: list[Line]) -> tuple[str, ...]:
    """Return the names of the tokens 0..S-1: integers up to the largest, or the words in alphabetical order.

    Example:
        >>> [symbols_of([Line.of(text, Path("a"), 1)]) for text in ("2 0", "b a 1")]
        [('0', '1', '2'), ('1', 'a', 'b')]
    """
    words = {word for line in lines for word in line.split()}
    if words and all(map(_is_integer, words)):
        largest = max(map(int, words))
        if largest >= MAX_TOKENS:
            raise DataError(f"{lines[0].path} has the token {largest}; allowed: integers below {MAX_TOKENS}")
        return tuple(map(str, range(1 + largest)))
    return tuple(sorted(words))


def _is_integer(word: str) -> bool:
    # isascii: isdigit is also true for digits such as a superscript two, which int() rejects, as it does long numbers.
    return word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS


def token_sequences(lines: list[Line], symbols: tuple[str, ...]) -> TokenSequences:
    """Return the lines of a file as token sequences."""
    token_of_symbol = {symbol: token for token, symbol in enumerate(symbols)}
    tokens: list[int] = []
    for line in lines:
        for word in line.split():
            # "007" is the token 7 where tokens are integers, and the word "007" if the training file has this word.
            symbol = str(int(word)) if _is_integer(word) and word not in token_of_symbol else word
            if symbol not in token_of_symbol:
                line.reject(f"has the token {shortened(word)!r}; allowed: the {len(symbols)} of the training file")
            tokens.append(token_of_symbol[symbol])
    lengths = [len(line.split()) for line in lines]
    return TokenSequences(torch.tensor(tokens, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64))
