"""A recurrent language model: embedding, GRU or LSTM layers, linear head.

Notation: V symbols, the last of which begins and ends a string; E embedding, H hidden units in each of the
layers l. After each prefix, h_l [H] is the output of layer l and c_l [H] the memory of an LSTM's.
"""

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.text.language_model import Trace

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}

State = tuple[Tensor, ...]
"""h [n, layers, H], and for an LSTM c [n, layers, H]."""


class RNNLM(nn.Module):
    """Language model with GRU or LSTM layers.

    The hidden vector of a prefix is h of all layers side by side, [layers * H]. Modules to hook:
    `embedding` (batch, length, E), `layers.0`, ... (outputs (batch, length, H) and last state), `head`.

    Args:
        vocab_size: Number V of symbols, >= 2: tokens 0..V-2, begin and end V-1.
        embedding: Width E of the embedding, >= 1.
        hidden: Units H of each layer, >= 1.
        layers: Number of layers, >= 1.
        cell: "gru" or "lstm".
        dropout: Probability in [0, 1) of dropping a unit of a layer's output, for what reads it: the next
            layer or the head.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> import torch
        >>> model = RNNLM(vocab_size=5, hidden=16)
        >>> model(torch.tensor([[4, 0, 2], [4, 1, 4]])).shape  # 4 begins, and fills up
        torch.Size([2, 3, 5])

    References:
        Mikolov, Karafiat, Burget, Cernocky, Khudanpur: Recurrent neural network based language model.
        Interspeech 2010.
        Cho et al.: Learning phrase representations using RNN encoder-decoder. EMNLP 2014, arXiv:1406.1078.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embedding: int = 32,
        hidden: int = 64,
        layers: int = 1,
        cell: str = "gru",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocab_size = validation.integer("vocab_size", vocab_size, least=2)
        H = validation.integer("hidden", hidden)
        widths = [validation.integer("embedding", embedding)] + [H] * (validation.integer("layers", layers) - 1)
        kind = CELLS[validation.choice("cell", cell, tuple(CELLS))]
        self.embedding = nn.Embedding(self.vocab_size, widths[0])
        self.layers = nn.ModuleList(kind(width, H, batch_first=True) for width in widths)
        self.dropout = nn.Dropout(validation.probability("dropout", dropout))
        self.head = nn.Linear(H, self.vocab_size)

    def forward(self, input: Tensor) -> Tensor:
        """Logits (batch, length, V) of the symbol after each prefix of the input (batch, length)."""
        outputs, _ = self._read(input, None)
        return self.head(self.dropout(outputs[-1]))

    def trace(self, input: Tensor) -> Trace:
        """Return hidden vectors (batch, length, layers * H) and next-symbol log-probabilities; differentiable."""
        outputs, _ = self._read(input, None)
        return Trace(torch.cat(outputs, -1), self.head(self.dropout(outputs[-1])).log_softmax(-1))

    def initial_state(self, n: int) -> State:
        """Return the state of n empty prefixes: after the begin marker."""
        begin = torch.full((n, 1), self.vocab_size - 1, device=self.head.weight.device)
        return self._read(begin, None)[1]

    def step(self, state: State, token: Tensor) -> State:
        """Return the state after one more token (n,) of each prefix."""
        return self._read(token[:, None], state)[1]

    def next_log_probs(self, state: State) -> Tensor:
        """Return the log-probabilities (n, V) of the next symbol."""
        return self.head(self.dropout(state[0][:, -1])).log_softmax(-1)

    def hidden(self, state: State) -> Tensor:
        """Return h of all layers (n, layers * H)."""
        return state[0].flatten(1)

    def _read(self, input: Tensor, state: State | None) -> tuple[list[Tensor], State]:
        """Return each layer's outputs (batch, length, H) and the state after the last symbol."""
        values, outputs, last = self.embedding(input), [], []
        for i, layer in enumerate(self.layers):
            before = [] if state is None else [part[:, i].contiguous()[None] for part in state]
            output, after = layer(values, *([before[0] if len(before) == 1 else tuple(before)] if before else []))
            outputs.append(output)
            last.append(after if isinstance(after, tuple) else (after,))
            values = self.dropout(output)
        return outputs, tuple(torch.stack([part[0] for part in parts], 1) for parts in zip(*last, strict=True))
