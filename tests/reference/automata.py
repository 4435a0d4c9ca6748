"""Probabilistic automata by definition, in NumPy: sums over state paths and over strings, one at a time.

Parameters are arrays: initial [K], transitions [S, K, K] = P(a, l | k), stop [K].
"""

from itertools import product

import numpy as np


def strings_up_to(n_tokens, longest):
    """List all strings of at most ``longest`` tokens, shortest first."""
    return [list(string) for length in range(longest + 1) for string in product(range(n_tokens), repeat=length)]


def path_probs(initial, transitions, stop, string):
    """Return the probability of the string together with each sequence of states, as a dict."""
    states = range(len(initial))
    probs = {}
    for path in product(states, repeat=len(string) + 1):
        prob = initial[path[0]] * stop[path[-1]]
        for token, before, after in zip(string, path, path[1:], strict=False):
            prob *= transitions[token, before, after]
        probs[path] = prob
    return probs


def string_prob(initial, transitions, stop, string):
    """Return the probability of the string by the unscaled forward recursion."""
    belief = np.asarray(initial, dtype=np.float64)
    for token in string:
        belief = belief @ transitions[token]
    return float(belief @ stop)


def random_parameters(states, n_tokens, seed, *, density=1.0, least_stop=0.05, deterministic=False):
    """Draw an automaton whose states can all stop; a share of 1 - ``density`` of its transitions is 0.

    With ``deterministic``, each state and token has one successor.
    """
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.7, size=(n_tokens, states, states))
    if deterministic:
        successor = rng.integers(states, size=(n_tokens, states, 1))
        weights = np.where(np.arange(states) == successor, weights, 0.0)
    weights = np.where(rng.random(weights.shape) < density, weights, 0.0)
    stop = least_stop + rng.random(states) * (1 - least_stop) / 2
    mass = weights.sum((0, 2))
    stop = np.where(mass > 0, stop, 1.0)
    transitions = weights * ((1 - stop) / np.where(mass > 0, mass, 1.0))[None, :, None]
    initial = np.eye(states)[0] if deterministic else rng.dirichlet(np.ones(states))
    return initial, transitions, stop
