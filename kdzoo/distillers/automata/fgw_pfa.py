r"""Distillation of a language model into a probabilistic automaton by a fused Gromov-Wasserstein barycenter.

Over the prefixes i of the teacher's strings, with points x_i (hidden states), masses p_i, and edges (i, j, a) with
token a from prefix to prefix, the method minimizes

.. math:: \min_{c, D, T \ge 0, T 1 = p} \; \alpha \sum_{ik} \frac{\|x_i - c_k\|^2}{\sigma^2} T_{ik}
    + (1 - \alpha) \sum_{ijkl} \ell(d_{ij}, D_{kl}) T_{ik} T_{jl}

by alternating closed forms for the centroids c and the transitions D with Frank-Wolfe steps on the plan T, from several
starts (:func:`kdzoo.functional.fgw_barycenter`). Both terms are normalised, see there. At alpha = 1 it is k-means. The
clusters are the states of the automaton, and the counts of transitions between them its probabilities.

This is the reference method; :class:`kdzoo.distillers.OTPFA` is more accurate.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from kdzoo.automata import PFA, TracedSequences
from kdzoo.automata.counts import count, weighted_sum
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.validation import choice, flag, integer, number
from kdzoo.distillers.automata.language_model_to_pfa import LanguageModelToPFA
from kdzoo.errors import ConfigError
from kdzoo.functional import BarycenterSettings, Edges, fgw_barycenter

# Weight of every symbol in every state, so that no string is impossible. Far below one observation, as the pseudocount
# of the other methods for sampled tokens.
PSEUDOCOUNT = 0.01


class FGWPFA(LanguageModelToPFA):
    """Distil a language model into a probabilistic automaton by a fused Gromov-Wasserstein barycenter.

    Args:
        student: The automaton, with a given number of states.
        teacher: A language model, or a :class:`kdzoo.models.LMEnsemble` of several.
        alpha: Weight of the points against the transitions, in [0, 1]; 1 is k-means.
        comparison: Comparison of transitions: ``kl``, ``l2``, or ``sparse``, which favours deterministic transitions.
        features: What the points are: ``hidden`` states, ``sqrt_probs`` (square root of the next-token distribution) or
            ``both``.
        init: First plan of each start: ``random`` or ``kmeans``.
        restarts: Number of starts, >= 1, of which the one with the lowest objective is kept.
        soft_labels: Use the teacher's next-token distributions in place of the sampled tokens when the symbols of a
            state are counted.
        **options: See :class:`kdzoo.distillers.automata.language_model_to_pfa.LanguageModelToPFA`.

    Raises:
        ConfigError: An argument is out of its range, or the student has no given number of states.
    """

    info: ClassVar[MethodInfo] = replace(
        LanguageModelToPFA.info,
        paper="Emonet 2021, OT-based distillation (TAUDoS), slides 5 and 6",
        bibtex="""@misc{emonet2021ot,
  title = {{OT}-based distillation},
  author = {Emonet, R{\\'e}mi},
  howpublished = {TAUDoS meeting, Saint-{\\'E}tienne},
  month = nov,
  year = {2021}
}""",
    )

    def __init__(
        self,
        student: PFA,
        teacher: nn.Module | None = None,
        *,
        # Both terms have the size 1. In measurements no alpha was clearly better than k-means, see
        # docs/experiments/automata.md; 0.9 lets the transitions decide between points that are almost as near.
        alpha: float = 0.9,
        # The signal of "l2" vanishes as transitions become sparse, that of "kl" does not.
        comparison: str = "kl",
        features: str = "hidden",
        init: str = "random",
        restarts: int = 5,
        soft_labels: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        if not student.has_fixed_states:
            raise ConfigError("FGWPFA needs a given number of states, such as student.states=20; got None")
        self.alpha = number("alpha", alpha, 0.0, 1.0)
        self.comparison = choice("comparison", comparison, ("kl", "l2", "sparse"))
        self.features = choice("features", features, ("hidden", "sqrt_probs", "both"))
        self.init = choice("init", init, ("random", "kmeans"))
        self.restarts = integer("restarts", restarts)
        self.soft_labels = flag("soft_labels", soft_labels)

    def distil(self, teachers: Sequence[TracedSequences]) -> tuple[PFA, Tensor]:
        """Return the automaton that the clusters of the barycenter count, and the cluster of every prefix."""
        states = self.student.states
        barycenter = fgw_barycenter(
            [traced.features(self.features) for traced in teachers],
            [Edges(*traced.strings.edges()) for traced in teachers],
            states,
            BarycenterSettings(self.alpha, self.comparison, n_init=self.restarts, seed=self.seed),
            init=self.init,
            # Every teacher has generated its share of the strings, so that all prefixes have the same weight.
            weights=[float(traced.n_prefixes) for traced in teachers],
            n_tokens=self.student.n_tokens,
        )
        self.figure_data["objective"] = list(barycenter.objective)
        labels = barycenter.labels.split([traced.n_prefixes for traced in teachers])
        counts = [
            count(traced, own_labels, n_clusters=states, soft=self.soft_labels)
            for traced, own_labels in zip(teachers, labels, strict=True)
        ]
        return weighted_sum(counts).to_pfa(PSEUDOCOUNT), barycenter.labels
