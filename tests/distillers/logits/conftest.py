"""Models with fixed logits, and batches of every form that the logit methods accept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.reference import distillers as reference

CLASSES = 5
TEMPERATURE = 3.0
CASES = (
    "images",
    "images, some labels",
    "images, no label",
    "images, no target",
    "sequences",
    "sequences, some labels",
    "sequences, mask",
    "sequences, mask, some labels",
    "sequences, mask, no label",
)


class FixedLogits(nn.Module):
    """Returns its parameter for every input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input: Tensor) -> Tensor:
        return self.logits


@dataclass
class LogitCase:
    """Logits of student and teacher with a batch, and the same as arrays for the reference."""

    student_logits: Tensor
    teacher_logits: Tensor
    batch: dict[str, Tensor]

    @property
    def student(self) -> FixedLogits:
        return FixedLogits(self.student_logits)

    @property
    def teacher(self) -> FixedLogits:
        return FixedLogits(self.teacher_logits)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Student's and teacher's logits in float64."""
        return self.student_logits.double().numpy(), self.teacher_logits.double().numpy()

    @property
    def target(self) -> np.ndarray | None:
        return self.batch["target"].numpy() if "target" in self.batch else None

    @property
    def mask(self) -> np.ndarray | None:
        return self.batch["mask"].numpy() if "mask" in self.batch else None

    @property
    def valid(self) -> np.ndarray:
        return reference.valid_rows(self.mask, tuple(self.student_logits.shape[:-1]))

    def expected_hard(self) -> list[float]:
        """The cross entropy at the labelled positions, which all logit methods have."""
        labelled = reference.labelled_rows(self.target, self.mask, tuple(self.student_logits.shape[:-1]))
        return reference.hard(self.arrays[0], self.target, labelled)


def make_case(name: str) -> LogitCase:
    """Return images or padded sequences, with labels at all, some or no positions."""
    shape = (3, 4) if "sequences" in name else (7,)
    student, teacher = (
        3 * torch.randn(*shape, CLASSES, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    )
    batch = {"input": torch.zeros(shape[0], 2), "index": torch.arange(shape[0])}
    target = torch.arange(student[..., 0].numel()).reshape(shape) % CLASSES
    if "some labels" in name:
        target.view(-1)[::2] = reference.IGNORE
    if "no label" in name:
        target[:] = reference.IGNORE
    if "mask" in name:
        batch["mask"] = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    if "no target" not in name:
        batch["target"] = target
    return LogitCase(student, teacher, batch)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> LogitCase:
    return make_case(request.param)


def assert_terms(terms: Mapping[str, Tensor], expected: Mapping[str, Sequence[float]], rtol: float = 1e-6) -> None:
    """Compare all terms of a method, position by position, with the reference."""
    assert list(terms) == list(expected)
    for name, value in terms.items():
        found = value.detach().ravel().numpy()
        np.testing.assert_allclose(found, expected[name], rtol=rtol, atol=1e-12, err_msg=name)


def assert_gradient_reaches_student_only(distiller: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """The student gets a gradient at valid positions alone, and the teacher none."""
    sum(value.sum() for value in distiller.losses(batch).values()).backward()
    gradient = distiller.student.logits.grad
    assert gradient[batch["mask"]].abs().sum() > 0
    assert (gradient[~batch["mask"]] == 0).all()
    assert distiller.teacher is None or distiller.teacher.logits.grad is None


def ensemble_case() -> tuple[nn.Module, list[nn.Module], dict[str, Tensor]]:
    """Return a student, the members of an ensemble and a batch with some labels."""
    from kdzoo.models import MLP

    torch.manual_seed(0)
    student, *members = (MLP(in_shape=(4,), num_classes=CLASSES, hidden=[6]) for _ in range(4))
    target = torch.tensor([0, 1, reference.IGNORE, 3, reference.IGNORE, 2])
    return student, members, {"input": torch.randn(6, 4), "target": target}
