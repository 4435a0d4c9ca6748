"""Distillation of a language model's trajectories into a probabilistic automaton.

The stages: over-clustering of the points on hidden state and next-token distribution, merging of the clusters by
the conditional Kullback-Leibler cost, soft labels from the teacher's distributions, and Baum-Welch refinement
with early stopping. Each can be switched off; where several candidates arise, the teacher's held-out strings
choose.
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
    """Distil the strings of a language model, with what it held at their points, into an automaton.

    Args:
        sequences: strings sampled from the teacher: TokenSequences, or a list of n sequences of tokens 0..S-1.
        hidden: hidden states at the N points (a string of m tokens has m + 1): [N, H], or a list of [m + 1, H].
        next_probs: next-token distributions [N, V] with the end last, or a list; None where unknown.
        options: see :func:`distill`; also vocab_size = V, needed where the strings do not show all tokens.

    Returns:
        The automaton with labels, the held-out objective of each stage and the path of merging.

    Raises:
        ConfigError: an option is out of range, or there are more states than points.
        DataError: the arrays do not fit the sequences, or a token is outside the alphabet.

    Example:
        >>> import torch
        >>> sequences = [[0, 1] * (number % 3) for number in range(60)]
        >>> hidden = [torch.tensor([[1.0], [-1.0]] * 4)[: len(one) + 1] for one in sequences]
        >>> distill_states(sequences, hidden, states=2).pfa.states
        2
    """
    vocab_size = options.pop("vocab_size", None)
    return distill([TracedSequences.of(sequences, hidden, next_probs, vocab_size=vocab_size)], **options)


def distill(teachers: Sequence[TracedSequences], weights: Sequence[float] | None = None, **options: Any) -> Distillation:
    """Distil the trajectories of one teacher, or of several with weights, into one automaton.

    The points of several teachers are clustered and merged teacher by teacher, as their hidden states have nothing
    in common; the automata that result run over the strings of all teachers, and the points that all of them
    tell alike are the clusters of a common graph that is merged again. So merging cannot be switched off.

    Args:
        teachers: what each teacher shows, all with one alphabet.
        weights: weight > 0 of each teacher's strings; None for 1 each.
        options:
            states: number of states K; None to choose it by the penalised objective of the merge path.
            features: what the points are clustered on: "hidden", "sqrt_probs" or "both"; "learned" is both with the
                states of a small recurrent network in place of hidden ones, see :mod:`kdzoo.automata.learned_states`.
            merge: cluster into more clusters first and merge them; otherwise k-means gives the states directly.
            clusters: number of clusters before merging; None for max(60, 5 K), at most one for 20 points, and fewer
                where the quotient graph would be too large.
            soft: use the teacher's next-token distributions in place of the sampled symbols in all counts.
            em: refine by Baum-Welch.
            em_steps: greatest number of Baum-Welch steps.
            determinism: weight > 0 of the transitions in the merge cost; more makes the automaton deterministic, and
                above 1 only merged automata compete.
            penalty: factor > 0 of the penalty that chooses the number of states.
            restarts: clusterings that compete, >= 1.
            pseudocount: weight > 0 added to each symbol of each state; None for 0.01, and for 0.0001 where a teacher's
                distributions say what is possible.
            held_out: share of the strings that chooses between candidates, in [0, 1); 0 judges on all strings.
            seed: seed of all draws.

    Raises:
        ConfigError: an option is out of range, or there are more states than points.
        DataError: the alphabets differ, or there is no teacher.
    """
    known = [one.name for one in fields(DistillationOptions)]
    for name in options:
        if name not in known:
            raise ConfigError(f"{name} is no option of distillation; the options: {', '.join(known)}")
    settings = DistillationOptions(**options)
    shares = [1.0] * len(teachers) if weights is None else [positive("weights", float(one)) for one in weights]
    _check_teachers(teachers, shares, settings)
    return CandidateSearch(teachers, shares, settings).run()


def _check_teachers(teachers: Sequence[TracedSequences], weights: Sequence[float], options: DistillationOptions) -> None:
    if not teachers:
        raise DataError("teachers must hold at least one set of trajectories, got none")
    if len(weights) != len(teachers):
        raise ConfigError(f"weights must hold one number for each of {len(teachers)} teachers, got {len(weights)}")
    sizes = [one.vocab_size for one in teachers]
    if len(set(sizes)) > 1:
        raise DataError(f"all teachers must have the same vocab_size, got {sizes}")
    if len(teachers) > 1 and not options.merge:
        raise ConfigError("merge must be true for several teachers, whose clusters have to be brought together")
    points = min(one.n_prefixes for one in teachers)
    for name in ("states", "clusters"):
        wanted = getattr(options, name)
        if wanted is not None and wanted > points:
            raise ConfigError(f"{name} must be at most the number of points {points}, got {wanted}")
