r"""Comparison of distributions over strings: perplexity, the PAutomaC score, divergences, exact equality.

Divergences and perplexities are per symbol, the end of a string being one: divided by the mean of |w| + 1. Their
unit is the nat. Multiply by ``expected_length(p) + 1`` for the divergence per string.
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
        log_probs: log-probability of each string in nats [n].
        strings: the n >= 1 strings.

    Returns:
        At least 1; inf if one of the strings is impossible.

    Raises:
        DataError: there are no strings, or not one number for each.

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

    p and q are the probabilities that truth and model give to the strings of the test set, each scaled to sum 1
    over the set. The least score is that of the truth itself.

    Args:
        truth: log-probabilities of the test strings under the truth in nats [n], in any constant scale.
        model: the same under the model.

    Returns:
        A number >= 1; inf if the model excludes a possible string.

    Raises:
        DataError: the shapes differ, a number is NaN or +inf, or a distribution excludes every string.

    Example:
        >>> import torch
        >>> pautomac_score(torch.zeros(4), torch.zeros(4))
        4.0

    Source:
        Verwer, Eyraud and de la Higuera 2014, "PAutomaC", Machine Learning 96, section 4.2.
    """
    if truth.shape != model.shape or truth.ndim != 1:
        raise DataError(f"truth and model must both be [n], got {list(truth.shape)} and {list(model.shape)}")
    for name, value in (("truth", truth), ("model", model)):
        if not bool((value < math.inf).all()) or not bool(value.isfinite().any()):
            raise DataError(f"{name} must hold log-probabilities, finite or -inf but not all -inf")
    p, log_q = truth.double().softmax(0), model.double().log_softmax(0)
    return float(torch.where(p > 0, -p * log_q, 0.0).sum().exp())


def kl(p: PFA, q: PFA) -> float:
    r"""Return KL(p || q) between two automata exactly, in nats per symbol.

    With deterministic automata the divergence is the expected number of visits of each pair of states, times
    the divergence of their next-symbol distributions.

    Returns:
        A number >= 0; inf if q excludes a string that is possible under p.

    Raises:
        ConfigError: an automaton is not deterministic, p is not consistent, or the alphabets differ. Try
            :func:`kdzoo.automata.simplify.determinise`, or estimate with :func:`kl_monte_carlo`.

    Example:
        >>> p, q = (PFA.from_parameters([1], [[[1 - stop]]], [stop]) for stop in (0.5, 0.25))
        >>> round(kl(p, q), 6), round(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), 6)
        (0.143841, 0.143841)

    Source:
        Carrasco 1997, "Accurate computation of the relative entropy between stochastic regular grammars",
        RAIRO 31(5).
    """
    _check_same_tokens(p.vocab_size, q.vocab_size)
    for name, one in (("p", p), ("q", q)):
        if not one.deterministic:
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
    """Return the divergence of the next-symbol distributions after each prefix, float64 [b, T] in nats.

    Args:
        p: the model that is taken as true.
        q: the model that is compared with it.
        input: begin marker, then tokens, int64 [b, T]; what stands at padded positions means nothing.

    Raises:
        ConfigError: the alphabets differ.
    """
    _check_same_tokens(p.vocab_size, q.vocab_size)
    log_p, log_q = (trace(one, input.to(device_of(one))).log_probs.cpu().double() for one in (p, q))
    return _divergence(log_p, log_q)


def kl_monte_carlo(p: LanguageModel, q: LanguageModel, strings: TokenSequences, *, batch_size: int = 256) -> Estimate:
    r"""Estimate KL(p || q) in nats per symbol from strings that were drawn from p.

    The divergences of the next-symbol distributions are averaged over all points of the strings. That varies
    less than the average of log p(w) - log q(w), and is never negative.

    Args:
        p: the model that the strings were drawn from.
        q: any model of the same alphabet.
        strings: at least two.
        batch_size: strings that are read together.

    Returns:
        The estimate and its standard error, to first order in 1/n, the strings being independent.

    Raises:
        ConfigError: the alphabets differ.
        DataError: there are fewer than two strings, or a token is outside the alphabet.

    Source:
        Cotterell et al. 2025, "Better estimation of the KL divergence between language models" (the
        Rao-Blackwellised estimator).
    """
    if len(strings) < 2:
        raise DataError(f"kl_monte_carlo needs at least 2 strings, got {len(strings)}")
    strings.check(p.vocab_size)
    sums = torch.empty(len(strings), dtype=torch.float64)
    for numbers in strings.lengths.argsort(stable=True).split(validation.integer("batch_size", batch_size)):
        input, target = strings.select(numbers).inputs_and_targets(p.vocab_size)
        sums[numbers] = conditional_kl(p, q, input).masked_fill(target == IGNORE, 0.0).sum(1)
    symbols = (strings.lengths + 1).double()
    value = sums.sum() / symbols.sum()
    error = (sums - value * symbols).std() / (symbols.mean() * len(strings) ** 0.5)
    return Estimate(float(value), float(error))


