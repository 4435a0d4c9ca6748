"""The base class: exact means, the teacher, micro-batches, and the plain Lightning way."""

import copy
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdzoo.core.base import Distiller
from kdzoo.core.batch import IGNORE
from kdzoo.distillers import DKD, LogitKD, Supervised
from kdzoo.errors import ConfigError, DataError, NonFiniteLossError


def trainer(**options):
    return pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        log_every_n_steps=1,
        **options,
    )


def loader(inputs, targets, batch_size=8):
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size)


def models(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))


# ---------------------------------------------------------------- what a method overrides

MEMBERS = {"info", "losses", "prepare", "transfer_set", "trainable", "teacher_outputs"}
GUIDE = Path(__file__).parents[2] / "docs" / "extending.md"


def test_a_method_overrides_the_six_members_and_nothing_else():
    """Every other public member is final or a hook of Lightning's."""
    public = {name: member for name, member in vars(Distiller).items() if not name.startswith("_")}
    open_members = {
        name
        for name, member in public.items()
        if not getattr(member, "__final__", False) and not hasattr(pl.LightningModule, name)
    }
    assert open_members == MEMBERS
    assert Distiller.__abstractmethods__ == {"losses"}


def test_the_guide_and_the_base_class_list_the_six_members():
    section = GUIDE.read_text(encoding="utf-8").partition("## The six members")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)", section, flags=re.MULTILINE)) == MEMBERS
    described = Distiller.__doc__.partition("A method declares")[2].partition("only ``losses``")[0]
    assert set(re.findall(r"``(\w+)``", described)) == MEMBERS


# ---------------------------------------------------------------- plain Lightning


def test_plain_lightning_with_pairs():
    student, teacher = models()
    before = copy.deepcopy(teacher.state_dict())
    started = student.weight.detach().clone()
    distiller = LogitKD(student, teacher, temperature=4.0)
    inputs, targets = torch.randn(20, 4), torch.randint(0, 3, (20,))
    run = trainer()
    run.fit(distiller, loader(inputs, targets), loader(inputs, targets))
    assert run.global_step == 3
    assert not torch.equal(student.weight, started)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())
    terms = distiller.dry_run({"input": inputs, "target": targets})
    assert run.callback_metrics["val/soft"].item() == pytest.approx(terms["soft"].mean().item(), rel=1e-5)
    total_loss = 0.9 * terms["soft"].mean() + 0.1 * terms["hard"].mean()
    assert run.callback_metrics["val/loss"].item() == pytest.approx(total_loss.item(), rel=1e-5)


def test_an_exported_student_is_trained_in_training_mode_by_a_plain_trainer_too():
    student = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    teacher = nn.Linear(4, 3)
    trainer().fit(LogitKD(student, teacher), loader(torch.randn(20, 4), torch.randint(0, 3, (20,))))
    assert student[1].num_batches_tracked == 3
    assert not teacher.training


def test_a_rank_scales_its_loss_for_the_average_of_gradients_over_ranks():
    """Each mean is divided by the counts of all ranks, and data parallelism divides by their number once more."""
    distiller = LogitKD(*models())
    losses = []
    for ranks in (1, 3):
        distiller.trainer = SimpleNamespace(world_size=ranks, global_step=1, log_every_n_steps=100)
        losses.append(distiller.training_step((torch.eye(4), torch.tensor([0, 1, 2, 0])), 0))
    torch.testing.assert_close(losses[1], 3 * losses[0])


def test_training_step_takes_the_gradient_of_the_weighted_means():
    student, teacher = models()
    twin = copy.deepcopy(student)
    inputs, targets = torch.randn(10, 4), torch.tensor([0, 1, 2, IGNORE, IGNORE, 1, 0, IGNORE, IGNORE, IGNORE])
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
    distiller = LogitKD(student, teacher, temperature=2.0, optimizer=sgd, micro_batch_size=3)
    trainer().fit(distiller, loader(inputs, targets, 10))
    with torch.no_grad():
        soft = torch.softmax(teacher.eval()(inputs) / 2, 1)
    logits = twin(inputs)
    kl = 4 * (soft * (soft.log() - torch.log_softmax(logits / 2, 1))).sum(1).mean()
    known = targets != IGNORE
    loss = 0.9 * kl + 0.1 * nn.functional.cross_entropy(logits[known], targets[known])
    loss.backward()
    assert torch.allclose(student.weight, twin.weight - twin.weight.grad, atol=1e-6)


