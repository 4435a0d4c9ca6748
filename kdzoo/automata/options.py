"""The options of distilling a language model's traced sequences, and their allowed values."""

from dataclasses import dataclass

from kdzoo.automata.traced_sequences import FEATURES
from kdzoo.core.validation import choice, flag, integer, positive, probability
from kdzoo.errors import ConfigError

# The features that come from a small recurrent network, see kdzoo.automata.learned_states. They have to be trained,
# so they are not among the FEATURES that traced sequences can compute without training.
LEARNED = "learned"


@dataclass(frozen=True)
class DistillationOptions:
    """How to distil; each field is an argument of :func:`kdzoo.automata.distill.distill` of the same name.

    Args:
        states: Number of states K >= 1; None to choose it by the penalised objective of the merge path.
        features: What the prefixes are clustered on: ``hidden`` states, ``sqrt_probs`` (square root of the next-token
            distribution) or ``both``; ``learned`` is both with the states of a small recurrent network in place of
            the hidden states, see :mod:`kdzoo.automata.learned_states`.
        merge: Cluster into more clusters than states and merge them; otherwise k-means gives the states directly.
        clusters: Number of clusters before merging; None for max(60, 5 K), at most one for 20 prefixes, and fewer if
            the quotient graph would be too large.
        soft: Use the teacher's next-token distributions in place of the sampled symbols in all counts.
        em: Refine by Baum-Welch.
        em_steps: Maximum number of Baum-Welch steps, >= 0.
        determinism: Weight > 0 of the transitions in the merge cost. A greater weight makes the automaton more
            deterministic, and above 1 only merged automata compete.
        penalty: Factor > 0 of the penalty that chooses the number of states; 1 is the Bayesian information criterion.
        restarts: Number of clusterings that compete, >= 1.
        pseudocount: Weight > 0 added to each symbol of each state; None for 0.01, or for 0.0001 if the teacher's
            distributions are known.
        held_out: Share of the strings that chooses between candidates, in [0, 1); with 0, all strings do.
        seed: Seed of all random draws, >= 0.

    Raises:
        ConfigError: If a value is out of range, or two values exclude each other.
    """

    states: int | None = None
    features: str = "both"
    merge: bool = True
    clusters: int | None = None
    soft: bool = True
    em: bool = True
    em_steps: int = 100
    determinism: float = 1.0
    penalty: float = 1.0
    restarts: int = 3
    pseudocount: float | None = None
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.states is not None:
            integer("states", self.states)
        if self.clusters is not None:
            integer("clusters", self.clusters)
            if self.states is not None and self.clusters < self.states:
                raise ConfigError(f"clusters must be at least states = {self.states}, got {self.clusters}")
        # How many states are enough is determined from the merge path.
        if self.states is None and not self.merge:
            raise ConfigError("states must be given if merge is false, got None")
        choice("features", self.features, (*FEATURES, LEARNED))
        for name, value in (("merge", self.merge), ("soft", self.soft), ("em", self.em)):
            flag(name, value)
        integer("em_steps", self.em_steps, 0)
        integer("restarts", self.restarts)
        integer("seed", self.seed, 0)
        positive("determinism", self.determinism)
        positive("penalty", self.penalty)
        if self.pseudocount is not None:
            positive("pseudocount", self.pseudocount)
        probability("held_out", self.held_out)
