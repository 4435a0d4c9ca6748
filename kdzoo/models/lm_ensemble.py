"""A weighted ensemble of language models: a mixture of their distributions over sequences.

Notation: members m with weights w_m >= 0 that sum to 1 and sequence probabilities P_m. The ensemble has
P(x) = sum_m w_m P_m(x). After a prefix u, its next symbol a has the probability sum_m w_m(u) P_m(a | u), where w_m(u),
proportional to w_m P_m(u), is the posterior probability that the sequence comes from member m.
"""

from collections.abc import Sequence
from math import inf, log
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core.abilities import HasVocabularySize
from kdzoo.errors import ConfigError
from kdzoo.models.ensemble_members import logsumexp, module_list, normalised_weights
from kdzoo.text.language_model import Trace, trace

State = tuple[tuple[Any, ...], Tensor]
"""The states of the members, and log(w_m P_m(u)) up to a constant, ``[n, members]``."""


class LMEnsemble(nn.Module):
    """Mixture of language models, for example of several teachers.

    To draw a sequence is to draw a member by its weight and to let it generate the sequence. The hidden vector of a
    prefix is the concatenation of the members' vectors. Modules to hook: ``members.0``, ...

    Args:
        members: Language models with the same number of symbols; at least one.
        weights: One number >= 0 per member, not all zero, divided by their sum; None for equal weights.

    Attributes:
        weights: The weights divided by their sum.

    Raises:
        ConfigError: An argument is outside its range, or a member is not a language model.

    Example:
        >>> from kdzoo.models import RNNLM
        >>> LMEnsemble([RNNLM(vocab_size=4), RNNLM(vocab_size=4, cell="lstm")], [3, 1]).weights
        (0.75, 0.25)
    """

    def __init__(self, members: Sequence[nn.Module], weights: Sequence[float | int] | None = None) -> None:
        super().__init__()
        self.members: Any = module_list(members)
        self.weights = normalised_weights(weights, len(members))
        sizes: list[Any] = [
            member.vocab_size if isinstance(member, HasVocabularySize) else None for member in self.members
        ]
        if None in sizes or len(set(sizes)) > 1:
            raise ConfigError(f"members must be language models of one vocab_size, got {sizes}")
        self.vocab_size: int = sizes[0]
        self._log_weights = [log(weight) if weight else -inf for weight in self.weights]

    def weighted_members(self) -> list[tuple[nn.Module, float]]:
        """Return each member with its weight."""
        return list(zip(self.members, self.weights, strict=True))

    def forward(self, input: Tensor) -> Tensor:
        """Return the log-probabilities ``[batch, length, V]`` of the symbol after each prefix of the input."""
        return self._mix(input, [member(input).log_softmax(-1) for member in self.members])

    def trace(self, input: Tensor) -> Trace:
        """Return the members' concatenated hidden vectors and the mixture's next-symbol log-probabilities."""
        traces = [trace(member, input) for member in self.members]
        mixture = self._mix(input, [member_trace.log_probs for member_trace in traces])
        return Trace(torch.cat([member_trace.hidden for member_trace in traces], -1), mixture)

    def initial_state(self, n: int) -> State:
        """Return the state of n empty prefixes."""
        states = tuple(member.initial_state(n) for member in self.members)
        like = self.members[0].next_log_probs(states[0])  # its device and precision
        return states, like.new_tensor(self._log_weights).expand(n, -1)

    def step(self, state: State, token: Tensor) -> State:
        """Return the state after one more token ``[n]`` of each prefix."""
        member_states, log_posterior = state
        log_probs = self._member_log_probs(member_states)
        of_token = torch.stack([member.gather(1, token[:, None]).squeeze(1) for member in log_probs], 1)
        # The probability of the token under each member updates how likely it is that the sequence comes from it.
        pairs = zip(self.members, member_states, strict=True)
        return tuple(member.step(member_state, token) for member, member_state in pairs), log_posterior + of_token

    def next_log_probs(self, state: State) -> Tensor:
        """Return the log-probabilities ``[n, V]`` of the next symbol."""
        member_states, log_posterior = state
        return _mixture(log_posterior.unbind(1), self._member_log_probs(member_states))

    def hidden(self, state: State) -> Tensor:
        """Return the members' concatenated hidden vectors ``[n, sum of H]``."""
        pairs = zip(self.members, state[0], strict=True)
        return torch.cat([member.hidden(member_state) for member, member_state in pairs], -1)

    def _member_log_probs(self, member_states: tuple[Any, ...]) -> list[Tensor]:
        """Return each member's log-probabilities ``[n, V]`` of the next symbol."""
        return [
            member.next_log_probs(member_state)
            for member, member_state in zip(self.members, member_states, strict=True)
        ]

    def _mix(self, input: Tensor, log_probs: list[Tensor]) -> Tensor:
        """Return the mixture ``[b, T, V]`` of the members' log-probabilities along an input ``[b, T]``."""
        token = input[:, 1:, None]
        log_posteriors = []
        for log_weight, member in zip(self._log_weights, log_probs, strict=True):
            # log P_m(u) of each prefix u: 0 for the empty one, then the sum over its tokens.
            log_prefix = member[:, :-1].gather(2, token)[..., 0].cumsum(1)
            log_posteriors.append(log_weight + torch.cat([member.new_zeros(len(member), 1), log_prefix], 1))
        return _mixture(log_posteriors, log_probs)


def _mixture(log_posteriors: Sequence[Tensor], log_probs: Sequence[Tensor]) -> Tensor:
    """Return log sum_m w_m(u) P_m(a | u).

    Args:
        log_posteriors: log(w_m P_m(u)) ``[...]`` of each member.
        log_probs: log P_m(a | u) ``[..., V]`` of each member.

    Returns:
        Log-probabilities ``[..., V]``; all -inf after a prefix that no member can generate.
    """
    pairs = zip(log_posteriors, log_probs, strict=True)
    log_terms = torch.stack([log_posterior[..., None] + member for log_posterior, member in pairs])
    total = logsumexp(torch.stack(list(log_posteriors)))[..., None]
    # -inf minus -inf would be NaN; with 0 in place of the total the result stays -inf.
    return logsumexp(log_terms) - total.masked_fill(total.isneginf(), 0.0)