def test_accumulation_is_refused_with_the_way_out():
    student, teacher = models()
    with pytest.raises(ConfigError, match="set micro_batch_size"):
        trainer(accumulate_grad_batches=2).fit(
            LogitKD(student, teacher), loader(torch.randn(8, 4), torch.zeros(8).long())
        )


def test_an_empty_loader_is_refused():
    student, teacher = models()
    with pytest.raises(DataError, match="no batch"):
        trainer().fit(LogitKD(student, teacher), loader(torch.randn(0, 4), torch.zeros(0).long()))


@pytest.mark.parametrize(("shape", "micro"), [((6, 5), None), ((6, 5), 2)])
def test_sequences_with_mask_and_missing_labels(shape, micro):
    """Logits [b, l, c]: the means are over valid and over labelled positions, as in a float64 reference."""
    student, teacher = models(1)
    torch.manual_seed(2)
    batch = {
        "input": torch.randn(*shape, 4),
        "target": torch.randint(0, 3, shape).masked_fill(torch.rand(shape) < 0.4, IGNORE),
        "mask": torch.rand(shape) < 0.7,
    }
    distiller = LogitKD(student, teacher, temperature=3.0, micro_batch_size=micro)
    z, v = (model.eval()(batch["input"]).detach().double().numpy() for model in (student, teacher))
    p, q = (np.exp(x / 3) / np.exp(x / 3).sum(-1, keepdims=True) for x in (v, z))
    valid = batch["mask"].numpy()
    soft = (9 * (p * np.log(p / q)).sum(-1))[valid].mean()
    known = valid & (batch["target"].numpy() != IGNORE)
    picked = np.take_along_axis(z, np.where(known, batch["target"].numpy(), 0)[..., None], -1)[..., 0]
    hard = (np.log(np.exp(z).sum(-1)) - picked)[known].mean()
    trainer().fit(distiller, DataLoader([batch], batch_size=None))
    assert distiller.last_terms["soft"].item() == pytest.approx(soft, rel=1e-5)
    assert distiller.last_terms["hard"].item() == pytest.approx(hard, rel=1e-5)


# ---------------------------------------------------------------- arguments, teacher, errors


@pytest.mark.parametrize("weights", [{"sof": 1.0}, {"soft": -1.0}, {"soft": float("nan")}, {"hard": "much"}])
def test_loss_weights_are_checked(weights):
    with pytest.raises(ConfigError, match="loss_weights"):
        LogitKD(*models(), loss_weights=weights)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "4"])
def test_micro_batch_size_is_checked(size):
    with pytest.raises(ConfigError, match="micro_batch_size"):
        LogitKD(*models(), micro_batch_size=size)


class UndeclaredTerms(Distiller):
    """Declares no terms; their names are known only once they are computed."""

    def losses(self, batch):
        return {"distance": (self.student(batch["input"]) - self.frozen_teacher.output(batch)).square().mean()}


def test_weights_of_undeclared_terms_are_checked_in_the_dry_run():
    student, teacher = models()
    with pytest.raises(ConfigError, match=r"loss_weights.distence is not a term.*\['distance'\]"):
        UndeclaredTerms(student, teacher, loss_weights={"distence": 1.0}).dry_run({"input": torch.randn(2, 4)})


def test_a_teacher_is_needed_and_must_be_another_module():
    student, _ = models()
    with pytest.raises(ConfigError, match="needs a teacher"):
        DKD(student, None)
    with pytest.raises(ConfigError, match="share parameters"):
        LogitKD(student, nn.Sequential(student))
    assert Supervised(student).teacher is None


def test_micro_batches_need_a_value_per_position():
    class TwoValues(UndeclaredTerms):
        def losses(self, batch):
            distance = self.student(batch["input"]) - self.frozen_teacher.output(batch)
            return {"distance": distance.square().flatten()}

    student, teacher = models()
    with pytest.raises(ConfigError, match="term 'distance' has 6 values for 2 positions"):
        trainer().fit(TwoValues(student, teacher, micro_batch_size=2), loader(torch.randn(8, 4), torch.zeros(8).long()))


class Breaks(LogitKD):
    """Is not a number for one sample."""

    def losses(self, batch):
        terms = super().losses(batch)
        if self.training:
            terms["soft"] = torch.where(batch["index"] == 13, torch.nan, terms["soft"])
        return terms


@pytest.mark.parametrize("micro", [None, 3])
def test_a_term_that_is_not_finite_is_named(micro):
    student, teacher = models()
    batches = [{"input": torch.randn(8, 4), "index": torch.arange(8) + 8 * i} for i in range(3)]
    run = trainer()
    with pytest.raises(NonFiniteLossError, match=r"term 'soft' is nan at epoch 0, step 1, samples \[13\]"):
        run.fit(Breaks(student, teacher, micro_batch_size=micro), DataLoader(batches, batch_size=None))
    assert run.global_step == 1
    assert all(parameter.isfinite().all() for parameter in student.parameters())


