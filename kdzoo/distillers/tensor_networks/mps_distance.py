"""Distillation of a matrix product state into a smaller one, without samples.

The distance of two chains f (teacher) and g (student) under a product measure mu is a contraction of their transfer
matrices (:mod:`kdzoo.tensor_networks.measure`), so that the loss and its gradient are exact:

    distance = E_mu ||f - g||^2 / E_mu ||f||^2,    mu = product of the marginals of the training inputs.

All that is taken from the data is the mean product of the features of each site, once. No step looks at a batch: the
batches of the training data count the steps, and the loss is the same for all of them. The student starts as the
teacher whose bonds were cut one after the other (:mod:`kdzoo.tensor_networks.truncation`); the descent moves all
together.
"""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, as_batch, n_samples
from kdzoo.core.method_info import MethodInfo
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.features import describe_map, same_settings
from kdzoo.tensor_networks.measure import TensorTrain, norm, squared_distance
from kdzoo.tensor_networks.truncation import truncate

STARTS = ("truncated", "own")


class MPSDistance(Distiller):
    """Descend the distance of the student's function to the teacher's under a product measure.

    Args:
        student: a matrix product state with open boundaries and the teacher's sites, features and place of the output;
            it takes the teacher's order of sites and what its feature map has learned from data.
        teacher: a matrix product state with open boundaries, whose feature map has no parameters.
        start: ``truncated``, the teacher with its bonds cut to the student's largest, or ``own``, the student as it is.
        **options: see :class:`kdzoo.Distiller`; the term is ``distance``.

    Raises:
        ConfigError: an argument is out of its range, a model is no matrix product state, or they do not fit each other.

    Example:
        >>> from kdzoo.models import MPS
        >>> MPSDistance(MPS(8, 3, 2), MPS(8, 3, 4)).loss_weights
        {'distance': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"distance": 1.0},
        paper="Oseledets 2011, Tensor-Train Decomposition, section 4.2, for the inner product of two chains",
        bibtex="""@article{oseledets2011tensor,
  title   = {Tensor-Train Decomposition},
  author  = {Oseledets, Ivan V.},
  journal = {SIAM Journal on Scientific Computing},
  volume  = {33},
  number  = {5},
  pages   = {2295--2317},
  year    = {2011},
}""",
        contract_settings={
            "teacher.bond_dim": 4,
            "student.bond_dim": 2,
            "distiller.start": "own",  # the truncated teacher is so near to the optimum that large steps lead away
        },
    )
    student: Any  # a matrix product state
    teacher: Any
    grams: Tensor

    def __init__(self, student: nn.Module, teacher: nn.Module, *, start: str = "truncated", **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.start = validation.choice("start", start, STARTS)
        _check_pair(self.student, self.teacher)
        self.register_buffer("grams", torch.empty(0, dtype=torch.float64), persistent=False)

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Measure the features of the training inputs; return the data, whose batches count the steps."""
        total, samples = torch.zeros((), dtype=torch.float64), 0
        with torch.no_grad():
            for one in data.train_eval_dataloader():  # type: ignore[attr-defined]
                batch = as_batch(one)
                total = total + self.teacher.grams(batch["input"]) * n_samples(batch)
                samples += n_samples(batch)
        self.grams = total / samples
        return data

    def prepare(self, batch: Batch) -> None:
        """Set the student to the truncated teacher."""
        if not len(self.grams):
            if self._trainer is not None:
                raise ConfigError("mps_distance measures the training inputs first: call transfer_set(data) before fit")
            self.grams = self.teacher.grams(batch["input"])  # a rehearsal: any inputs will do
        self.student.order.copy_(self.teacher.order)
        self.student.feature_map.load_state_dict(self.teacher.feature_map.state_dict())
        if self.start == "truncated":
            largest = int(self.student.dims.max())
            sites, centre, error = truncate(*self._teacher(), grams=self.grams.double(), bond_dim=largest)
            self.student.load_tensors(sites, centre)
            self.notes["start"] = f"the teacher truncated to bonds of {largest} with a relative error of {error:.3g}"

    def losses(self, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the relative distance, a scalar that no sample has a part in."""
        teacher, grams = self._teacher(), self.grams.double()
        return {"distance": squared_distance(teacher, self.student.chain(), grams) / norm(teacher, grams).square()}

    def _teacher(self) -> TensorTrain:
        """Return the teacher's tensors in float64, without gradients."""
        with torch.no_grad():
            chain: TensorTrain = self.teacher.chain()
        return chain


def _check_pair(student: Any, teacher: Any) -> None:
    """Refuse models that are no open chains, or whose chains are not of one make."""
    for role, model in (("student", student), ("teacher", teacher)):
        if not hasattr(model, "chain") or model.boundary != "open":
            raise ConfigError(
                f"{role} must be a matrix product state (kdzoo.models.MPS) with boundary='open', got "
                f"{type(model).__name__} with boundary={getattr(model, 'boundary', None)!r}"
            )
    for name in ("n_sites", "n_outputs", "out_site"):
        if getattr(student, name) != getattr(teacher, name):
            raise ConfigError(f"{name} must be the teacher's {getattr(teacher, name)}, got {getattr(student, name)}")
    ours, theirs = student.feature_map, teacher.feature_map
    if not same_settings(ours, theirs):
        raise ConfigError(f"feature_map must be the teacher's {describe_map(theirs)}, got {describe_map(ours)}")
    if any(True for _ in theirs.parameters()):
        raise ConfigError(f"feature_map must have no parameters, got {type(theirs).__name__}")
