r"""A black-box teacher into a matrix product state, by queries alone: nothing is descended.

Samples without labels are cut and recombined, and the teacher is asked for its outputs. From these,

- ``sketching``: for every bond the few numbers that predict the outputs best, by recursive sketching (TT-RSS);
- ``cross``: a chain that equals the teacher at chosen points of a grid, by tensor cross interpolation (TCI).

:class:`kdzoo.distillers.SketchedKD` distils further from there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch, valid_positions
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.report_extras import QuickScores, ReportExtras
from kdzoo.core.validation import choice, integer, interval, number
from kdzoo.functional import soft_target_kl
from kdzoo.tensor_networks.black_box import METHODS, from_queries
from kdzoo.tensor_networks.chain_module import check_open_chain


class Sketch(ClosedFormDistiller):
    """Build a matrix product state from queries to its teacher.

    Args:
        student: a :class:`kdzoo.models.MPS` with open ends.
        teacher: returns outputs of the student's shape; it is only asked.
        method: ``sketching`` or ``cross``.
        samples: training inputs, without their labels, around which it is asked, >= 2; the first of the epoch.
        rank: greatest bond dimension; None: that of the student.
        cutoff: directions, or pivots, below this share of the greatest are left out, in [0, 1].
        domain: [least, most] of the numbers that are tried at a site; None: those of the samples.
        ends: of sketching: samples whose ends are combined with the beginnings of all; None: as many as the rank,
            at least 20.
        budget: greatest number of evaluations of the teacher; None for any number.
        **options: see :class:`kdzoo.Distiller`; the term ``kl`` is KL(teacher || student), measured, not descended.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        >>> from kdzoo.models import MPS
        >>> Sketch(MPS(8, 3, 2), nn.Linear(8, 3), samples=20, budget=10_000).loss_weights
        {'kl': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"kl": 1.0},
        paper="Pareja Monturiol et al. 2025, Tensorization of neural networks for improved privacy and interpretability, "
        "section 3; Nunez Fernandez et al. 2025, Learning tensor networks with tensor cross interpolation",
        bibtex="""@article{parejamonturiol2025tensorization,
  title   = {Tensorization of neural networks for improved privacy and interpretability},
  author  = {Pareja Monturiol, Jos{\\'e} Ram{\\'o}n and Pozas-Kerstjens, Alejandro and P{\\'e}rez-Garc{\\'i}a, David},
  journal = {SciPost Physics Core},
  volume  = {8},
  year    = {2025},
}
@article{nunezfernandez2025learning,
  title   = {Learning tensor networks with tensor cross interpolation: new algorithms and libraries},
  author  = {N{\\'u}{\\~n}ez Fern{\\'a}ndez, Yuriel and Ritter, Marc K. and Jeannin, Matthieu and others},
  journal = {SciPost Physics},
  volume  = {18},
  year    = {2025},
}""",
        exempt=CLOSED_FORM_EXEMPT,
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        method: str = "sketching",
        samples: int = 100,
        rank: int | None = None,
        cutoff: float = 1e-3,
        domain: Sequence[float] | None = None,
        ends: int | None = None,
        budget: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        check_open_chain(student)
        self.samples = integer("samples", samples, least=2)
        self.how = query_settings(method, rank=rank, cutoff=cutoff, domain=domain, ends=ends, budget=budget)
        self.cost: dict[str, float] = {}
        self.report_extras = QueryCost(self)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return KL(teacher || student) of every sample, nats."""
        valid = valid_positions(batch)
        said = self.frozen_teacher.output(batch)[valid]
        return {"kl": soft_target_kl(self.student(batch["input"])[valid], said, temperature=1.0)}

    def observe(self, batch: Batch) -> None:
        """Keep inputs until there are enough."""
        pieces = self.observed.setdefault("inputs", [])
        missing = self.samples - sum(map(len, pieces))
        if missing > 0:
            pieces.append(batch["input"][:missing].cpu())

    def solve(self) -> bool:
        """Ask the teacher and set the student."""
        assert self.teacher is not None
        inputs = torch.cat(self.observed["inputs"]).to(self.device)
        self.cost = build(self.student, self.teacher, inputs, self.how)
        self.observed = {}
        return True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the student has cost."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["cost"] = self.cost

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what the student has cost."""
        super().on_load_checkpoint(checkpoint)
        self.cost = checkpoint["cost"]


class QueryCost(ReportExtras):
    """The number of queries in the report.

    Args:
        distiller: A method that builds its student from queries; its ``cost`` is reported.
    """

    def __init__(self, distiller: Any) -> None:
        self.distiller = distiller

    def measurements(
        self,
        model: nn.Module,
        batches: Iterable[Any],  # noqa: ARG002
        quick_scores: QuickScores,  # noqa: ARG002
    ) -> dict[str, float]:
        """Return how often the teacher was queried, and the relative error at the last queries."""
        return self.distiller.cost if model is self.distiller.student else {}


def query_settings(
    method: str,
    *,
    rank: int | None,
    cutoff: float,
    domain: Sequence[float] | None,
    ends: int | None,
    budget: int | None,
) -> dict[str, Any]:
    """Return arguments of :func:`kdzoo.tensor_networks.from_queries` that are in their ranges.

    Raises:
        ConfigError: an argument is out of its range.
    """
    return {
        "method": choice("method", method, METHODS),
        "rank": None if rank is None else integer("rank", rank),
        "cutoff": number("cutoff", cutoff, 0.0, 1.0),
        "domain": None if domain is None else interval("domain", domain, number),
        "ends": None if ends is None else integer("ends", ends),
        "budget": None if budget is None else integer("budget", budget),
    }


def build(student: nn.Module, teacher: nn.Module, inputs: Tensor, how: Mapping[str, Any]) -> dict[str, float]:
    """Set a chain from queries around inputs, and return what that has cost, as a report holds it.

    Returns:
        ``queries``, how often the teacher was evaluated; ``queries_asked``, with those whose answer was known; and
        ``query_error``, the relative error where it was asked last.
    """
    found = from_queries(student, teacher, inputs, **how)
    counts = {"queries": found.evaluations, "queries_asked": found.asked}
    return {**{name: float(count) for name, count in counts.items()}, "query_error": found.error}
