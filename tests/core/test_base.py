"""The base class: exact means, the teacher, micro-batches, and the plain Lightning way."""

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdzoo.core.base import Distiller
from kdzoo.core.batch import IGNORE, as_batch, micro_batches
from kdzoo.core.loss_terms import RunningMeans, position_counts, rows_about, total
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


# ---------------------------------------------------------------- means


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8), st.integers(0, 99))
def test_running_means_do_not_depend_on_the_split(parts, seed):
    """Each term is divided by its own count; a scalar stands for its samples; an empty term has no mean."""
    torch.manual_seed(seed)
    running, full, few, scalar = RunningMeans(), [], [], []
    for samples, labelled in parts:
        terms = {"full": torch.rand(samples), "few": torch.rand(labelled), "scalar": torch.rand(())}
        running.add(terms, samples)
        full.append(terms["full"])
        few.append(terms["few"])
        scalar += [float(terms["scalar"])] * samples
    means = running.means()
    assert means["full"].item() == pytest.approx(torch.cat(full).double().mean().item(), rel=1e-5)
    assert means["scalar"].item() == pytest.approx(np.mean(scalar), rel=1e-5)
    every = torch.cat(few)
    assert ("few" in means) == bool(len(every))
    if len(every):
        assert means["few"].item() == pytest.approx(every.double().mean().item(), rel=1e-5)


def test_total():
    assert total(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2) == (torch.tensor(10.0), 4)
    assert total(torch.tensor(2.0), 3) == (torch.tensor(6.0), 3)
    assert total(torch.empty(0), 3) == (torch.tensor(0.0), 0)


def test_position_counts():
    inputs = torch.zeros(2, 3)
    assert position_counts({"input": inputs}) == [2, 0]
    assert position_counts({"input": inputs, "target": torch.tensor([1, IGNORE])}) == [2, 1]
    target = torch.tensor([[1, IGNORE, 2], [0, 0, 0]])
    assert position_counts({"input": inputs, "target": target}) == [6, 5]
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert position_counts({"input": inputs, "target": target, "mask": mask}) == [3, 2]


def test_rows_about():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    target = torch.tensor([[1, IGNORE, 2], [0, 0, 0]])
    batch = {"input": torch.zeros(2, 3), "target": target, "mask": mask}
    assert rows_about(torch.tensor([False, False, True]), batch, labelled=False).tolist() == [1]
    assert rows_about(torch.tensor([True, False]), batch, labelled=True).tolist() == [0]
    assert rows_about(torch.tensor(True), batch, labelled=False).tolist() == [0, 1]


@given(st.integers(1, 20), st.one_of(st.none(), st.integers(1, 25)))
def test_split_keeps_every_sample_once(n, size):
    batch = {"input": torch.arange(n), "target": torch.arange(n)}
    parts = list(micro_batches(batch, size))
    assert torch.equal(torch.cat([part["input"] for part in parts]), batch["input"])
    assert all(len(part["input"]) <= (size or n) for part in parts)


@pytest.mark.parametrize("bad", [{"x": 1}, 3, torch.zeros(2), (1, 2, 3)])
def test_what_is_no_batch(bad):
    with pytest.raises(DataError, match="a batch must be"):
        as_batch(bad)


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


class Free(Distiller):
    """Names its terms only when it computes them."""

    def losses(self, batch):
        return {"gap": (self.student(batch["input"]) - self.frozen_teacher.output(batch)).square().mean()}


def test_weights_of_terms_that_are_known_late():
    student, teacher = models()
    with pytest.raises(ConfigError, match=r"loss_weights.gpa is not a term.*\['gap'\]"):
        Free(student, teacher, loss_weights={"gpa": 1.0}).dry_run({"input": torch.randn(2, 4)})


def test_a_teacher_is_needed_and_must_be_another_module():
    student, _ = models()
    with pytest.raises(ConfigError, match="needs a teacher"):
        DKD(student, None)
    with pytest.raises(ConfigError, match="share parameters"):
        LogitKD(student, nn.Sequential(student))
    assert Supervised(student).teacher is None


def test_the_teacher_is_frozen_and_in_no_state():
    distiller = LogitKD(*models())
    distiller.train()
    assert distiller.student.training
    assert not any(module.training for module in distiller.teacher.modules())
    assert not any(parameter.requires_grad for parameter in distiller.teacher.parameters())
    state = distiller.state_dict()
    assert set(state) == {"student.weight", "student.bias"}
    distiller.load_state_dict(state, strict=True)
    wrapped = nn.ModuleDict({"inner": distiller})
    assert set(wrapped.state_dict()) == {"inner.student.weight", "inner.student.bias"}
    wrapped.load_state_dict(wrapped.state_dict(), strict=True)
    before = copy.deepcopy(distiller.teacher.state_dict())
    distiller.load_state_dict({**state, **{f"teacher.{key}": value + 1 for key, value in before.items()}})
    assert all(torch.equal(value, before[key]) for key, value in distiller.teacher.state_dict().items())


def test_micro_batches_need_a_value_per_position():
    class Two(Free):
        def losses(self, batch):
            gap = self.student(batch["input"]) - self.frozen_teacher.output(batch)
            return {"gap": gap.square().flatten()}

    student, teacher = models()
    with pytest.raises(ConfigError, match="term 'gap' has 6 values for 2 positions"):
        trainer().fit(Two(student, teacher, micro_batch_size=2), loader(torch.randn(8, 4), torch.zeros(8).long()))


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
