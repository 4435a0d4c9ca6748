"""A language model of known distribution: an LSTM with random weights, which makes strings for other models to learn.

Notation: S tokens and V = S + 1 symbols, of which the end has probability 0; H units. After each prefix, h and c
``[H]`` are output and cell state of the LSTM, and the next token has the logits W h + b. All weights are N(0, 1).
"""

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.randomness import mix_seed
from kdzoo.text.language_model import Trace

State = tuple[Tensor, Tensor]
"""h and c ``[n, H]``."""
# Mixed into the seed of the weights, so that they are independent of other random numbers with this seed.
_STREAM = 13


class OracleLSTM(nn.Module):
    """An LSTM whose weights are drawn once and never trained (Yu et al. 2017, section 4.1).

    Its strings have no end: they are cut at any length. It needs no training, neither as the source of data nor as a
    teacher.

    Args:
        vocab_size: Number V of symbols, >= 2: tokens 0..V-2, begin V-1.
        hidden: Number H of units and width of the embedding, >= 1.
        target_seed: Seed of the weights, >= 0.

    Raises:
        ConfigError: An argument is outside its range.

    Example:
        >>> model = OracleLSTM(vocab_size=5, hidden=4)
        >>> model(torch.tensor([[4, 0, 2]])).shape  # log-probabilities of five symbols after each of three
        torch.Size([1, 3, 5])

    References:
        Yu, Zhang, Wang, Yu: SeqGAN. AAAI 2017, arXiv:1609.05473.
    """

    def __init__(self, *, vocab_size: int, hidden: int = 32, target_seed: int = 0) -> None:
        super().__init__()
        self.new_parameters: tuple[str, ...] = ()  # a teacher of this class is complete
        self.vocab_size = validation.integer("vocab_size", vocab_size, least=2)
        hidden = validation.integer("hidden", hidden)
        self.embedding = nn.Embedding(self.vocab_size, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, self.vocab_size - 1)
        generator = torch.Generator().manual_seed(
            mix_seed(validation.integer("target_seed", target_seed, least=0), _STREAM)
        )
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        # torch adds two biases to each gate, the authors one.
        nn.init.zeros_(dict(self.lstm.named_parameters())["bias_hh_l0"])
        self.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the log-probabilities ``[batch, length, V]`` of the symbol after each prefix of the input."""
        return self.trace(input).log_probs

    def trace(self, input: Tensor) -> Trace:
        """Return hidden vectors ``[batch, length, H]`` and next-symbol log-probabilities ``[batch, length, V]``."""
        outputs, _ = self.lstm(self.embedding(input))
        return Trace(outputs, self._log_probs(outputs))

    def initial_state(self, n: int) -> State:
        """Return the state of n empty prefixes: after the begin marker."""
        zeros = self.head.weight.new_zeros(n, self.lstm.hidden_size)
        begin = torch.full((n,), self.vocab_size - 1, device=zeros.device)
        return self.step((zeros, zeros), begin)

    def step(self, state: State, token: Tensor) -> State:
        """Return the state after one more token ``[n]`` of each prefix."""
        h, c = state
        _, (new_h, new_c) = self.lstm(self.embedding(token[:, None]), (h[None], c[None]))
        return new_h[0], new_c[0]

    def next_log_probs(self, state: State) -> Tensor:
        """Return the log-probabilities ``[n, V]`` of the next symbol."""
        return self._log_probs(state[0])

    def hidden(self, state: State) -> Tensor:
        """Return h ``[n, H]``."""
        return state[0]

    def _log_probs(self, outputs: Tensor) -> Tensor:
        """Return the log-probabilities of all symbols, of which the end is the last."""
        return nn.functional.pad(self.head(outputs).log_softmax(-1), (0, 1), value=-torch.inf)
