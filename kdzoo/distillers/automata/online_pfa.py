r"""From a language model into a probabilistic automaton, one mini-batch of strings at a time.

The first strings are distilled at once, as by :class:`kdzoo.distillers.OTPFA`. From then on every mini-batch moves
running means s of the expected starts, transitions and stops, and the automaton follows them:

.. math:: s \leftarrow (1 - \rho_t)\, s + \rho_t\, E[n \mid \text{batch } t] / N_t, \qquad \rho_t = (t + 2)^{-\kappa}

(Cappe & Moulines 2009, equation 8). The coupling of a point with the states is its posterior, and is forgotten with
the batch: the memory is that of one batch, of the first strings and of the automaton.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.automata import PFA, TracedSequences
from kdzoo.automata.baum_welch import ExpectedCounts, expected_counts, maximise, prefix_trees_for
from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import integer, number
from kdzoo.distillers.automata.ot_pfa import OTPFA

FLOOR = 1e-7
"""Share of all symbols that every symbol of every state is given, so that no string is ever impossible."""
BLUR = 0.05
"""Share of each symbol's probability that leads anywhere at the beginning."""
STATISTICS = ("starts", "emissions", "transitions")


class OnlinePFA(OTPFA):
    """Distil a language model into a probabilistic automaton by stochastic expectation maximisation.

    Args:
        student: the automaton; its number of states is kept, or found from the first strings.
        teacher: a language model.
        warm_up: strings that are distilled at once at the beginning, >= 1.
        forgetting: exponent kappa of the step sizes, in (0.5, 1].
        **options: see :class:`kdzoo.distillers.OTPFA`.

    Raises:
        ConfigError: an argument is out of its range.
    """

    info: ClassVar[MethodInfo] = replace(
        OTPFA.info,
        paper="Cappe & Moulines 2009, On-line expectation-maximization algorithm for latent data models, eq. 8",
        bibtex="""@article{cappe2009online,
  title = {On-line expectation-maximization algorithm for latent data models},
  author = {Capp{\\'e}, Olivier and Moulines, Eric},
  journal = {Journal of the Royal Statistical Society: Series B},
  volume = {71},
  number = {3},
  pages = {593--613},
  year = {2009}
}""",
    )

    def __init__(
        self,
        student: PFA,
        teacher: nn.Module | None = None,
        *,
        warm_up: int = 4000,
        forgetting: float = 0.6,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.warm_up = integer("warm_up", warm_up)
        self.forgetting = number("forgetting", forgetting, 0.5, 1.0)

    def observe(self, batch: Batch) -> None:
        """Keep the first strings; afterwards move the automaton by what a batch says."""
        if "step" in self.observed:
            pieces: dict[str, Any] = {}
            self._collect(batch, pieces)
            self._move(self._trajectories(pieces))
            return
        self._collect(batch, self.observed)
        if (
            sum(len(part) for name, parts in self.observed.items() if "lengths" in name for part in parts)
            >= self.warm_up
        ):
            self._begin()

    def solve(self) -> bool:
        """Distil at once if there were too few strings to begin; the automaton has followed the means already."""
        if "step" not in self.observed:
            self._begin()
        return False

    def _begin(self) -> None:
        """Distil the first strings, and start the running means from them."""
        first = self._trajectories(self.observed)
        self._distil(first)
        self.observed = {"step": 0, **self._expected(first)}

    def _blur(self) -> None:
        """Let each symbol of a state lead anywhere with a small share, so that rare successors can be learned.

        The first strings do not show them all, and expectation maximisation never leaves a zero.
        """
        sharp = self.student.transitions
        anywhere = sharp.mean(2, keepdim=True).expand_as(sharp)
        self.student.set_parameters(self.student.initial, torch.lerp(sharp, anywhere, BLUR), self.student.stop)

    def _move(self, seen: Sequence[TracedSequences]) -> None:
        """Move the running means, and the automaton with them."""
        if self.observed["step"] == 0:
            self._blur()
        rate = (self.observed["step"] + 2) ** -self.forgetting
        for name, mean in self._expected(seen).items():
            self.observed[name] = torch.lerp(self.observed[name], mean, rate)
        self.observed["step"] += 1
        means = ExpectedCounts(**{name: self.observed[name] for name in STATISTICS}, objective=0.0)
        self._set(maximise(self.student, means, FLOOR))

    def _expected(self, seen: Sequence[TracedSequences]) -> dict[str, Tensor]:
        """Return the expected counts of a symbol."""
        trees = [tree for one in seen for tree in prefix_trees_for(one, self.student.states, soft=self.stages.soft)]
        counts = expected_counts(self.student, trees)
        return {name: getattr(counts, name) / counts.emissions.sum() for name in STATISTICS}
