"""Every distiller's loss terms against references in float64 NumPy that were written from the papers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdzoo.distillers import DKD, LogitKD, LogitMSE, Supervised
from kdzoo.models import MLP, Ensemble
from tests.reference import distillers as reference

CLASSES, T = 5, 3.0
IGNORE = reference.IGNORE


class Given(nn.Module):
    """Returns its parameter, whatever it is called with."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input: Tensor) -> Tensor:
        return self.logits


def logits(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(*shape, CLASSES, generator=torch.Generator().manual_seed(seed))


def case(name: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits of student and teacher, and a batch: images or padded sequences, with and without labels."""
    shape = (3, 4) if "sequences" in name else (7,)
    student, teacher = logits(*shape, seed=0), logits(*shape, seed=1)
    batch = {"input": torch.zeros(shape[0], 2), "index": torch.arange(shape[0])}
    target = torch.arange(student[..., 0].numel()).reshape(shape) % CLASSES
    if "some labels" in name:
        target.view(-1)[::2] = IGNORE
    if "no label" in name:
        target[:] = IGNORE
    if "mask" in name:
        batch["mask"] = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    if "no target" not in name:
        batch["target"] = target
    return student, teacher, batch


CASES = [
    "images",
    "images, some labels",
    "images, no label",
    "images, no target",
    "sequences",
    "sequences, some labels",
    "sequences, mask",
    "sequences, mask, some labels",
    "sequences, mask, no label",
]


def expected(method: type, student: Tensor, teacher: Tensor, batch: dict[str, Tensor]) -> dict[str, list[float]]:
    """The terms of a method by the reference."""
    s, t = student.numpy().astype(np.float64), teacher.numpy().astype(np.float64)
    target = batch["target"].numpy() if "target" in batch else None
    mask = batch["mask"].numpy() if "mask" in batch else None
    valid = reference.valid_rows(mask, s.shape[:-1])
    hard = reference.hard(s, target, reference.labelled_rows(target, mask, s.shape[:-1]))
    if method is Supervised:
        return {"hard": hard}
    if method is LogitKD:
        return {"soft": reference.soft(s, t, valid, T), "hard": hard}
    if method is LogitMSE:
        return {"match": reference.match(s, t, valid), "hard": hard}
    about_target, about_rest = reference.decoupled(s, t, target, valid, T)
    return {"target": about_target, "nontarget": about_rest, "hard": hard}


def build(method: type, student: nn.Module, teacher: nn.Module):
    if method is Supervised:
        return method(student)
    return method(student, teacher, **({} if method is LogitMSE else {"temperature": T}))


METHODS = [Supervised, LogitKD, LogitMSE, DKD]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_terms_equal_the_reference(method, name):
    student, teacher, batch = case(name)
    terms = build(method, Given(student), Given(teacher)).losses(batch)
    wanted = expected(method, student, teacher, batch)
    assert list(terms) == list(wanted)
    for term, value in terms.items():
        np.testing.assert_allclose(value.detach().ravel().numpy(), wanted[term], rtol=1e-6, atol=1e-12, err_msg=term)


@pytest.mark.parametrize("method", METHODS)
def test_gradient_reaches_the_student_only(method):
    student, teacher, batch = case("sequences, mask, some labels")
    distiller = build(method, Given(student), Given(teacher))
    sum(value.sum() for value in distiller.losses(batch).values()).backward()
    assert distiller.student.logits.grad.abs().sum() > 0
    assert (distiller.student.logits.grad[~batch["mask"]] == 0).all()
    assert method is Supervised or distiller.teacher.logits.grad is None


def test_gradient_is_that_of_the_paper():
    """Hinton et al. 2015, equation 2 times T^2, and softmax minus one-hot for the labels."""
    student, teacher, batch = case("images, some labels")
    distiller = LogitKD(Given(student), Given(teacher), temperature=T)
    terms = distiller.losses(batch)
    gradients = {
        name: torch.autograd.grad(value.sum(), distiller.student.logits, retain_graph=True)[0].numpy()
        for name, value in terms.items()
    }
    s, t, y = student.numpy(), teacher.numpy(), batch["target"].numpy()
    soft = [T * (reference.probabilities(a, T) - reference.probabilities(b, T)) for a, b in zip(s, t, strict=True)]
    hard = [
        np.zeros(CLASSES) if label == IGNORE else reference.probabilities(a) - np.eye(CLASSES)[label]
        for a, label in zip(s, y, strict=True)
    ]
    np.testing.assert_allclose(gradients["soft"], soft, atol=1e-6)
    np.testing.assert_allclose(gradients["hard"], hard, atol=1e-6)


def test_decoupled_terms_recombine_to_the_softened_divergence():
    """Zhao et al. 2022, equation 6: KL = TCKD + (1 - p_y) NCKD."""
    student, teacher, batch = case("images")
    decoupled = build(DKD, Given(student), Given(teacher)).losses(batch)
    p = (teacher.double() / T).softmax(-1).gather(-1, batch["target"].unsqueeze(-1)).squeeze(-1)
    whole = build(LogitKD, Given(student), Given(teacher)).losses(batch)["soft"]
    torch.testing.assert_close(decoupled["target"] + (1 - p) * decoupled["nontarget"], whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [LogitKD, DKD])
def test_ensemble_as_teacher(method):
    torch.manual_seed(0)
    student, *members = (MLP(in_shape=(4,), num_classes=CLASSES, hidden=[6]) for _ in range(4))
    batch = {"input": torch.randn(6, 4), "target": torch.tensor([0, 1, IGNORE, 3, IGNORE, 2])}
    distiller = build(method, student, Ensemble(members))
    terms = distiller.losses(batch)
    with torch.no_grad():
        own = student(batch["input"])
        mean = reference.mean_of_probabilities([member(batch["input"]).double().numpy() for member in members])
    for term, wanted in expected(method, own, torch.from_numpy(mean), batch).items():
        np.testing.assert_allclose(terms[term].detach().numpy(), wanted, rtol=1e-5, atol=1e-6, err_msg=term)
    sum(value.sum() for value in terms.values()).backward()
    assert all(parameter.grad is None for parameter in distiller.teacher.parameters())


def test_teacher_is_not_trained_and_not_switched_to_training():
    teacher = MLP(in_shape=(4,), num_classes=CLASSES, hidden=[6], dropout=0.5)
    distiller = LogitKD(MLP(in_shape=(4,), num_classes=CLASSES, hidden=[6]), teacher).train()
    batch = {"input": torch.randn(6, 4)}
    assert torch.equal(distiller.teacher_output(batch), distiller.teacher_output(batch))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
