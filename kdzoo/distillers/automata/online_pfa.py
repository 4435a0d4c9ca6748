r"""Distillation of a language model into a probabilistic automaton, one mini-batch of strings at a time.

The first strings are distilled together, as by :class:`kdzoo.distillers.OTPFA`. From then on every mini-batch t of N_t
symbols updates running means s of the expected numbers n of starts, symbols and transitions per symbol, and the
automaton is always their relative frequencies:

.. math:: s \leftarrow (1 - \rho_t)\, s + \rho_t\, E[n \mid \text{batch } t] / N_t, \qquad \rho_t = (t + 2)^{-\kappa}

(Cappe & Moulines 2009, equation 8). The coupling of a prefix with the states is their posterior distribution, which is
discarded with the batch: the memory is that of one batch, of the first strings and of the automaton.
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

# Weight that is added to every symbol of every state, as a share of all symbols, so that no string ever becomes
# impossible. For the 50,000 symbols of a warm-up by default it amounts to a pseudocount of 0.005, the size of that of
# the other methods.
FLOOR = 1e-7

# Share of each symbol's probability that is spread over all successors when the stream begins. Without it, the
# automaton stayed at 0.0071 nats per symbol from its teacher after 40,000 strings, instead of 0.0012 after 77,000.
SPREAD = 0.05

# Names of the running means in ``observed``, in addition to the number of steps.
STATISTICS = ("starts", "emissions", "transitions")


class OnlinePFA(OTPFA):
    """Distil a language model into a probabilistic automaton by stochastic expectation maximization.

    Args:
        student: The automaton; its number of states is kept, or found from the first strings.
        teacher: A language model, or a :class:`kdzoo.models.LMEnsemble` of several.
        warm_up: Number of strings that are distilled together at the beginning, >= 1.
        forgetting: Exponent kappa of the step sizes, in [0.5, 1]; a larger one makes later steps smaller. The theory
            needs more than 0.5.
        **options: See :class:`kdzoo.distillers.OTPFA`.

    Raises:
        ConfigError: An argument is out of its range.
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
        # Near the lower end: steps stay large enough for the automaton to move away from that of the warm-up.
        forgetting: float = 0.6,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.warm_up = integer("warm_up", warm_up)
        self.forgetting = number("forgetting", forgetting, 0.5, 1.0)

    def observe(self, batch: Batch) -> None:
        """Collect the first strings; afterwards update the running means and the automaton by a batch."""
        if "step" in self.observed:
            traces: dict[str, Any] = {}
            self.add_traces(batch, traces)
            self._update(self.traced_sequences(traces))
            return
        self.add_traces(batch, self.observed)
        lengths = [piece for key, pieces in self.observed.items() if key.endswith(".lengths") for piece in pieces]
        if sum(map(len, lengths)) >= self.warm_up:
            self._start_stream()

    def solve(self) -> bool:
        """Distil the collected strings if they were too few to start the stream; otherwise all is done already."""
        if "step" not in self.observed:
            self._start_stream()
        return False

    def _start_stream(self) -> None:
        """Distil the first strings, and start the running means from them."""
        first = self.traced_sequences(self.observed)
        self.set_student(first)
        self.observed = {"step": 0, **self._expected_shares(first)}

    def _spread_successors(self) -> None:
        """Let each symbol of a state lead to every state with a small probability.

        The first strings do not show all successors of rare symbols, and expectation maximization never leaves a zero.
        """
        transitions = self.student.transitions
        uniform = transitions.mean(2, keepdim=True).expand_as(transitions)
        spread = torch.lerp(transitions, uniform, SPREAD)
        self.student.set_parameters(self.student.initial, spread, self.student.stop)

    def _update(self, traced: Sequence[TracedSequences]) -> None:
        """Move the running means towards those of a batch, and the automaton with them."""
        step = self.observed["step"]
        # Only now: if there are no more strings than the warm-up, its automaton is the result as it is.
        if step == 0:
            self._spread_successors()
        # step + 2 and not step + 1: a rate of 1 would discard the means of the first strings.
        rate = (step + 2) ** -self.forgetting
        for name, share in self._expected_shares(traced).items():
            self.observed[name] = torch.lerp(self.observed[name], share, rate)
        self.observed["step"] = step + 1
        # The M-step does not use the objective of the counts.
        means = ExpectedCounts(**{name: self.observed[name] for name in STATISTICS}, objective=0.0)
        pfa = maximise(self.student, means, FLOOR)
        self.student.set_parameters(pfa.initial, pfa.transitions, pfa.stop)

    def _expected_shares(self, traced: Sequence[TracedSequences]) -> dict[str, Tensor]:
        """Return the expected counts per symbol under the current automaton."""
        soft = self.distillation_options.soft
        trees = [tree for part in traced for tree in prefix_trees_for(part, self.student.states, soft=soft)]
        counts = expected_counts(self.student, trees)
        symbols = counts.emissions.sum()
        return {name: value / symbols for name, value in counts.tensors().items()}
