"""N-gram models of strings: deterministic automata whose states are the last tokens.

Notation: S tokens, V = S + 1 symbols, order n, C contexts. A context is the longest of the last 0..n-1 tokens,
including the begin marker, that occurs in the data.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.automata.pfa import PFA
from kdzoo.core.validation import integer
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences


@dataclass(frozen=True, eq=False)
class NGram:
    """An n-gram model as a table: a language model whose state is the index of the context.

    Args:
        probs: Probability of each symbol in each context, the end last, float64 ``[C, V]``.
        following: Next context after each token, int64 ``[C, S]``.
        first: Context at the beginning of a string.
    """

    probs: Tensor
    following: Tensor
    first: int

    @property
    def vocab_size(self) -> int:
        """Number of symbols V."""
        return self.probs.shape[1]

    @property
    def n_parameters(self) -> int:
        """Number of free parameters."""
        return self.probs.shape[0] * (self.probs.shape[1] - 1)

    def initial_state(self, n: int) -> Tensor:
        """Return the context before the first token, n times, int64 ``[n, 1]``."""
        return torch.full((n, 1), self.first)

    def step(self, state: Tensor, token: Tensor) -> Tensor:
        """Return the contexts ``[n, 1]`` after one more token, int64 ``[n]``; the end leads to the first context."""
        # The end token has no successor in the table; clamping keeps the lookup in range before it is replaced.
        inner = self.following[state[:, 0], token.clamp(max=self.vocab_size - 2)]
        return torch.where(token < self.vocab_size - 1, inner, self.first)[:, None]

    def next_log_probs(self, state: Tensor) -> Tensor:
        """Return the log-probabilities of the next symbol ``[n, V]``."""
        return self.probs[state[:, 0]].log()

    def hidden(self, state: Tensor) -> Tensor:
        """Return the index of the context as a feature, float64 ``[n, 1]``."""
        return state.double()

    def log_prob(self, strings: TokenSequences) -> Tensor:
        """Return the log-probability of each string ``[n]``, in nats."""
        symbols = strings.padded(self.vocab_size - 1)
        state, total = self.initial_state(len(strings)), torch.zeros(len(strings), dtype=torch.float64)
        logs = self.probs.log()
        for position in range(symbols.shape[1]):
            active = position < strings.lengths
            total += torch.where(active, logs[state[:, 0], symbols[:, position]], 0.0)
            # Strings that have ended keep their context, whose end probability is added below.
            state = torch.where(active[:, None], self.step(state, symbols[:, position]), state)
        return total + logs[state[:, 0], -1]

    def to_pfa(self) -> PFA:
        """Return the automaton whose states are the contexts; its transitions take 8 S C^2 bytes."""
        contexts, tokens = self.following.shape
        transitions = torch.zeros(tokens, contexts, contexts, dtype=torch.float64)
        transitions.scatter_(2, self.following.T[:, :, None], self.probs[:, :-1].T[:, :, None])
        initial = torch.zeros(contexts, dtype=torch.float64)
        initial[self.first] = 1
        return PFA.from_parameters(initial, transitions, self.probs[:, -1])


def ngram(strings: TokenSequences, order: int, vocab_size: int) -> NGram:
    r"""Return the n-gram model of the strings, smoothed by Witten and Bell's interpolation.

    With counts c, T(h) different symbols after context h, and h' the context without its first token,

    .. math:: P(a | h) = \frac{c(h a) + T(h) P(a | h')}{c(h) + T(h)},

    down to the uniform distribution over the V symbols.

    Args:
        strings: The strings.
        order: Length n >= 1 of the n-grams: a symbol with the n - 1 symbols before it.
        vocab_size: Number of symbols V with the end token.

    Raises:
        ConfigError: If the order is out of range, or so great that a context is no longer a 64-bit number.
        DataError: If a token is outside the alphabet.

    Example:
        >>> model = ngram(TokenSequences.of([[0, 1], [0, 1]]), 2, 3)
        >>> model.probs[model.first].tolist()  # after the beginning: two counts of 0, one kind of symbol
        [0.7777777777777778, 0.1111111111111111, 0.1111111111111111]

    References:
        Witten and Bell 1991, "The zero-frequency problem", IEEE Transactions on Information Theory 37(4), method C;
        Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 2.5.
    """
    integer("order", order)
    strings.check(vocab_size)
    # A context is coded as one int64 with order - 1 digits of base V, see _contexts.
    if (order - 1) * torch.tensor(float(vocab_size)).log2() > 62:
        raise ConfigError(f"order must be smaller for {vocab_size} symbols, got {order}: contexts exceed 64 bits")
    symbols = torch.full((strings.n_prefixes,), vocab_size - 1)
    symbols[strings.edges()[0]] = strings.tokens
    probs = torch.full((1, vocab_size), 1 / vocab_size, dtype=torch.float64)
    codes: list[Tensor] = []
    tables: list[Tensor] = []
    for length, (prefixes, code) in enumerate(_contexts(strings, order, vocab_size)):
        if not len(prefixes):
            break  # no string is that long
        contexts, counts = _count_symbols(code, symbols[prefixes], vocab_size)
        # The context without its first token: the remainder drops the leading digit, and that context occurs as well.
        parents = contexts % vocab_size ** (length - 1) if length else contexts
        shorter = torch.searchsorted(codes[-1], parents) if length else torch.zeros(1).long()
        distinct = (counts > 0).sum(1, keepdim=True)
        probs = (counts + distinct * probs[shorter]) / (counts.sum(1, keepdim=True) + distinct)
        codes.append(contexts)
        tables.append(probs)
    return _reachable(torch.cat(tables), _following(codes, vocab_size), 0 if order == 1 else _start(codes, vocab_size))


def _count_symbols(code: Tensor, symbols: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Return the contexts that occur ``[C]``, sorted, and how often each symbol follows them, float64 ``[C, V]``."""
    contexts, index = torch.unique(code, return_inverse=True)
    counts = torch.bincount(index * vocab_size + symbols, minlength=len(contexts) * vocab_size)
    return contexts, counts.reshape(len(contexts), vocab_size).double()


def _contexts(strings: TokenSequences, order: int, vocab_size: int) -> list[tuple[Tensor, Tensor]]:
    """Return, for lengths 0..order-1, the prefixes that are long enough (with begin marker) and their contexts.

    A context is a number with one digit of base V for each token, the last token in the lowest digit.
    """
    lengths = strings.lengths + 1
    # The token that led to each prefix; the begin marker has the number of the end token.
    history = torch.full((strings.n_prefixes,), vocab_size - 1)
    history[strings.edges()[1]] = strings.tokens
    depth = torch.arange(strings.n_prefixes) - strings.first_prefixes().repeat_interleave(lengths)
    prefixes = torch.arange(strings.n_prefixes)
    code = torch.zeros(strings.n_prefixes, dtype=torch.int64)
    result = [(prefixes, code)]
    for length in range(1, order):
        prefixes = prefixes[depth[prefixes] >= length - 1]
        code = code.clone()
        code[prefixes] += history[prefixes - (length - 1)] * vocab_size ** (length - 1)
        result.append((prefixes, code[prefixes]))
    return result


def _following(codes: list[Tensor], vocab_size: int) -> Tensor:
    """Return the context that follows each context and token: the longest one that occurs, int64 ``[C, S]``."""
    offsets = [0, *torch.tensor([len(code) for code in codes]).cumsum(0).tolist()]
    tables = []
    for length, code in enumerate(codes):
        longer = code[:, None] * vocab_size + torch.arange(vocab_size - 1)
        best = torch.zeros_like(longer)
        # From short to long, so that the longest context that occurs overwrites the shorter ones.
        for size in range(1, min(length + 1, len(codes) - 1) + 1):
            suffix = longer % vocab_size**size
            index = torch.searchsorted(codes[size], suffix).clamp(max=len(codes[size]) - 1)
            best = torch.where(codes[size][index] == suffix, offsets[size] + index, best)
        tables.append(best)
    return torch.cat(tables)


def _start(codes: list[Tensor], vocab_size: int) -> int:
    """Return the index of the context that holds the begin marker only."""
    return len(codes[0]) + int(torch.searchsorted(codes[1], vocab_size - 1))


def _reachable(probs: Tensor, following: Tensor, first: int) -> NGram:
    """Return the model with the contexts that can be reached, in their order."""
    reached = torch.zeros(len(probs), dtype=torch.bool)
    frontier = torch.tensor([first])
    while len(frontier):
        reached[frontier] = True
        frontier = following[frontier].unique()
        frontier = frontier[~reached[frontier]]
    index = reached.cumsum(0) - 1
    return NGram(probs[reached], index[following[reached]], int(index[first]))
