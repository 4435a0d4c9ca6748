"""Strings of an LSTM with random weights, so that the strings of every other model can be scored by the truth."""

from typing import Any

import torch

from kdzoo.core.randomness import mix_seed
from kdzoo.core.validation import integer
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData
from kdzoo.text.language_model import sample
from kdzoo.text.oracle_lstm import OracleLSTM
from kdzoo.text.token_sequences import TokenSequences

# Streams of random numbers of the splits, and of the strings that are scored. Those of val and test do not depend on
# the run's seed: only then can numbers be compared between seeds.
_TRAIN, _VAL, _TEST, _SCORED = range(1_302_621, 1_302_625)
# Strings that are drawn together. The distributions over 5,000 tokens of more would not fit into a processor's cache.
_TOGETHER = 128


class OracleStrings(TokenSequenceData):
    """Strings of one length of an oracle, an LSTM with weights from N(0, 1) (Yu et al. 2017, SeqGAN, section 4.1).

    The report contains ``oracle_nll``, by which generated strings are scored, and the scores of the oracle itself.

    Args:
        tokens: Number of tokens, >= 1.
        length: Tokens of each string, >= 1. Their end is not predicted.
        hidden: Units of the oracle, and width of its embedding, >= 1.
        target_seed: Seed of the oracle.
        n_train: Number of training strings, >= 1.
        n_val: Number of val strings, >= 0; they are the same for every seed.
        n_test: Number of test strings, >= 1; they are the same for every seed.
        n_scored: Number of generated strings that are scored, >= 1.
        batch_size: See :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.
        seed: Decides the training strings and their order.
        options: See :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.

    Raises:
        ConfigError: An argument is out of range.

    Example:
        >>> data = OracleStrings(tokens=10, length=4, n_train=100, n_test=20)
        >>> data.setup()
        >>> data.sizes["vocab_size"], data.corpus.train.lengths.unique().tolist()
        (11, [4])
    """

    def __init__(
        self,
        *,
        tokens: int = 5000,
        length: int = 20,
        hidden: int = 32,
        target_seed: int = 0,
        n_train: int = 10000,
        n_val: int = 0,
        n_test: int = 500,
        n_scored: int = 500,
        batch_size: int = 64,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, **options)
        self.length = integer("length", length)
        self.n_train, self.n_test = integer("n_train", n_train), integer("n_test", n_test)
        self.n_val, self.n_scored = integer("n_val", n_val, 0), integer("n_scored", n_scored)
        self.target_seed = target_seed
        self._oracle = OracleLSTM(vocab_size=integer("tokens", tokens) + 1, hidden=hidden, target_seed=target_seed)

    @property
    def oracle(self) -> OracleLSTM:
        """The language model that the strings are drawn from."""
        return self._oracle

    def load(self) -> Corpus:
        """Draw the three splits."""
        train = self._draw(self.oracle, self.n_train, mix_seed(_TRAIN, self.target_seed, self.seed))
        val = self._draw(self.oracle, self.n_val, mix_seed(_VAL, self.target_seed))
        test = self._draw(self.oracle, self.n_test, mix_seed(_TEST, self.target_seed))
        symbols = tuple(map(str, range(self.oracle.vocab_size - 1)))
        return Corpus(train, val, test, symbols, has_ends=False)

    def oracle_nll(self, model: Any) -> float:
        """Return the mean negative log-probability under the oracle of a token that a model generates, in nats.

        The model generates ``n_scored`` strings of at most ``length`` tokens. An end that it generates is not scored,
        since the oracle's strings have none.
        """
        strings = self._draw(model, self.n_scored, mix_seed(_SCORED, self.target_seed))
        total = torch.zeros((), dtype=torch.float64)
        for rows in torch.arange(len(strings)).split(_TOGETHER):
            part = strings.select(rows)
            input, _ = part.inputs_and_targets(self.oracle.vocab_size)
            tokens = part.padded(0)
            # The model may be on an accelerator; the oracle stays where the data are.
            log_probs = self.oracle(input[:, :-1]).gather(-1, tokens[..., None]).squeeze(-1).double()
            total -= log_probs[torch.arange(tokens.shape[1]) < part.lengths[:, None]].sum()
        return float(total) / max(1, len(strings.tokens))

    def _draw(self, model: Any, n: int, seed: int) -> TokenSequences:
        """Return n strings of a model on the CPU."""
        return sample(model, n, max_length=self.length, seed=seed, batch_size=_TOGETHER)
