"""Distillation of a language model's traced sequences into a probabilistic automaton.

The steps are over-clustering of the prefixes by hidden state and next-token distribution, merging of the clusters by
the conditional Kullback-Leibler cost, soft labels from the teacher's distributions, and Baum-Welch refinement with
early stopping. Each step can be switched off; the teacher's held-out strings choose between the candidates.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from kdzoo.automata.candidate_scores import CandidateSearch, Distillation
from kdzoo.automata.options import DistillationOptions
from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.core.validation import positive
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences


def distill_states(
    sequences: TokenSequences | Sequence[Any], hidden: Any = None, next_probs: Any = None, **options: Any
) -> Distillation:
    """Distil the strings of a language model, with its hidden states and predictions along them, into an automaton.

    Args:
        sequences: Strings sampled from the teacher: TokenSequences, or a list of n sequences of tokens 0..S-1.
        hidden: Hidden states after the N prefixes (a string of m tokens has m + 1): ``[N, H]``, or a list of
            ``[m + 1, H]``; None if unknown.
        next_probs: Next-token distributions ``[N, V]`` with the end last, or a list; None if unknown.
        options: See :func:`distill`; also ``vocab_size`` = V, needed if the strings do not contain all tokens.

    Returns:
        The automaton with labels, the held-out objective of each kind of candidate and the path of merging.

    Raises:
        ConfigError: If an option is out of range, or there are more states than prefixes.
        DataError: If the arrays do not fit the sequences, or a token is outside the alphabet.

    Example:
        >>> import torch
        >>> sequences = [[0, 1] * (number % 3) for number in range(60)]
        >>> hidden = [torch.tensor([[1.0], [-1.0]] * 4)[: len(tokens) + 1] for tokens in sequences]
        >>> distill_states(sequences, hidden, states=2).pfa.states
        2
    """
    vocab_size = options.pop("vocab_size", None)
    return distill([TracedSequences.of(sequences, hidden, next_probs, vocab_size=vocab_size)], **options)


def distill(
    teachers: Sequence[TracedSequences], weights: Sequence[float] | None = None, **options: Any
) -> Distillation:
    """Distil the traced sequences of one teacher, or of several with weights, into one automaton.

    The prefixes of several teachers are clustered and merged teacher by teacher, as their hidden states have nothing
    in common. The resulting automata run over the strings of all teachers; prefixes at which all of them agree are
    the clusters of a common graph, which is merged again. Merging can therefore not be switched off.

    Args:
        teachers: What each teacher shows along its strings, all over one alphabet.
        weights: Weight > 0 of each teacher's strings; None for 1 each.
        options: Fields of :class:`kdzoo.automata.options.DistillationOptions`.

    Raises:
        ConfigError: If an option is unknown or out of range, or there are more states than prefixes.
        DataError: If the alphabets differ, or there is no teacher.
    """
    known = [field.name for field in fields(DistillationOptions)]
    for name in options:
        if name not in known:
            raise ConfigError(f"{name} is not a valid option of distillation; allowed: {', '.join(known)}")
    settings = DistillationOptions(**options)
    shares = [1.0] * len(teachers) if weights is None else [positive("weights", float(share)) for share in weights]
    _check_teachers(teachers, shares, settings)
    return CandidateSearch(teachers, shares, settings).run()


def _check_teachers(
    teachers: Sequence[TracedSequences], weights: Sequence[float], options: DistillationOptions
) -> None:
    if not teachers:
        raise DataError("teachers must hold at least one set of traced sequences, got none")
    if len(weights) != len(teachers):
        raise ConfigError(f"weights must hold one number for each of {len(teachers)} teachers, got {len(weights)}")
    sizes = [traced.vocab_size for traced in teachers]
    if len(set(sizes)) > 1:
        raise DataError(f"all teachers must have the same vocab_size, got {sizes}")
    if len(teachers) > 1 and not options.merge:
        raise ConfigError("merge must be true for several teachers: their clusters lie in different spaces")
    # The limit is that of the teacher with the fewest prefixes, since each one is clustered separately.
    n_prefixes = min(traced.n_prefixes for traced in teachers)
    for name, value in (("states", options.states), ("clusters", options.clusters)):
        if value is not None and value > n_prefixes:
            raise ConfigError(f"{name} must be at most the number of prefixes {n_prefixes}, got {value}")
