"""Several weighted language models as one: a mixture of distributions of strings.

Notation: members m with weights w_m >= 0 that sum to one and string probabilities P_m. The ensemble has
P(x) = sum_m w_m P_m(x). After a prefix u its next symbol a has probability sum_m w_m(u) P_m(a | u), where
w_m(u), proportional to w_m P_m(u), is the probability that member m is the one that speaks.
"""

from collections.abc import Sequence
from math import inf, log
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError
from kdzoo.models.ensemble_members import logsumexp, module_list, normalised_weights
from kdzoo.text.language_model import Trace, trace

State = tuple[tuple[Any, ...], Tensor]
"""The members' states, and log(w_m P_m(u)) up to a constant, (n, members)."""


class LMEnsemble(nn.Module):
    """Mixture of language models; a ensemble of teachers is a teacher.

    To sample a string is to choose a member by its weight and to let it write; strings of a ensemble are
    what a student of several weighted teachers learns from. The hidden vector of a prefix is that of all
    members side by side. Modules to hook: `members.0`, ...

    Args:
        members: Language models with the same number of symbols; at least one.
        weights: One number >= 0 per member, not all zero, divided by their sum; None for equal weights.

    Raises:
        ConfigError: If an argument is outside its range, or a member is no language model.

    Example:
        >>> from kdzoo.models import RNNLM
        >>> LMEnsemble([RNNLM(vocab_size=4), RNNLM(vocab_size=4, cell="lstm")], [3, 1]).weights
        (0.75, 0.25)
    """

    def __init__(self, members: Sequence[nn.Module], weights: Sequence[float | int] | None = None) -> None:
        super().__init__()
        self.members: Any = module_list(members)
        self.weights = normalised_weights(weights, len(members))
        sizes: list[Any] = [getattr(member, "vocab_size", None) for member in self.members]
        if None in sizes or len(set(sizes)) > 1:
            raise ConfigError(f"members must be language models of one vocab_size, got {sizes}")
        self.vocab_size: int = sizes[0]
        self._log_weights = [log(weight) if weight else -inf for weight in self.weights]

    def forward(self, input: Tensor) -> Tensor:
        """Log-probabilities (batch, length, V) of the symbol after each prefix of the input (batch, length)."""
        return self._mix(input, [member(input).log_softmax(-1) for member in self.members])

    def trace(self, input: Tensor) -> Trace:
        """Return the members' hidden vectors side by side and the mixture's next-symbol log-probabilities."""
        traces = [trace(member, input) for member in self.members]
        mixed = self._mix(input, [one.log_probs for one in traces])
        return Trace(torch.cat([one.hidden for one in traces], -1), mixed)

    def initial_state(self, n: int) -> State:
        """Return the state of n empty prefixes."""
        states = tuple(member.initial_state(n) for member in self.members)
        first = self.members[0].next_log_probs(states[0])
        return states, first.new_tensor(self._log_weights).expand(n, -1)

    def step(self, state: State, token: Tensor) -> State:
        """Return the state after one more token (n,) of each prefix."""
        states, spoken = state
        said = [member.next_log_probs(one) for member, one in zip(self.members, states, strict=True)]
        heard = torch.stack([log_probs.gather(1, token[:, None]).squeeze(1) for log_probs in said], 1)
        after = tuple(member.step(one, token) for member, one in zip(self.members, states, strict=True))
        return after, spoken + heard

    def next_log_probs(self, state: State) -> Tensor:
        """Return the log-probabilities (n, V) of the next symbol."""
        states, spoken = state
        said = [member.next_log_probs(one) for member, one in zip(self.members, states, strict=True)]
        return _next(spoken.unbind(1), said)

    def hidden(self, state: State) -> Tensor:
        """Return the members' hidden vectors side by side (n, sum of H)."""
        return torch.cat([member.hidden(one) for member, one in zip(self.members, state[0], strict=True)], -1)

    def _mix(self, input: Tensor, said: list[Tensor]) -> Tensor:
        """Return the mixture (b, T, V) of the members' log-probabilities (b, T, V) along an input (b, T)."""
        token = input[:, 1:, None]
        spoken = [
            log_weight + torch.cat([one.new_zeros(len(one), 1), one[:, :-1].gather(2, token)[..., 0].cumsum(1)], 1)
            for log_weight, one in zip(self._log_weights, said, strict=True)
        ]
        return _next(spoken, said)


def _next(spoken: Sequence[Tensor], said: Sequence[Tensor]) -> Tensor:
    """Return log sum_m w_m(u) P_m(a | u) [..., V] from log(w_m P_m(u)) [...] and log P_m(a | u) [..., V] of each m.

    After a prefix that no member can write, nothing follows: all are -inf.
    """
    log_terms = torch.stack([log_weight[..., None] + one for log_weight, one in zip(spoken, said, strict=True)])
    total = logsumexp(torch.stack(list(spoken)))[..., None]
    return logsumexp(log_terms) - total.masked_fill(total.isneginf(), 0.0)
