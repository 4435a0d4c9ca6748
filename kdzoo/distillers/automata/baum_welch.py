"""Baum-Welch: the most likely automaton of given strings, by expectation maximization.

An epoch is one iteration: every batch adds the expected numbers of starts, transitions and stops under the current
automaton, and at the end of the epoch the automaton becomes their relative frequencies. This is the teacher-free
baseline of every method whose student is an automaton: the same number of states, learned from the data alone.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.automata.baum_welch import ExpectedCounts, expected_counts, maximise, prefix_trees_for, random_pfa_start
from kdzoo.automata.pfa import PFA
from kdzoo.core.batch import Batch, labelled_positions
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import choice, number
from kdzoo.text.token_sequences import token_sequences_of


class BaumWelch(ClosedFormDistiller):
    """Fit a probabilistic automaton to the strings of the data, without a teacher.

    Args:
        student: The automaton, with a given number of states.
        teacher: Not used.
        start: ``random`` for distributions that are drawn uniformly on their simplices, ``student`` for the automaton
            as it is, whose zeros stay zeros.
        pseudocount: Weight added to every symbol of every state in each iteration, >= 0. With 0, strings may become
            impossible.
        **options: See :class:`kdzoo.Distiller`. The term ``nll`` is measured; no optimizer is used.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> from kdzoo.automata import PFA
        >>> BaumWelch(PFA(vocab_size=3, states=2)).loss_weights
        {'nll': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"nll": 1.0},
        paper="Baum, Petrie, Soules & Weiss 1970, A maximization technique occurring in the statistical analysis of "
        "probabilistic functions of Markov chains",
        bibtex="""@article{baum1970maximization,
  title = {A maximization technique occurring in the statistical analysis of probabilistic functions of {Markov}
           chains},
  author = {Baum, Leonard E. and Petrie, Ted and Soules, George and Weiss, Norman},
  journal = {The Annals of Mathematical Statistics},
  volume = {41},
  number = {1},
  pages = {164--171},
  year = {1970}
}""",
        teacher="none",
        student_kinds=("automaton",),
        exempt=CLOSED_FORM_EXEMPT,
    )
    student: PFA

    def __init__(
        self,
        student: PFA,
        teacher: nn.Module | None = None,  # noqa: ARG002 - a run passes one to every distiller
        *,
        start: str = "random",
        # Far below one observation: it only keeps symbols that a state has never shown from becoming impossible.
        pseudocount: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(student, None, **options)
        self.pseudocount = number("pseudocount", pseudocount, least=0.0)
        if choice("start", start, ("random", "student")) == "random":
            # Not the student's own parameters: a new PFA is uniform, and identical states stay identical.
            pfa = random_pfa_start(student.vocab_size, student.states, int(torch.randint(2**31, ())))
            student.set_parameters(pfa.initial, pfa.transitions, pfa.stop)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the negative log-probability of the next symbol after each prefix where it is known, in nats."""
        labelled = labelled_positions(batch)  # in chunks of one text, the symbol after the last one is not known
        log_probs = self.student(batch["input"])[labelled]
        return {"nll": -log_probs.gather(1, batch["target"][labelled][:, None]).squeeze(1)}

    def observe(self, batch: Batch) -> None:
        """Add the expected counts of a batch (the E-step)."""
        counts = expected_counts(self.student, prefix_trees_for(token_sequences_of(batch), self.student.states))
        for name, value in counts.tensors().items():
            self.observed[name] = self.observed.get(name, 0) + value

    def solve(self) -> bool:
        """Set the automaton to the relative frequencies of the counts (the M-step); the next epoch starts from it."""
        # The M-step does not use the objective of the counts, which is not summed over the batches.
        pfa = maximise(self.student, ExpectedCounts(**self.observed, objective=0.0), self.pseudocount)
        self.student.set_parameters(pfa.initial, pfa.transitions, pfa.stop)
        self.observed = {}
        return False
