"""Distillation of a matrix product state into a smaller one, without samples.

The distance of two chains f (teacher) and g (student) under a product measure mu is a contraction of their transfer
matrices (:mod:`kdzoo.tensor_networks.measure`), so that the loss and its gradient are exact:

    distance = E_mu ||f - g||^2 / E_mu ||f||^2,    mu = product of the marginals of the training inputs

Only the mean products of the features of each site, ``grams`` ``[sites, d, d]``, are taken from the data, once. The
batches of the training data count the steps; the loss is the same for all of them. By default the student starts as
the teacher with truncated bonds (:mod:`kdzoo.tensor_networks.truncation`). Truncation cuts one bond after the other;
gradient descent then moves all tensors together.
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
from kdzoo.tensor_networks.chain_module import ChainModule, check_open_chain
from kdzoo.tensor_networks.features import describe_map, same_settings
from kdzoo.tensor_networks.measure import TensorTrain, norm, squared_distance
from kdzoo.tensor_networks.truncation import truncate

STARTS = ("truncated", "own")


class MPSDistance(Distiller):
    """Minimize the distance of the student's function to the teacher's under a product measure.

    Args:
        student: A matrix product state with open boundaries and the teacher's sites, feature map and place of the
            output. It takes over the teacher's order of sites and what its feature map has learned from data.
        teacher: A matrix product state with open boundaries, whose feature map has no parameters.
        start: ``truncated`` for the teacher with its bonds cut to the student's largest one, ``own`` for the student's
            own tensors.
        **options: See :class:`kdzoo.Distiller`; the term is ``distance``, which is >= 0.

    Raises:
        ConfigError: An argument is out of its range, a model is not a matrix product state with open boundaries, or the
            two do not fit each other.

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
            # The truncated teacher is so near to the optimum that the large steps of the checks lead away from it.
            "distiller.start": "own",
        },
    )
    student: ChainModule
    teacher: ChainModule
    grams: Tensor

    def __init__(self, student: nn.Module, teacher: nn.Module, *, start: str = "truncated", **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.start = validation.choice("start", start, STARTS)
        _check_pair(check_open_chain(student, "student"), check_open_chain(teacher, "teacher"))
        # A buffer, so that it moves with the device; not saved, since ``transfer_set`` measures it again.
        self.register_buffer("grams", torch.empty(0, dtype=torch.float64), persistent=False)

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Measure the features of the training inputs; return ``data``, whose batches count the steps."""
        total, samples = torch.zeros((), dtype=torch.float64), 0
        with torch.no_grad():
            for item in data.train_eval_dataloader():  # type: ignore[attr-defined]
                batch = as_batch(item)
                total = total + self.teacher.grams(batch["input"]) * n_samples(batch)
                samples += n_samples(batch)
        self.grams = total / samples
        return data

    def prepare(self, batch: Batch) -> None:
        """Give the student the teacher's order and feature map, and its truncated tensors if it starts from these."""
        if not len(self.grams):
            if self._trainer is not None:
                raise ConfigError("mps_distance measures the training inputs first: call transfer_set(data) before fit")
            # A dry run before ``transfer_set``: it only has to show that the models fit, so any inputs will do.
            self.grams = self.teacher.grams(batch["input"])
        self.student.order.copy_(self.teacher.order)
        self.student.feature_map.load_state_dict(self.teacher.feature_map.state_dict())
        if self.start == "truncated":
            largest = int(self.student.dims.max())
            sites, centre, error = truncate(*self._teacher_chain(), grams=self.grams.double(), bond_dim=largest)
            self.student.load_tensors(sites, centre)
            self.notes["start"] = f"the teacher truncated to bonds of {largest} with a relative error of {error:.3g}"

    def losses(self, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the relative squared distance, a scalar that does not depend on the batch."""
        teacher, grams = self._teacher_chain(), self.grams.double()
        return {"distance": squared_distance(teacher, self.student.chain(), grams) / norm(teacher, grams).square()}

    def _teacher_chain(self) -> TensorTrain:
        """Return the teacher's tensors in float64, without gradients."""
        with torch.no_grad():
            return self.teacher.chain()


def _check_pair(student: ChainModule, teacher: ChainModule) -> None:
    """Reject two chains whose functions have no common inputs, outputs and features."""
    for name, student_value, teacher_value in (
        ("n_sites", student.n_sites, teacher.n_sites),
        ("n_outputs", student.n_outputs, teacher.n_outputs),
        ("out_site", student.out_site, teacher.out_site),
    ):
        if student_value != teacher_value:
            raise ConfigError(f"{name} must be the teacher's {teacher_value}, got {student_value}")
    student_map, teacher_map = student.feature_map, teacher.feature_map
    if not same_settings(student_map, teacher_map):
        raise ConfigError(
            f"feature_map must be the teacher's {describe_map(teacher_map)}, got {describe_map(student_map)}"
        )
    # The Gram matrices are measured once, with the teacher's features; the student's would change in the training.
    if any(True for _ in teacher_map.parameters()):
        raise ConfigError(f"feature_map must have no parameters, got {type(teacher_map).__name__}")
