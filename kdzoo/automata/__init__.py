"""Probabilistic finite automata: the model, queries on it, its estimation from data, and its exchange formats.

This package holds the mathematics of automata and needs no training loop; the distillers that use it are in
:mod:`kdzoo.distillers.automata`. It imports only from ``errors``, ``core``, ``storage`` and ``text``.
"""

from kdzoo.automata.baselines import BASELINES
from kdzoo.automata.compare import conditional_kl, distinguishing_string, kl, kl_monte_carlo, pautomac_score, perplexity
from kdzoo.automata.dfa import DFA, counterexample, equivalent, from_pfa, support
from kdzoo.automata.pfa import PFA
from kdzoo.automata.queries import (
    consistent,
    entropy,
    entropy_monte_carlo,
    entropy_rate,
    entropy_rate_monte_carlo,
    expected_length,
    expected_visits,
    infix_expectation,
    infix_probability,
    prefix_log_prob,
    total_mass,
    viterbi,
)
from kdzoo.automata.simplify import determinise, minimise, trim
from kdzoo.automata.targets import embedded_reber, random_hmm, random_pdfa, random_pnfa, tomita, tomita_dfa, uhl
from kdzoo.automata.traced_sequences import TracedSequences

__all__ = [
    "BASELINES",
    "DFA",
    "PFA",
    "TracedSequences",
    "conditional_kl",
    "consistent",
    "counterexample",
    "determinise",
    "distinguishing_string",
    "embedded_reber",
    "entropy",
    "entropy_monte_carlo",
    "entropy_rate",
    "entropy_rate_monte_carlo",
    "equivalent",
    "expected_length",
    "expected_visits",
    "from_pfa",
    "infix_expectation",
    "infix_probability",
    "kl",
    "kl_monte_carlo",
    "minimise",
    "pautomac_score",
    "perplexity",
    "prefix_log_prob",
    "random_hmm",
    "random_pdfa",
    "random_pnfa",
    "support",
    "tomita",
    "tomita_dfa",
    "total_mass",
    "trim",
    "uhl",
    "viterbi",
]
