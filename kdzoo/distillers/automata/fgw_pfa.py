r"""From a language model into a probabilistic automaton by the fused Gromov-Wasserstein barycenter itself.

Over the points x_i (hidden states, weights p_i) and the edges (i, j, a) of the teacher's strings,

.. math:: \min_{c, D, T \ge 0, T 1 = p} \; \alpha \sum_{ik} \frac{\|x_i - c_k\|^2}{\sigma^2} T_{ik}
    + (1 - \alpha)\, c_N \sum_{ijkl} \ell(d_{ij}, D_{kl}) T_{ik} T_{jl}

by alternating closed forms for centroids c and transition vectors D with Frank-Wolfe on the plan T, from several
starts (:func:`kdzoo.functional.fgw_barycenter`). At alpha = 1 it is k-means. The plan's states and the counts of
their transitions make the automaton. It is the reference method: :class:`kdzoo.distillers.OTPFA` is better.
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

PSEUDOCOUNT = 0.01
"""Weight of every symbol in every state, so that no string is impossible."""


class FGWPFA(LanguageModelToPFA):
    """Distil a language model into a probabilistic automaton by a fused Gromov-Wasserstein barycenter.

    Args:
        student: the automaton, of a given number of states.
        teacher: a language model.
        alpha: weight of the Wasserstein term in [0, 1]; 1 is k-means.
        comparison: of transitions: ``kl``, ``l2`` or ``sparse``, which drives towards deterministic ones.
        features: what the points are: ``hidden`` states, ``sqrt_probs`` of the next token, or ``both``.
        init: first plan: ``random`` or ``kmeans``.
        restarts: random starts of which the lowest objective is kept, >= 1.
        soft_labels: take next-token distributions for drawn tokens when the transitions are counted.
        **options: see :class:`kdzoo.distillers.automata.language_model_to_pfa.LanguageModelToPFA`.

    Raises:
        ConfigError: an argument is out of its range, or the student has no given number of states.
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
        alpha: float = 0.9,
        comparison: str = "kl",
        features: str = "hidden",
        init: str = "random",
        restarts: int = 5,
        soft_labels: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        if not student.has_fixed_states:
            raise ConfigError("FGWPFA needs a given number of states; set student.states=20, say")
        self.alpha = number("alpha", alpha, 0.0, 1.0)
        self.comparison = choice("comparison", comparison, ("kl", "l2", "sparse"))
        self.features = choice("features", features, ("hidden", "sqrt_probs", "both"))
        self.init = choice("init", init, ("random", "kmeans"))
        self.restarts = integer("restarts", restarts)
        self.soft_labels = flag("soft_labels", soft_labels)

    def distil(self, teachers: Sequence[TracedSequences]) -> tuple[PFA, Tensor]:
        """Return the automaton that the barycenter's states count, and the state of every point of all teachers."""
        K, S = self.student.states, self.student.n_tokens
        found = fgw_barycenter(
            [one.features(self.features) for one in teachers],
            [Edges(*one.strings.edges()) for one in teachers],
            K,
            BarycenterSettings(self.alpha, self.comparison, n_init=self.restarts, seed=self.seed),
            init=self.init,
            weights=[float(one.n_prefixes) for one in teachers],
            n_tokens=S,
        )
        self.shown["objective"] = list(found.objective)
        parts = found.labels.split([one.n_prefixes for one in teachers])
        counts = [
            count(one, part, n_clusters=K, soft=self.soft_labels) for one, part in zip(teachers, parts, strict=True)
        ]
        return weighted_sum(counts).to_pfa(PSEUDOCOUNT), found.labels