def distinguishing_string(p: PFA, q: PFA, tolerance: float = 1e-9) -> list[int] | None:
    """Return a string that shows that two automata differ; None if they are the same distribution.

    A string shows it if the probabilities of its end, given that one of the automata has come this far, differ
    by more than the tolerance. At most K_p + K_q prefixes are tried, shortest first: they span all others.

    Args:
        p: an automaton.
        q: an automaton over the same tokens.
        tolerance: > 0.

    Raises:
        ConfigError: the alphabets differ or the tolerance is not positive.

    Example:
        >>> p = PFA.from_parameters([1], [[[0.5]]], [0.5])
        >>> distinguishing_string(p, PFA(vocab_size=2, states=3))
        >>> distinguishing_string(p, PFA.from_parameters([1, 0], [[[0, 0.5], [0, 0.4]]], [0.5, 0.6]))
        [0]

    Source:
        Tzeng 1992, "A polynomial-time algorithm for the equivalence of probabilistic automata", SIAM J. Comput.
    """
    _check_same_tokens(p.vocab_size, q.vocab_size)
    tolerance = validation.positive("tolerance", tolerance)
    steps = torch.stack([torch.block_diag(a, b) for a, b in zip(p.transitions, q.transitions, strict=True)])
    ends = torch.cat([p.stop, -q.stop])
    basis = ends.new_empty(0, len(ends))
    waiting: list[tuple[list[int], Tensor]] = [([], torch.cat([p.initial, q.initial]))]
    for string, vector in waiting:
        if abs(float(vector @ ends)) > tolerance:
            return string
        rest = vector - (vector @ basis.T) @ basis
        rest = rest - (rest @ basis.T) @ basis
        if rest.norm() > tolerance * vector.norm():
            basis = torch.cat([basis, rest[None] / rest.norm()])
            for token, following in enumerate(vector @ steps):
                mass = max(float(following[: p.states].sum()), float(following[p.states :].sum()))
                if mass > 0:
                    waiting.append(([*string, token], following / mass))
    return None


class _Product(NamedTuple):
    """Steps between pairs of states: numbers of the pairs and probability under p, [m] each."""

    source: np.ndarray
    target: np.ndarray
    probability: np.ndarray


def _product_visits(p: PFA, q: PFA) -> tuple[Tensor, Tensor]:
    """Return the reachable pairs of states, numbered k_p K_q + k_q [m], and how often p visits each [m].

    Pairs beyond a token that q excludes are not among them.
    """
    size, root = p.states * q.states, int(p.initial.argmax()) * q.states + int(q.initial.argmax())
    steps = _product(p, q)
    matrix = coo_array((steps.probability, (steps.source, steps.target)), shape=(size, size)).tocsr()
    pairs = breadth_first_order(matrix, root, return_predecessors=False)
    system = csc_array(eye_array(len(pairs)) - matrix[pairs][:, pairs].T)
    begin = np.zeros(len(pairs))
    begin[0] = float(p.initial.max())
    visits = np.atleast_1d(spsolve(system, begin))
    return torch.from_numpy(pairs.astype(np.int64)), torch.from_numpy(visits)


def _product(p: PFA, q: PFA) -> _Product:
    """Return the steps that two deterministic automata can take together."""
    parts = []
    for a, b in zip(p.transitions.cpu(), q.transitions.cpu(), strict=True):
        (k, k_next), (i, i_next) = a.nonzero().T, b.nonzero().T
        source = (k[:, None] * q.states + i).flatten()
        target = (k_next[:, None] * q.states + i_next).flatten()
        parts.append((source, target, a[k, k_next].repeat_interleave(len(i))))
    return _Product(*(torch.cat(columns).numpy() for columns in zip(*parts, strict=True)))


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) of distributions [..., V] given by logarithms; never negative, inf where q excludes p."""
    p = log_p.exp()
    # p (log p - log q) - p + q has the same sum, and none of its terms is negative
    ratio = torch.where(p > 0, log_q - log_p, 0.0)
    terms = torch.where(ratio.isneginf(), math.inf, p * (ratio.expm1() - ratio))
    return torch.where(p > 0, terms, log_q.exp()).clamp(min=0).sum(-1)


def _check_same_tokens(first: int, second: int) -> None:
    if first != second:
        raise ConfigError(f"both models must have the same alphabet, got vocab_size {first} and {second}")
