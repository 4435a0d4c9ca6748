"""How to distil a language model's trajectories: the options, and what is allowed."""

from dataclasses import dataclass

from kdzoo.automata.traced_sequences import FEATURES
from kdzoo.core.validation import choice, flag, integer, positive, probability
from kdzoo.errors import ConfigError

LEARNED = "learned"
"""The features that a network which reads along lends, see :mod:`kdzoo.automata.learned_states`."""


@dataclass(frozen=True)
class DistillationOptions:
    """How to distil; each field is an argument of :func:`distill_states` of the same name."""

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
        if self.states is None and not self.merge:
            raise ConfigError("states must be given where merge is false, got None")
        choice("features", self.features, (*FEATURES, LEARNED))
        for name in ("merge", "soft", "em"):
            flag(name, getattr(self, name))
        integer("em_steps", self.em_steps, 0)
        integer("restarts", self.restarts)
        integer("seed", self.seed, 0)
        positive("determinism", self.determinism)
        positive("penalty", self.penalty)
        if self.pseudocount is not None:
            positive("pseudocount", self.pseudocount)
        probability("held_out", self.held_out)