# ---------------------------------------------------------------- optimizer


class RatePerPart(LogitKD):
    """Trains the bias of the student ten times as fast as the weight."""

    def trainable(self):
        yield {"params": [self.student.weight], "lr_scale": 1.0}
        yield {"params": [self.student.bias], "lr_scale": 10.0}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


def test_groups_of_parameters_have_learning_rates_of_their_own():
    distiller = RatePerPart(*models(), optimizer=sgd)
    optimizer = distiller.configure_optimizers()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]
    assert [group["params"] for group in optimizer.param_groups] == [
        [distiller.student.weight],
        [distiller.student.bias],
    ]
    assert distiller.trainable_parameters() == [distiller.student.weight, distiller.student.bias]


def test_a_step_uses_the_learning_rates_of_the_groups():
    student, teacher = models()
    batch = {"input": torch.randn(8, 4)}
    loss = 0.9 * RatePerPart(student, teacher).losses(batch)["soft"].mean()
    weight, bias = torch.autograd.grad(loss, [student.weight, student.bias])
    expected = {"weight": student.weight - 0.5 * weight, "bias": student.bias - 5.0 * bias}
    trainer().fit(RatePerPart(student, teacher, optimizer=sgd), DataLoader([batch], batch_size=None))
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, expected[name])


class Mixed(LogitKD):
    """Yields a parameter and a group."""

    def trainable(self):
        yield self.student.weight
        yield {"params": [self.student.bias], "lr_scale": 10.0}


def test_parameters_and_groups_cannot_be_mixed():
    with pytest.raises(ConfigError, match=r"Mixed\.trainable must yield either parameters or groups, not both"):
        Mixed(*models()).configure_optimizers()


class HasHead(LogitKD):
    """Builds a head whose width is that of the teacher's outputs."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.head = None

    def prepare(self, batch):
        if self.head is None:
            self.head = nn.Linear(self.student(batch["input"]).shape[1], self.frozen_teacher.output(batch).shape[1])

    def losses(self, batch):
        return self.logit_terms(batch, self.head(self.student(batch["input"])), self.frozen_teacher.output(batch))


@pytest.mark.parametrize("micro", [None, 3])
def test_a_head_that_prepare_builds_is_trained(micro):
    torch.manual_seed(0)
    distiller = HasHead(nn.Linear(4, 7), nn.Linear(4, 3), micro_batch_size=micro)
    assert distiller.head is None
    run = trainer(max_steps=1)
    run.fit(distiller, loader(torch.randn(20, 4), torch.randint(0, 3, (20,))))
    optimized = [parameter for group in run.optimizers[0].param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in distiller.head.parameters()} <= {id(parameter) for parameter in optimized}
    assert run.optimizers[0].state[distiller.head.weight]["step"] == 1


# ---------------------------------------------------------------- dry run


def test_a_returned_term_that_is_not_declared_is_named():
    class Misspelt(LogitKD):
        def losses(self, batch):
            terms = super().losses(batch)
            return {"soft": terms["soft"], "hrad": terms["hard"]}

    message = r"Misspelt\.losses returns the term 'hrad', which is not in info\.terms; declared: \['hard', 'soft'\]"
    with pytest.raises(ConfigError, match=message):
        Misspelt(nn.Linear(4, 3), nn.Linear(4, 3)).dry_run({"input": torch.randn(2, 4), "target": torch.tensor([0, 1])})


def test_a_dry_run_changes_no_weight_and_no_mode():
    distiller = LogitKD(*models())
    distiller.train()
    before = copy.deepcopy(distiller.student.state_dict())
    terms = distiller.dry_run({"input": torch.randn(3, 4), "target": torch.tensor([0, 1, IGNORE])})
    assert {name: tuple(value.shape) for name, value in terms.items()} == {"soft": (3,), "hard": (2,)}
    assert not any(value.requires_grad for value in terms.values())
    assert all(torch.equal(value, before[name]) for name, value in distiller.student.state_dict().items())
    assert distiller.student.training


def test_what_the_losses_reject_is_an_error_of_the_configuration():
    class Raises(LogitKD):
        def losses(self, batch):
            raise ValueError("student and teacher differ in classes")

    message = "^Raises does not fit these models and data: student and teacher differ in classes$"
    with pytest.raises(ConfigError, match=message):
        Raises(*models()).dry_run({"input": torch.randn(2, 4)})
