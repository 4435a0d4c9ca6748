"""Smaller automata with the same, or almost the same, distribution over strings. Notation: K states, S tokens."""

import torch
from torch import Tensor

from kdzoo.automata.pfa import PFA
from kdzoo.automata.queries import reachable, terminating
from kdzoo.core import validation
from kdzoo.errors import ConfigError


def trim(pfa: PFA) -> PFA:
    """Return the automaton without unreachable states and states from which no string ends.

    The result is the distribution conditioned on the string being finite: every log-probability is increased by minus
    the logarithm of the total mass, which is 0 for a consistent automaton.

    Raises:
        ConfigError: If no string ever ends.

    Example:
        >>> pfa = PFA.from_parameters([1, 0], [[[0.5, 0.25], [0, 1]]], [0.25, 0])
        >>> trim(pfa).transitions, trim(pfa).stop
        (tensor([[[0.5000]]], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    useful = reachable(pfa) & terminating(pfa)
    if not useful.any():
        raise ConfigError("the automaton has no string that ends: no state would be left")
    step = pfa.transitions[:, useful][:, :, useful]
    # A consistent automaton keeps its parameters exactly; conditioning would only add rounding errors.
    if bool((terminating(pfa) | ~reachable(pfa)).all()):
        return PFA.from_parameters(pfa.initial[useful], step, pfa.stop[useful])
    eye = torch.eye(step.shape[1], dtype=step.dtype, device=step.device)
    # Doob's transform: with the probability h(k) that a string ends from state k, P(a, l | k) becomes
    # P(a, l | k) h(l) / h(k).
    ends = torch.linalg.solve(eye - step.sum(0), pfa.stop[useful])
    initial = pfa.initial[useful] * ends
    stop, step = pfa.stop[useful] / ends, step * ends / ends[:, None]
    total = stop + step.sum((0, 2))
    return PFA.from_parameters(initial / initial.sum(), step / total[:, None], stop / total)


def minimise(pfa: PFA, tolerance: float = 1e-9) -> PFA:
    """Return the automaton with equivalent states merged, after trimming.

    Two states are equivalent if they have the same stop probability and the same probability of entering each class
    of equivalent states with each token; the coarsest such classes are merged. For a deterministic automaton the result
    is the smallest deterministic one with the same distribution. For a non-deterministic automaton a smaller one may
    exist.

    Args:
        pfa: Any automaton.
        tolerance: Largest difference > 0 between the probabilities of a state and those of the first state of its
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
        # Blocks are only ever split, so an unchanged number means an unchanged partition.
        if int(finer.max()) == int(block.max()):
            break
        block = finer
    # Rows of a class are equal up to the tolerance: their mean is the row of the merged state.
    share = member / member.sum(0)
    return PFA.from_parameters(pfa.initial @ member, share.T @ pfa.transitions @ member, share.T @ pfa.stop)


def determinise(pfa: PFA, tolerance: float = 1e-9, max_states: int = 1000) -> PFA:
    """Return a deterministic automaton whose states are beliefs of another one.

    A belief is the distribution of the state after some prefix. Beliefs are explored breadth first, and a belief that
    differs from an earlier one by no more than the tolerance is replaced by it. With a small tolerance the
    distribution over strings stays the same, but many automata have infinitely many beliefs. With a larger tolerance
    the result is an approximation.

    Args:
        pfa: Any automaton.
        tolerance: Sum of absolute differences > 0 up to which two beliefs are treated as equal.
        max_states: Maximum number of beliefs, >= 1.

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
    # ``beliefs`` grows while the successors of its rows are looked up.
    while source < len(beliefs):
        successors = beliefs[source] @ pfa.transitions
        for token, mass in enumerate(successors.sum(1).tolist()):
            if mass > 0:
                beliefs, target = _find_or_append(beliefs, successors[token] / mass, tolerance)
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
    finer, n_blocks = torch.full_like(block, -1), 0
    for state in range(len(block)):
        if finer[state] < 0:
            is_close = (signature - signature[state]).abs().amax(1) <= tolerance
            finer[is_close & (block == block[state]) & (finer < 0)] = n_blocks
            n_blocks += 1
    return finer


def _find_or_append(beliefs: Tensor, belief: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """Return the beliefs ``[M, K]``, with the given one appended if it is new, and its index."""
    distance, nearest = (beliefs - belief).abs().sum(1).min(0)
    if distance <= tolerance:
        return beliefs, int(nearest)
    return torch.cat([beliefs, belief[None]]), len(beliefs)
