r"""Comparison of distributions over strings: perplexity, the PAutomaC score, divergences, exact equality.

Divergences and perplexities are per symbol, where the end of a string counts as a symbol: they are divided by the
mean of |w| + 1. Their unit is the nat. Multiply by ``expected_length(p) + 1`` for the divergence per string.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array, csc_array, eye_array
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import spsolve
from torch import Tensor

from kdzoo.automata.pfa import PFA
from kdzoo.automata.queries import Estimate, consistent, expected_length
from kdzoo.core import validation
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.language_model import LanguageModel, device_of, trace
from kdzoo.text.token_sequences import TokenSequences


def perplexity(log_probs: Tensor, strings: TokenSequences) -> float:
    r"""Return the perplexity per symbol, :math:`\exp(-\sum \log P(w) / \sum (|w| + 1))`.

    Args:
        log_probs: Log-probability of each string in nats ``[n]``.
        strings: The n strings, n >= 1.

    Returns:
        A number >= 1; inf if one of the strings is impossible.

    Raises:
        DataError: If there are no strings, or ``log_probs`` does not have one number for each.

    Example:
        >>> strings = TokenSequences.of([[0], [1, 0]])
        >>> round(perplexity(PFA(vocab_size=3).log_prob(strings), strings), 6)
        3.0
    """
    if len(strings) == 0 or log_probs.shape != (len(strings),):
        raise DataError(f"log_probs must be [n] for n >= 1 strings, got {list(log_probs.shape)} for {len(strings)}")
    return math.exp(-float(log_probs.double().sum()) / strings.n_prefixes)


def pautomac_score(truth: Tensor, model: Tensor) -> float:
    r"""Return the score of the PAutomaC competition, :math:`2^{-\sum_w p(w) \log_2 q(w)}`; lower is better.

    p and q are the probabilities of the test strings under the true distribution and the model, each normalized to
    sum 1 over the test set. The lowest possible score is that of the true distribution itself.

    Args:
        truth: Log-probabilities of the test strings under the true distribution in nats ``[n]``. A constant that is
            added to all of them has no effect.
        model: Log-probabilities of the test strings under the model, likewise.

    Returns:
        A number >= 1; inf if the model excludes a possible string.

    Raises:
        DataError: If the shapes differ, a number is NaN or +inf, or a distribution excludes every string.

    Example:
        >>> import torch
        >>> pautomac_score(torch.zeros(4), torch.zeros(4))
        4.0

    References:
        Verwer, Eyraud and de la Higuera 2014, "PAutomaC", Machine Learning 96, section 4.2.
    """
    if truth.shape != model.shape or truth.ndim != 1:
        raise DataError(f"truth and model must both be [n], got {list(truth.shape)} and {list(model.shape)}")
    for name, value in (("truth", truth), ("model", model)):
        if not bool((value < math.inf).all()) or not bool(value.isfinite().any()):
            raise DataError(f"{name} must hold log-probabilities, finite or -inf but not all -inf")
    # 2^(-sum p log2 q) = exp(-sum p log q), so natural logarithms give the same score. The term of a string that p
    # excludes is 0, although its log q may be -inf.
    p, log_q = truth.double().softmax(0), model.double().log_softmax(0)
    return float(torch.where(p > 0, -p * log_q, 0.0).sum().exp())


def kl(p: PFA, q: PFA) -> float:
    r"""Return KL(p || q) between two automata exactly, in nats per symbol.

    For deterministic automata the divergence is a sum over pairs of states: the expected number of visits of the
    pair, times the divergence of their next-symbol distributions.

    Args:
        p: The reference automaton; deterministic and consistent.
        q: The automaton that is compared with it; deterministic.

    Returns:
        A number >= 0; inf if q excludes a string that is possible under p.

    Raises:
        ConfigError: If an automaton is not deterministic, p is not consistent, or the alphabets differ. Try
            :func:`kdzoo.automata.simplify.determinise`, or estimate with :func:`kl_monte_carlo`.

    Example:
        >>> p, q = (PFA.from_parameters([1], [[[1 - stop]]], [stop]) for stop in (0.5, 0.25))
        >>> round(kl(p, q), 6), round(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), 6)
        (0.143841, 0.143841)

    References:
        Carrasco 1997, "Accurate computation of the relative entropy between stochastic regular grammars",
        RAIRO 31(5).
    """
    _check_same_tokens(p.vocab_size, q.vocab_size)
    for name, automaton in (("p", p), ("q", q)):
        if not automaton.deterministic:
            raise ConfigError(
                f"the exact divergence needs deterministic automata and {name} is not: "
                f"determinise it, or use kl_monte_carlo"
            )
    if not consistent(p):
        raise ConfigError("the exact divergence needs a consistent automaton p; trim it first")
    pairs, visits = _product_visits(p, q)
    local = _divergence(p.emissions.cpu().log()[pairs // q.states], q.emissions.cpu().log()[pairs % q.states])
    return math.inf if local.isinf().any() else float(visits @ local) / (expected_length(p) + 1)


def conditional_kl(p: LanguageModel, q: LanguageModel, input: Tensor) -> Tensor:
    """Return KL(p || q) of the next-symbol distributions after each prefix, float64 ``[batch, time]`` in nats.

    Args:
        p: The reference model.
        q: The model that is compared with it.
        input: Begin marker, then tokens, int64 ``[batch, time]``; the results at padded positions have no meaning.

    Raises:
        ConfigError: If the alphabets differ.
    """
    _check_same_tokens(p.vocab_size, q.vocab_size)
    log_p, log_q = (trace(model, input.to(device_of(model))).log_probs.cpu().double() for model in (p, q))
    return _divergence(log_p, log_q)


def kl_monte_carlo(p: LanguageModel, q: LanguageModel, strings: TokenSequences, *, batch_size: int = 256) -> Estimate:
    r"""Estimate KL(p || q) in nats per symbol from strings that were sampled from p.

    The divergences of the next-symbol distributions are averaged over all prefixes of the strings. This average has
    less variance than that of log p(w) - log q(w), and is never negative.

    Args:
        p: The model that the strings were sampled from.
        q: Any model over the same alphabet.
        strings: At least two independent strings.
        batch_size: Number of strings that are evaluated together, >= 1.

    Returns:
        The estimate and its standard error, which is correct to first order in 1/n for n strings.

    Raises:
        ConfigError: If the alphabets differ.
        DataError: If there are fewer than two strings, or a token is outside the alphabet.

    References:
        Cotterell et al. 2025, "Better estimation of the KL divergence between language models" (the
        Rao-Blackwellised estimator).
    """
    if len(strings) < 2:
        raise DataError(f"kl_monte_carlo needs at least 2 strings, got {len(strings)}")
    strings.check(p.vocab_size)
    sums = torch.empty(len(strings), dtype=torch.float64)
    # Sorted by length, so that a batch has little padding.
    for index in strings.lengths.argsort(stable=True).split(validation.integer("batch_size", batch_size)):
        input, target = strings.select(index).inputs_and_targets(p.vocab_size)
        sums[index] = conditional_kl(p, q, input).masked_fill(target == IGNORE, 0.0).sum(1)
    symbols = (strings.lengths + 1).double()
    value = sums.sum() / symbols.sum()
    # The value is a ratio of two means that are correlated, since long strings tend to have large sums: the delta
    # method takes that into account.
    error = (sums - value * symbols).std() / (symbols.mean() * len(strings) ** 0.5)
    return Estimate(float(value), float(error))


def distinguishing_string(p: PFA, q: PFA, tolerance: float = 1e-9) -> list[int] | None:
    """Return a string to which two automata give different probabilities; None if they are equal.

    At most K_p + K_q prefixes are extended, shortest first: their forward vectors span those of all other prefixes.

    Args:
        p: An automaton with K_p states.
        q: An automaton with K_q states over the same tokens.
        tolerance: Largest difference of two probabilities that is treated as 0, > 0. It is relative to the probability
            of the string as a prefix, under the automaton that gives it the higher one.

    Returns:
        The token ids of a shortest such string, without the end; None if there is none.

    Raises:
        ConfigError: If the alphabets differ or the tolerance is not positive.

    Example:
        >>> p = PFA.from_parameters([1], [[[0.5]]], [0.5])
        >>> distinguishing_string(p, PFA(vocab_size=2, states=3))
        >>> distinguishing_string(p, PFA.from_parameters([1, 0], [[[0, 0.5], [0, 0.4]]], [0.5, 0.6]))
        [0]

    References:
        Tzeng 1992, "A polynomial-time algorithm for the equivalence of probabilistic automata", SIAM J. Comput.
    """
    _check_same_tokens(p.vocab_size, q.vocab_size)
    tolerance = validation.positive("tolerance", tolerance)
    steps = torch.stack([torch.block_diag(a, b) for a, b in zip(p.transitions, q.transitions, strict=True)])
    ends = torch.cat([p.stop, -q.stop])
    basis = ends.new_empty(0, len(ends))
    queue: list[tuple[list[int], Tensor]] = [([], torch.cat([p.initial, q.initial]))]
    for string, vector in queue:
        if abs(float(vector @ ends)) > tolerance:
            return string
        residual = vector - (vector @ basis.T) @ basis
        # Orthogonalised a second time, since rounding errors of the first are large relative to a small residual.
        residual = residual - (residual @ basis.T) @ basis
        if residual.norm() > tolerance * vector.norm():
            basis = torch.cat([basis, residual[None] / residual.norm()])
            for token, successor in enumerate(vector @ steps):
                # Scaled by the larger mass. Otherwise the probabilities of all long strings would be below the
                # tolerance.
                mass = max(float(successor[: p.states].sum()), float(successor[p.states :].sum()))
                if mass > 0:
                    queue.append(([*string, token], successor / mass))
    return None


class _PairTransitions(NamedTuple):
    """Transitions between pairs of states of p and q: indices of the pairs and probability under p, ``[m]`` each."""

    source: np.ndarray
    target: np.ndarray
    probability: np.ndarray


def _product_visits(p: PFA, q: PFA) -> tuple[Tensor, Tensor]:
    """Return the reachable pairs of states and the expected number of visits of p to each, ``[m]`` for m pairs.

    The pair (k_p, k_q) has the index k_p K_q + k_q. Pairs that can only be reached by a token that q excludes are left
    out, since such a token makes the divergence infinite in any case.
    """
    size, root = p.states * q.states, int(p.initial.argmax()) * q.states + int(q.initial.argmax())
    steps = _pair_transitions(p, q)
    matrix = coo_array((steps.probability, (steps.source, steps.target)), shape=(size, size)).tocsr()
    pairs = breadth_first_order(matrix, root, return_predecessors=False)
    # Sparse, since few of the K_p K_q pairs are reachable, and each has at most S successors.
    system = csc_array(eye_array(len(pairs)) - matrix[pairs][:, pairs].T)
    start = np.zeros(len(pairs))
    start[0] = float(p.initial.max())
    visits = np.atleast_1d(spsolve(system, start))
    return torch.from_numpy(pairs.astype(np.int64)), torch.from_numpy(visits)


def _pair_transitions(p: PFA, q: PFA) -> _PairTransitions:
    """Return the transitions between pairs of states, one in each automaton, by the same token."""
    columns_by_token = []
    for p_matrix, q_matrix in zip(p.transitions.cpu(), q.transitions.cpu(), strict=True):
        (k, k_next), (i, i_next) = p_matrix.nonzero().T, q_matrix.nonzero().T
        source = (k[:, None] * q.states + i).flatten()
        target = (k_next[:, None] * q.states + i_next).flatten()
        columns_by_token.append((source, target, p_matrix[k, k_next].repeat_interleave(len(i))))
    return _PairTransitions(*(torch.cat(columns).numpy() for columns in zip(*columns_by_token, strict=True)))


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) ``[...]`` of two distributions ``[..., V]`` from their logarithms.

    It is never negative, and inf where q excludes a symbol that is possible under p.
    """
    p = log_p.exp()
    # p (log p - log q) - p + q has the same sum, and none of its terms is negative: small divergences keep their
    # digits instead of cancelling to rounding errors of either sign.
    ratio = torch.where(p > 0, log_q - log_p, 0.0)
    terms = torch.where(ratio.isneginf(), math.inf, p * (ratio.expm1() - ratio))
    return torch.where(p > 0, terms, log_q.exp()).clamp(min=0).sum(-1)


def _check_same_tokens(first: int, second: int) -> None:
    if first != second:
        raise ConfigError(f"both models must have the same alphabet, got vocab_size {first} and {second}")
