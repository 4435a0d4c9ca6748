r"""From a language model into a probabilistic automaton by a composition of two semi-relaxed couplings.

The teacher writes strings. At each of their N points it has a hidden state h_i and a next-token distribution y_i,
and an edge with a token leads from point to point. The automaton is a barycenter of this graph with free
marginals: a coupling T = T_1 T_2 sends the points to K states.

- T_1, the Wasserstein end (alpha = 1): k-means of the points [h; sqrt(y)] into more clusters than states.
- T_2, the Gromov-Wasserstein end (alpha = 0), with the conditional Kullback-Leibler comparison of transitions,
  which is minus the log-likelihood of the complete data: clusters whose merging costs least are merged, until K
  states are left, or where a penalised path is lowest.
- Soft labels: P(a | k) is the mean of y_i(a) over the points of a state, not a count of drawn tokens.
- Baum-Welch on the teacher's distributions, stopped on held-out strings.

Every candidate of every stage is judged by the teacher's held-out strings, and the best one is the student.
The fused barycenter itself is :class:`kdzoo.distillers.FGWPFA`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from kdzoo.automata import PFA, TracedSequences
from kdzoo.automata.distill import distill
from kdzoo.automata.options import DistillationOptions
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers.automata.language_model_to_pfa import LanguageModelToPFA


class OTPFA(LanguageModelToPFA):
    """Distil a language model into a probabilistic automaton: cluster, merge, soft labels, Baum-Welch.

    Args:
        student: the automaton; its number of states is kept, or found if it was built without one.
        teacher: a language model, or a :class:`kdzoo.models.LMEnsemble` of several.
        features: what points are clustered on: ``hidden``, ``sqrt_probs`` (of the next token) or ``both``; ``learned``
            is both with the states of a small recurrent network that learns the teacher's distributions in place
            of hidden vectors, for teachers whose hidden vector does not sum up the past, as a transformer's.
        clusters: number of clusters before merging; None: five for each state, at least 60.
        merge: merge more clusters than states; otherwise k-means gives the states.
        determinism: weight > 0 of the transitions in the cost of a merge; greater makes the automaton
            deterministic.
        penalty: factor > 0 of the penalty that chooses the number of states.
        soft_labels: take next-token distributions for drawn tokens in all counts.
        em: refine by Baum-Welch.
        em_steps: greatest number of its steps.
        restarts: clusterings that compete, >= 1.
        held_out: share of the strings by which candidates are judged, in [0, 1); 0 judges on all.
        **options: see :class:`kdzoo.distillers.automata.language_model_to_pfa.LanguageModelToPFA`.

    Raises:
        ConfigError: an argument is out of its range.
    """

    info: ClassVar[MethodInfo] = replace(
        LanguageModelToPFA.info,
        paper="Emonet 2021, OT-based distillation (TAUDoS); Vincent-Cuaz et al. 2022, Semi-relaxed Gromov-Wasserstein "
        "divergence and applications on graphs",
        bibtex="""@inproceedings{vincentcuaz2022semirelaxed,
  title = {Semi-relaxed {Gromov-Wasserstein} divergence and applications on graphs},
  author = {Vincent-Cuaz, C{\\'e}dric and Flamary, R{\\'e}mi and Corneli, Marco and Vayer, Titouan and Courty, Nicolas},
  booktitle = {International Conference on Learning Representations},
  year = {2022}
}""",
    )

    def __init__(
        self,
        student: PFA,
        teacher: nn.Module | None = None,
        *,
        features: str = "both",
        clusters: int | None = None,
        merge: bool = True,
        determinism: float = 1.0,
        penalty: float = 1.0,
        soft_labels: bool = True,
        em: bool = True,
        em_steps: int = 100,
        restarts: int = 3,
        held_out: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.stages = DistillationOptions(
            states=student.states if student.has_fixed_states else None,
            features=features,
            clusters=clusters,
            merge=merge,
            determinism=determinism,
            penalty=penalty,
            soft=soft_labels,
            em=em,
            em_steps=em_steps,
            restarts=restarts,
            held_out=held_out,
            seed=self.seed,
        )

    def distil(self, teachers: Sequence[TracedSequences]) -> tuple[PFA, Tensor]:
        """Return the automaton, and the state of every point."""
        found = distill(teachers, **vars(self.stages))
        if found.path is not None:
            self.shown["path"] = {"states": found.path.n_states, "objective": found.path.objective}
        self.shown["stages"] = dict(found.candidate_scores)
        return found.pfa, found.labels
