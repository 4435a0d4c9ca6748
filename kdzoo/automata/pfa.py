"""Probabilistic finite automata: distributions over strings, and language models that are fitted without gradients.

Notation: K states, S tokens, vocab_size V = S + 1; token S ends a string and, in model inputs, begins it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.automata.forward import advance, log_prob, normalise
from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError, first_line
from kdzoo.text.language_model import Trace
from kdzoo.text.token_sequences import TokenSequences

# By how much the sum of a distribution may differ from 1: enough for rounded numbers from text files.
TOLERANCE = 1e-6


class PFA(nn.Module):
    """Probabilistic automaton with initial distribution, transitions that emit tokens, and stop probabilities.

    Its parameters are float64 buffers: they are saved and moved like those of any module, but no optimizer sees them.
    They are ``initial``, ``[K]``; ``transitions``, ``[S, K, K]``, with ``transitions[a, k, l]`` = P(a, l | k); and
    ``stop``, ``[K]``.
    ``initial`` sums to 1, and so does ``transitions[:, k, :]`` together with ``stop[k]`` for every state k.
    A new automaton is uniform.

    Called with the input of a language model, it predicts the next token. As a language model its state is the
    belief: the distribution of the automaton's state after the tokens so far ``[n, K]``. After an impossible prefix,
    or past the end of a string, the belief is all zeros. The prediction is then uniform, so that it is always a
    distribution, while :meth:`log_prob` of an impossible string is -inf.

    Args:
        vocab_size: Number of tokens with the end token, V >= 2.
        states: Number of states K >= 1; None for a size that follows from fitting or from a loaded state dict.

    Raises:
        ConfigError: If an argument is out of range.

    Example:
        >>> pfa = PFA(vocab_size=3, states=2)
        >>> pfa.states, pfa.n_tokens, pfa.log_prob(TokenSequences.of([[0, 1]])).exp()
        (2, 2, tensor([0.0370], dtype=torch.float64))

    References:
        Vidal et al. 2005, "Probabilistic finite-state machines, part I", IEEE TPAMI 27(7), section 2.
    """

    initial: Tensor
    transitions: Tensor
    stop: Tensor

    def __init__(self, vocab_size: int, states: int | None = None) -> None:
        super().__init__()
        symbols = validation.integer("vocab_size", vocab_size, least=2)
        self.has_fixed_states = states is not None
        K = 1 if states is None else validation.integer("states", states)
        uniform = torch.full((symbols - 1, K, K), 1 / (symbols * K), dtype=torch.float64)
        self._assign(uniform.new_full((K,), 1 / K), uniform, uniform.new_full((K,), 1 / symbols))

    @classmethod
    def from_parameters(cls, initial: Any, transitions: Any, stop: Any) -> "PFA":
        """Return the automaton with these parameters; see :meth:`set_parameters`.

        Example:
            >>> PFA.from_parameters([1.0], [[[0.5]], [[0.25]]], [0.25]).vocab_size
            3
        """
        transitions = _as_float64("transitions", transitions, 3)
        pfa = cls(transitions.shape[0] + 1)
        pfa.set_parameters(initial, transitions, stop)
        return pfa

    def set_parameters(self, initial: Any, transitions: Any, stop: Any) -> None:
        """Take copies of the parameters; the number of states may change, the number of tokens may not.

        Args:
            initial: ``[K]``, sums to 1.
            transitions: ``[S, K, K]``, P(a, l | k) at ``[a, k, l]``.
            stop: ``[K]``, the probability of ending in each state.

        Raises:
            ConfigError: If a shape does not fit, a number is negative or not finite, or a distribution's sum
                differs from 1 by more than 1e-6. Within that, the numbers are kept as they are.
        """
        parameters = _checked(self.n_tokens, initial, transitions, stop)
        self._assign(*(parameter.to(self.stop.device) for parameter in parameters))

    @property
    def states(self) -> int:
        """Number of states K."""
        return self.stop.shape[0]

    @property
    def n_tokens(self) -> int:
        """Number of tokens S, without the end token."""
        return self.transitions.shape[0]

    @property
    def vocab_size(self) -> int:
        """Number of tokens V with the end token, whose number is V - 1."""
        return self.n_tokens + 1

    @property
    def n_parameters(self) -> int:
        """Number of free parameters: probabilities that are not 0, less one for each sum that is 1."""
        nonzero = sum(int(buffer.count_nonzero()) for buffer in (self.initial, self.transitions, self.stop))
        # One constraint for the initial distribution and one for each state.
        return nonzero - 1 - self.states

    @property
    def learned_sizes(self) -> dict[str, int]:
        """Constructor arguments that fitting may have changed, with their present values."""
        return {"states": self.states}

    @property
    def deterministic(self) -> bool:
        """Whether there is one initial state, and at most one next state for each state and token."""
        return int(self.initial.count_nonzero()) == 1 and bool(((self.transitions > 0).sum(2) <= 1).all())

    @property
    def emissions(self) -> Tensor:
        """Probability of the next token in each state ``[K, V]``; the last column is the stop probability."""
        return torch.cat([self.transitions.sum(2).T, self.stop[:, None]], 1)

    def forward(self, input: Tensor) -> Tensor:
        """Return the log-probabilities of the next token after each prefix, float64 ``[batch, time, V]``.

        Args:
            input: Tokens, int64 ``[batch, time]``, T >= 1. The first column is taken as the begin marker.

        Raises:
            DataError: If a token is outside 0..S.
        """
        return self.trace(input).log_probs

    def trace(self, input: Tensor) -> Trace:
        """Return beliefs ``[batch, time, K]`` and log-probabilities ``[batch, time, V]``; see :meth:`forward`."""
        tokens = input[:, 1:]  # the begin marker carries no information
        if tokens.numel() and (tokens.min() < 0 or tokens.max() > self.n_tokens):
            raise DataError(f"input has tokens {int(tokens.min())}..{int(tokens.max())}; allowed: 0..{self.n_tokens}")
        beliefs = [self.initial_state(len(input))]
        for token in tokens.unbind(1):
            beliefs.append(self.step(beliefs[-1], token))
        hidden = torch.stack(beliefs, 1)
        return Trace(hidden, self.next_log_probs(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]))

    def initial_state(self, n: int) -> Tensor:
        """Return the belief before the first token, n times ``[n, K]``."""
        return self.initial.expand(n, -1)

    def step(self, state: Tensor, token: Tensor) -> Tensor:
        """Return the belief ``[n, K]`` after one more token, int64 ``[n]`` in 0..S."""
        # Past the end token the belief is all zeros, which padded positions rely on.
        active = token < self.n_tokens
        belief, _ = normalise(advance(state[active], self.transitions, token[active]))
        return torch.zeros_like(state).masked_scatter(active[:, None], belief)

    def next_log_probs(self, state: Tensor) -> Tensor:
        """Return the log-probabilities of the next token ``[n, V]`` at beliefs ``[n, K]``; -inf if impossible."""
        probs, total = normalise(state @ self.emissions)
        return torch.where(total[:, None] > 0, probs, 1 / self.vocab_size).log()

    def hidden(self, state: Tensor) -> Tensor:
        """Return the belief itself ``[n, K]``."""
        return state

    def log_prob(self, strings: TokenSequences) -> Tensor:
        """Return the log-probability of each string in nats, float64 ``[n]``; -inf for impossible strings.

        Raises:
            DataError: If a token is outside 0..S-1.

        Example:
            >>> PFA(vocab_size=2).log_prob(TokenSequences.of([[], [0, 0]])).exp()
            tensor([0.5000, 0.1250], dtype=torch.float64)
        """
        strings.check(self.vocab_size)
        return log_prob(self.initial, self.transitions, self.stop, strings)

    def sample(self, n: int, seed: int, max_length: int) -> TokenSequences:
        """Sample strings.

        Args:
            n: Number of strings, >= 0.
            seed: Seed of the draws, >= 0.
            max_length: Number of tokens after which a string is cut, >= 0.

        Returns:
            The n strings, on the CPU.

        Raises:
            ConfigError: If a number is out of range.
        """
        generator = torch.Generator(self.stop.device).manual_seed(validation.integer("seed", seed, least=0))
        alive = torch.arange(validation.integer("n", n, least=0), device=self.stop.device)
        state = _draw(self.initial.expand(n, -1), generator)
        emissions, steps = self.emissions, [(alive[:0], alive[:0])]
        for _ in range(validation.integer("max_length", max_length, least=0)):
            token = _draw(emissions[state], generator)
            # Strings that have ended leave the batch, so that a few long strings cost little.
            active = token < self.n_tokens
            alive, state, token = alive[active], state[active], token[active]
            if not len(alive):
                break
            steps.append((alive, token))
            state = _draw(self.transitions[token, state], generator)
        owner, tokens = (torch.cat(parts) for parts in zip(*steps, strict=True))
        return TokenSequences(tokens[owner.argsort(stable=True)].cpu(), torch.bincount(owner, minlength=n).cpu())

    def extra_repr(self) -> str:
        """Return the sizes for ``repr``."""
        return f"vocab_size={self.vocab_size}, states={self.states}"

    def _assign(self, initial: Tensor, transitions: Tensor, stop: Tensor) -> None:
        self.register_buffer("initial", initial)
        self.register_buffer("transitions", transitions)
        self.register_buffer("stop", stop)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the saved number of states, unless it was fixed at construction, and reject invalid parameters."""
        # The last argument of torch's hook collects messages; load_state_dict raises them all as one RuntimeError.
        errors: list[str] = rest[-1]
        saved = [state_dict.get(prefix + name) for name in ("initial", "transitions", "stop")]
        if all(isinstance(value, Tensor) for value in saved):
            try:
                parameters = _checked(self.n_tokens, *saved)
            except ConfigError as error:
                errors.append(str(error))
                return
            if not self.has_fixed_states:
                self._assign(*(torch.empty_like(value, device=self.stop.device) for value in parameters))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _draw(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one index for each row of weights ``[n, m]`` by inverting the cumulative distribution ``[n]``.

    A uniform number is at most 1 - 2^-53, so that its product with the total stays below the total: an index of
    weight zero is never drawn.
    """
    cumulative = probs.cumsum(1)
    uniform = torch.rand(len(probs), 1, dtype=probs.dtype, device=probs.device, generator=generator)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(1)


def _as_float64(name: str, value: Any, ndim: int) -> Tensor:
    """Return a float64 copy of a parameter with ``ndim`` dimensions."""
    try:
        tensor = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name} must be an array of numbers: {first_line(error)}") from error
    if tensor.ndim != ndim or 0 in tensor.shape:
        raise ConfigError(f"{name} must have {ndim} dimensions of at least 1, got shape {list(tensor.shape)}")
    return tensor


def _checked(n_tokens: int, initial: Any, transitions: Any, stop: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parameters as float64 copies, or raise a ConfigError if they are not those of a PFA."""
    initial = _as_float64("initial", initial, 1)
    transitions = _as_float64("transitions", transitions, 3)
    stop = _as_float64("stop", stop, 1)
    K = len(initial)
    for name, value, shape in (("transitions", transitions, [n_tokens, K, K]), ("stop", stop, [K])):
        if list(value.shape) != shape:
            raise ConfigError(f"{name} must have shape {shape} with initial [{K}], got {list(value.shape)}")
    for name, value in (("initial", initial), ("transitions", transitions), ("stop", stop)):
        wrong = ~((value >= 0) & (value <= 1 + TOLERANCE))
        if wrong.any():
            place = wrong.nonzero()[0].tolist()
            raise ConfigError(f"{name}{place} must be a probability, got {float(value[tuple(place)])}")
    if abs(float(initial.sum()) - 1) > TOLERANCE:
        raise ConfigError(f"initial must sum to 1, got {float(initial.sum())}")
    totals = transitions.sum((0, 2)) + stop
    off = ((totals - 1).abs() > TOLERANCE).nonzero()
    if len(off):
        state = int(off[0])
        raise ConfigError(f"transitions and stop of state {state} must sum to 1, got {float(totals[state])}")
    return initial, transitions, stop
