"""A recurrent language model: embedding, GRU or LSTM layers, linear head.

Notation: V symbols, the last of which begins and ends a sequence; E width of the embedding, H hidden units in each
layer l. After each prefix, h_l ``[H]`` is the output of layer l and c_l ``[H]`` the cell state of an LSTM layer.
"""

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.text.language_model import Trace

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}

# h ``[n, layers, H]`` and, for LSTM layers, c ``[n, layers, H]``. The prefix is the first axis, not the layer as in
# torch, so that prefixes can be selected in every kind of state alike.
State = tuple[Tensor, ...]


class RNNLM(nn.Module):
    """Language model with GRU or LSTM layers.

    The hidden vector of a prefix is the concatenation of h of all layers, ``[layers * H]``. Modules to hook:
    ``embedding`` (``[batch, length, E]``), ``layers.0``, ... (outputs ``[batch, length, H]`` and last state), ``head``.

    Args:
        vocab_size: Number V of symbols, >= 2: tokens 0..V-2, begin and end V-1.
        embedding: Width E of the embedding, >= 1.
        hidden: Number H of units in each layer, >= 1.
        layers: Number of layers, >= 1.
        cell: "gru" or "lstm".
        dropout: Probability in [0, 1) of dropping a unit in the input of every layer but the first, and of the head.

    Raises:
        ConfigError: An argument is outside its range.

    Example:
        >>> import torch
        >>> model = RNNLM(vocab_size=5, hidden=16)
        >>> model(torch.tensor([[4, 0, 2], [4, 1, 4]])).shape  # 4 is the begin marker and the padding
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
        """Return the logits ``[batch, length, V]`` of the symbol after each prefix of the input ``[batch, length]``."""
        outputs, _ = self._run(input, None)
        return self.head(self.dropout(outputs[-1]))

    def trace(self, input: Tensor) -> Trace:
        """Return hidden vectors ``[batch, length, layers * H]`` and next-symbol log-probabilities; differentiable."""
        outputs, _ = self._run(input, None)
        return Trace(torch.cat(outputs, -1), self.head(self.dropout(outputs[-1])).log_softmax(-1))

    def initial_state(self, n: int) -> State:
        """Return the state of n empty prefixes: after the begin marker."""
        begin = torch.full((n, 1), self.vocab_size - 1, device=self.head.weight.device)
        return self._run(begin, None)[1]

    def step(self, state: State, token: Tensor) -> State:
        """Return the state after one more token ``[n]`` of each prefix."""
        return self._run(token[:, None], state)[1]

    def next_log_probs(self, state: State) -> Tensor:
        """Return the log-probabilities ``[n, V]`` of the next symbol."""
        return self.head(self.dropout(state[0][:, -1])).log_softmax(-1)

    def hidden(self, state: State) -> Tensor:
        """Return h of all layers ``[n, layers * H]``."""
        return state[0].flatten(1)

    def _run(self, input: Tensor, state: State | None) -> tuple[list[Tensor], State]:
        """Return each layer's outputs ``[batch, length, H]`` and the state after the last symbol."""
        values, outputs, last_states = self.embedding(input), [], []
        for i, layer in enumerate(self.layers):
            output, last_state = layer(values) if state is None else layer(values, _layer_state(state, i))
            outputs.append(output)
            last_states.append(last_state if isinstance(last_state, tuple) else (last_state,))
            values = self.dropout(output)
        parts = zip(*last_states, strict=True)  # h of all layers, then c of all layers
        return outputs, tuple(torch.stack([value[0] for value in part], 1) for part in parts)


def _layer_state(state: State, i: int) -> Tensor | tuple[Tensor, ...]:
    """Return the state of layer i as torch takes it: h ``[1, n, H]`` for a GRU, (h, c) for an LSTM."""
    values = tuple(part[:, i].contiguous()[None] for part in state)  # cuDNN rejects a strided state
    return values[0] if len(values) == 1 else values
