r"""Distillation of a language model into a probabilistic automaton by a composition of two semi-relaxed couplings.

The teacher generates strings. After each of their N prefixes it has a hidden state h_i and a next-token distribution
y_i, and an edge with a token leads from prefix to prefix. The automaton is a barycenter of this graph with free
marginals: a coupling T = T_1 T_2 sends the prefixes to K states.

- T_1, the Wasserstein case (alpha = 1): k-means of the points [h; sqrt(y)] into more clusters than states.
- T_2, the Gromov-Wasserstein case (alpha = 0) with the conditional Kullback-Leibler comparison of transitions, which is
  the negative log-likelihood of the complete data: those clusters are merged whose merging costs least, until K states
  are left, or where a penalised objective is lowest.
- Soft labels: P(a | k) is the mean of y_i(a) over the prefixes of a state, not a count of sampled tokens.
- Baum-Welch on the teacher's distributions, stopped early on held-out strings.

All candidates of these steps are compared on held-out strings of the teacher, and the best one is the student. The
fused barycenter in one step is :class:`kdzoo.distillers.FGWPFA`.
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
        student: The automaton; its number of states is kept, or found if it was built without one.
        teacher: A language model, or a :class:`kdzoo.models.LMEnsemble` of several.
        features: What the prefixes are clustered on: ``hidden`` states, ``sqrt_probs`` (square root of the next-token
            distribution) or ``both``. ``learned`` is both with the states of a small recurrent network in place of
            the hidden states: it learns the teacher's distributions, for teachers such as transformers whose hidden
            state does not hold all that later tokens depend on.
        clusters: Number of clusters before merging, at least that of the states; None for five for each state and at
            least 60.
        merge: Merge more clusters than states; otherwise k-means gives the states directly.
        determinism: Weight > 0 of the transitions in the cost of a merge; a larger one makes the automaton more
            deterministic.
        penalty: Factor > 0 of the penalty that chooses the number of states; 1 is the Bayesian information criterion.
        soft_labels: Use the teacher's next-token distributions in place of the sampled tokens in all counts.
        em: Refine by Baum-Welch.
        em_steps: Largest number of Baum-Welch steps, >= 0.
        restarts: Number of clusterings that compete, >= 1.
        held_out: Share of the strings on which candidates are compared, in [0, 1); with 0 it is done on all strings.
        **options: See :class:`kdzoo.distillers.automata.language_model_to_pfa.LanguageModelToPFA`.

    Raises:
        ConfigError: An argument is out of its range.
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
        # With 1 the cost of a merge is the loss of log-likelihood.
        determinism: float = 1.0,
        penalty: float = 1.0,
        # A hundred strings with soft labels gave a better automaton than 4,000 without (docs/experiments/automata.md).
        soft_labels: bool = True,
        em: bool = True,
        em_steps: int = 100,
        restarts: int = 3,
        held_out: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.distillation_options = DistillationOptions(
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
        """Return the best automaton on held-out strings, and the state of every prefix."""
        result = distill(teachers, **vars(self.distillation_options))
        # Without merging there is no path of merges to plot.
        if result.path is not None:
            self.figure_data["path"] = {"states": result.path.n_states, "objective": result.path.objective}
        return result.pfa, result.labels
