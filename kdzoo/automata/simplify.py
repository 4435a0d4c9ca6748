"""Smaller automata of the same, or almost the same, distribution over strings."""

import torch
from torch import Tensor

from kdzoo.automata.pfa import PFA
from kdzoo.automata.queries import reachable, terminating
from kdzoo.core import validation
from kdzoo.errors import ConfigError


def trim(pfa: PFA) -> PFA:
    """Return the automaton without the states that no string, or no string that ends, passes through.

    What is left is the distribution given that the string ends: every log-probability grows by minus the
    logarithm of the total mass, that is, by nothing for a consistent automaton.

    Raises:
        ConfigError: If no string ever ends.

    Example:
        >>> pfa = PFA.from_parameters([1, 0], [[[0.5, 0.25], [0, 1]]], [0.25, 0])
        >>> trim(pfa).transitions, trim(pfa).stop
        (tensor([[[0.5000]]], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    useful = reachable(pfa) & terminating(pfa)
    if not useful.any():
        raise ConfigError("the automaton has no string that ends: nothing is left of it")
    step = pfa.transitions[:, useful][:, :, useful]
    if bool((terminating(pfa) | ~reachable(pfa)).all()):
        return PFA.from_parameters(pfa.initial[useful], step, pfa.stop[useful])
    eye = torch.eye(step.shape[1], dtype=step.dtype, device=step.device)
    ends = torch.linalg.solve(eye - step.sum(0), pfa.stop[useful])  # probability that the string ends at all
    initial = pfa.initial[useful] * ends
    stop, step = pfa.stop[useful] / ends, step * ends / ends[:, None]
    total = stop + step.sum((0, 2))
    return PFA.from_parameters(initial / initial.sum(), step / total[:, None], stop / total)


def minimise(pfa: PFA, tolerance: float = 1e-9) -> PFA:
    """Return the automaton with equivalent states merged, after trimming.

    Two states are merged if they stop equally often and enter each class of merged states equally often with
    each token, the coarsest such classes. Of a deterministic automaton that is the least deterministic one of
    the same distribution; a nondeterministic one may have smaller equals.

    Args:
        pfa: Any automaton.
        tolerance: > 0, by which the probabilities of merged states may differ from those of the first of their
            class.

    Raises:
        ConfigError: If the tolerance is not positive, or no string ever ends.

    Example:
        >>> minimise(PFA(vocab_size=3, states=5)).states
        1

    References:
        Kemeny and Snell 1960, "Finite Markov Chains", section 6.3 (lumpability); by partition refinement.
    """
    tolerance = validation.positive("tolerance", tolerance)
    pfa = trim(pfa)
    block = torch.zeros(pfa.states, dtype=torch.int64)
    while True:
        member = torch.nn.functional.one_hot(block).to(pfa.stop)
        entering = (pfa.transitions @ member).permute(1, 0, 2).flatten(1)
        finer = _refine(block, torch.cat([entering, pfa.stop[:, None]], 1).cpu(), tolerance)
        if int(finer.max()) == int(block.max()):
            break
        block = finer
    share = member / member.sum(0)
    return PFA.from_parameters(pfa.initial @ member, share.T @ pfa.transitions @ member, share.T @ pfa.stop)


def determinise(pfa: PFA, tolerance: float = 1e-9, max_states: int = 1000) -> PFA:
    """Return a deterministic automaton whose states are beliefs of another one.

    A belief is the distribution of the state after some prefix. Beliefs are followed breadth first, and one
    that differs from an earlier one by no more than the tolerance is replaced by it. With a small tolerance
    the distribution over strings stays the same, but many automata have infinitely many beliefs; with a larger
    one it is an approximation.

    Args:
        pfa: Any automaton.
        tolerance: > 0, the sum of absolute differences up to which two beliefs are one.
        max_states: Number of beliefs at which to give up.

    Raises:
        ConfigError: If an argument is out of range, or there are more beliefs than ``max_states``.

    Example:
        >>> pfa = PFA.from_parameters([0.5, 0.5], [[[0, 0.5], [0.5, 0]]], [0.5, 0.5])
        >>> determinise(pfa).states
        1

    References:
        Mohri 1997, "Finite-state transducers in language and speech processing", Computational Linguistics
        23(2), section 3.3, for weighted automata.
    """
    tolerance, limit = validation.positive("tolerance", tolerance), validation.integer("max_states", max_states)
    beliefs = pfa.initial[None]
    steps: list[tuple[int, int, int, float]] = []
    source = 0
    while source < len(beliefs):
        following = beliefs[source] @ pfa.transitions
        for token, mass in enumerate(following.sum(1).tolist()):
            if mass > 0:
                beliefs, target = _find(beliefs, following[token] / mass, tolerance)
                steps.append((source, token, target, mass))
        source += 1
        if len(beliefs) > limit:
            raise ConfigError(
                f"the automaton has more than max_states={limit} beliefs at tolerance={tolerance:g}: "
                f"allow more states or a larger tolerance"
            )
    transitions = pfa.transitions.new_zeros(pfa.n_tokens, len(beliefs), len(beliefs))
    if steps:
        sources, tokens, targets, masses = zip(*steps, strict=True)
        transitions[list(tokens), list(sources), list(targets)] = transitions.new_tensor(masses)
    initial = torch.nn.functional.one_hot(torch.tensor(0), len(beliefs))
    return PFA.from_parameters(initial, transitions, beliefs @ pfa.stop)


def _refine(block: Tensor, signature: Tensor, tolerance: float) -> Tensor:
    """Split each block of states ``[K]`` so that the signatures ``[K, m]`` of a part lie within the tolerance."""
    finer, number = torch.full_like(block, -1), 0
    for state in range(len(block)):
        if finer[state] < 0:
            like = (signature - signature[state]).abs().amax(1) <= tolerance
            finer[like & (block == block[state]) & (finer < 0)] = number
            number += 1
    return finer


def _find(beliefs: Tensor, belief: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """Return the beliefs ``[M, K]``, with one more if it is new, and the number of the nearest of them."""
    distance, nearest = (beliefs - belief).abs().sum(1).min(0)
    if distance <= tolerance:
        return beliefs, int(nearest)
    return torch.cat([beliefs, belief[None]]), len(beliefs)
