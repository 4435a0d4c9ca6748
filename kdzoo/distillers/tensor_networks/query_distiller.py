"""What all methods share that build a matrix product state from queries to a black-box teacher.

The teacher is evaluated at recombinations of unlabelled training inputs: the first numbers of one input with the last
numbers of another. From its outputs :func:`kdzoo.tensor_networks.from_queries` computes the tensors of the student by

- ``sketching``: for every bond, the few combinations of its state that predict the outputs best (TT-RSS; Pareja
  Monturiol et al. 2025, section 3);
- ``cross``: a chain that equals the teacher at chosen points of a grid (TCI; Nunez Fernandez et al. 2025).
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from kdzoo.core.base import Distiller
from kdzoo.core.report_extras import QuickScores, ReportExtras
from kdzoo.core.validation import choice, integer, interval, number
from kdzoo.tensor_networks.black_box import METHODS, from_queries
from kdzoo.tensor_networks.chain_module import ChainModule, check_open_chain
from kdzoo.tensor_networks.sketching import CUTOFF


class QueryDistiller(Distiller):
    """Base of the methods that build a matrix product state from queries to its teacher.

    A method derives from it first and then from the class whose training it uses, and calls :meth:`build_student` with
    inputs of its choice.

    Args:
        student: A matrix product state (:class:`kdzoo.models.MPS`) with open boundaries.
        teacher: Returns outputs of the student's shape ``[batch, outputs]``.
        method: ``sketching`` or ``cross``.
        samples: Number of unlabelled training inputs that are recombined, >= 2.
        rank: Largest bond dimension, >= 1; None for that of the student.
        cutoff: Directions (``sketching``) or pivots (``cross``) below this share of the largest are dropped, in [0, 1].
        domain: Smallest and largest number that is tried at a site; None for those of the samples.
        ends: Only for ``sketching``: number of samples whose last numbers are combined with the first numbers of all,
            >= 1; None for as many as the rank, at least 20.
        budget: Largest number of evaluations of the teacher, >= 1; None for any number.
        **options: See :class:`kdzoo.Distiller`.

    Attributes:
        cost: ``queries``, the number of evaluations of the teacher; ``queries_asked``, the same with those whose result
            was known already; ``query_error``, the relative error of the student at the last queries. Empty before the
            student is built.

    Raises:
        ConfigError: An argument is out of its range, or the student is not a matrix product state with open boundaries.
    """

    student: ChainModule
    teacher: nn.Module
    allows_no_samples: ClassVar[bool] = False
    """Whether ``samples=0`` is valid and means that the student is not built from queries."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        method: str = "sketching",
        # At bond 16 and 64 sites, 100 inputs gave a student that agrees with its teacher on 98 % of the test images
        # before any training; more inputs cost proportionally more queries.
        samples: int = 100,
        rank: int | None = None,
        cutoff: float = CUTOFF,
        domain: Sequence[float] | None = None,
        ends: int | None = None,
        budget: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        check_open_chain(student)
        # One sample cannot be recombined with another one.
        least_samples = 0 if self.allows_no_samples and samples == 0 else 2
        self.samples = integer("samples", samples, least=least_samples)
        self.query_settings: dict[str, Any] = {
            "method": choice("method", method, METHODS),
            "rank": None if rank is None else integer("rank", rank),
            "cutoff": number("cutoff", cutoff, 0.0, 1.0),
            "domain": None if domain is None else interval("domain", domain, number),
            "ends": None if ends is None else integer("ends", ends),
            "budget": None if budget is None else integer("budget", budget),
        }
        self.cost: dict[str, float] = {}
        self.report_extras = QueryCost(self)

    def build_student(self, inputs: Tensor) -> None:
        """Replace the tensors of the student by those computed from queries, and set ``cost``.

        Args:
            inputs: Unlabelled inputs ``[samples, ...]`` to recombine.

        Raises:
            BudgetError: The budget is too small; the student is unchanged.
            DataError: There are fewer different inputs than the rank needs, or an output is not finite.
        """
        result = from_queries(self.student, self.teacher, inputs, **self.query_settings)
        self.cost = {
            "queries": float(result.evaluations),
            "queries_asked": float(result.asked),
            "query_error": result.error,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the cost, which cannot be measured again without asking the teacher again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["cost"] = self.cost

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the cost."""
        super().on_load_checkpoint(checkpoint)
        self.cost = checkpoint["cost"]


class QueryCost(ReportExtras):
    """The number of queries in the report.

    Args:
        distiller: The method, whose ``cost`` is reported.
    """

    def __init__(self, distiller: QueryDistiller) -> None:
        self.distiller = distiller

    def measurements(
        self,
        model: nn.Module,
        batches: Iterable[Any],  # noqa: ARG002
        quick_scores: QuickScores,  # noqa: ARG002
    ) -> dict[str, float]:
        """Return the cost for the student, and nothing for controls, which are trained without queries."""
        return self.distiller.cost if model is self.distiller.student else {}
