"""Continual learning: the losses by hand, what is kept when a task begins, what is remembered, what is measured."""

import copy
from functools import partial

import pytest
import pytorch_lightning as pl
import torch

from kdzoo.core.batch import micro_batches
from kdzoo.data import ArrayData
from kdzoo.distillers import Continual, SemiAuxiliary
from kdzoo.distillers.generative.rollout import named, noise_in
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import positive_scale
from kdzoo.kinds.graphical_model import GraphicalModelKind
from kdzoo.models import HVAE
from kdzoo.runs.pipeline import measurements

TASKS = [[2, 0], [1], [3, 4, 5]]
SIZES = {"in_shape": (7,), "num_classes": 6}
WAYS = ("distil", "replay", "nothing")
N = 11


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def model(**options):
    return HVAE(**SIZES, **{"latents": [4, 3], "width": 8, "conditional": True, **options})


def at_task(task, old="distil", **options):
    """Return a distiller of float64 in the middle of a task, whose models all differ."""
    distiller = Continual(model(), tasks=TASKS, old=old, **options).double()
    for kept in distiller.kept:
        kept.load_state_dict(model().double().state_dict())
    distiller.task.fill_(task)
    return distiller


def batch_of(distiller, n=N):
    student, classes = distiller.student, torch.tensor(TASKS[int(distiller.task)])
    batch = {"input": torch.rand(n, 7), "target": classes[torch.arange(n) % len(classes)], "old_class": torch.rand(n)}
    for of in ("", "old_", "replayed_"):
        batch |= named(student.noise(n), of)
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


def old_samples(distiller, batch):
    """Return classes, their inputs and noise of the samples that the model of the last task is asked for."""
    classes = torch.tensor([one for task in TASKS[: int(distiller.task)] for one in task])
    target = classes[(batch["old_class"] * len(classes)).floor().long()]
    label = torch.nn.functional.one_hot(target, 6).double()
    return target, {"label": label}, noise_in(batch, "old_")


# ---------------------------------------------------------------- the losses


@pytest.mark.parametrize("old", WAYS)
@pytest.mark.parametrize(("task", "share"), [(0, 1), (1, 1 / 3), (2, 1 / 2)], ids=["first", "second", "third"])
def test_new_classes_are_learned_by_their_share_of_the_evidence_bound(task, share, old):
    distiller = at_task(task, old)
    batch = batch_of(distiller)
    expected = distiller.student.negative_elbo(batch, noise_in(batch))
    found = {name: value for name, value in distiller.losses(batch).items() if name.startswith("new_")}
    assert found.keys() == {"new_z2", "new_z1", "new_image"}
    for name, value in expected.items():
        torch.testing.assert_close(found[f"new_{name}"], value * (1 if old == "nothing" else share))


@pytest.mark.parametrize("task", [1, 2])
def test_distilled_old_classes_by_hand(task):
    distiller = at_task(task)
    batch = batch_of(distiller)
    rest = 1 - len(TASKS[task]) / sum(len(classes) for classes in TASKS[: task + 1])
    _, inputs, noise = old_samples(distiller, batch)

    def rolled_out(one):
        nets = {node.name: node.conditional.net for node in one.random_nodes().values()}
        found, above, label = {}, [], inputs["label"]
        for name in ("z2", "z1"):
            loc, raw = nets[name](*above, label).chunk(2, -1)
            found[name] = (loc, positive_scale(raw))
            above = [loc + positive_scale(raw) * noise[name]]
        return found, nets["image"](*above, label)

    (theirs, their_image), (own, own_image) = (rolled_out(one) for one in (distiller.kept[task - 1], distiller.student))
    terms = distiller.losses(batch)
    difference = (their_image - own_image).square().sum(1)
    torch.testing.assert_close(terms["old_image"], rest * difference / (2 * 0.05))
    for name in ("z2", "z1"):
        gaps = [(one - other).square().sum(1) for one, other in zip(theirs[name], own[name], strict=True)]
        assert float(gaps[0].detach().min()) > 0
        torch.testing.assert_close(terms[f"old_{name}"], rest * sum(gaps))


def test_distilled_old_classes_are_those_of_the_method_for_a_frozen_teacher():
    distiller = at_task(2)
    batch = batch_of(distiller)
    target, _, noise = old_samples(distiller, batch)
    teacher, student = copy.deepcopy(distiller.kept[1]), copy.deepcopy(distiller.student)
    terms = SemiAuxiliary(student, teacher, inputs="data").losses({**batch, **named(noise), "target": target})
    found = distiller.losses(batch)
    for name, value in terms.items():
        torch.testing.assert_close(found[f"old_{name}"], value / 2)


@pytest.mark.parametrize("task", [1, 2])
def test_replayed_old_classes_are_means_of_the_last_model(task):
    distiller = at_task(task, "replay")
    batch = batch_of(distiller)
    rest = 1 - len(TASKS[task]) / sum(len(classes) for classes in TASKS[: task + 1])
    target, inputs, noise = old_samples(distiller, batch)
    samples = distiller.kept[task - 1].rollout(noise, inputs).distributions["image"].mean
    expected = distiller.student.negative_elbo({"input": samples, "target": target}, noise_in(batch, "replayed_"))
    found = distiller.losses(batch)
    for name, value in expected.items():
        torch.testing.assert_close(found[f"old_{name}"], rest * value)


def test_a_student_like_the_last_model_loses_nothing_of_the_old_classes():
    distiller = at_task(1)
    distiller.kept[0].load_state_dict(distiller.student.state_dict())
    terms = distiller.losses(batch_of(distiller))
    assert all(not value.any() for name, value in terms.items() if name.startswith("old_"))


@pytest.mark.parametrize("old", WAYS)
def test_no_old_classes_in_the_first_task(old):
    distiller = at_task(0, old)
    batch = batch_of(distiller)
    assert not [name for name in distiller.losses(batch) if name.startswith("old_")]
    rehearsed = {name: value for name, value in distiller.dry_run(batch).items() if name.startswith("old_")}
    assert bool(rehearsed) == (old != "nothing")
    assert all(not value.any() for value in rehearsed.values())


@pytest.mark.parametrize("old", WAYS)
def test_a_batch_in_pieces_has_the_same_values(old):
    distiller = at_task(2, old)
    batch = batch_of(distiller)
    whole, pieces = distiller.losses(batch), [distiller.losses(part) for part in micro_batches(batch, 4)]
    for name, value in whole.items():
        torch.testing.assert_close(torch.cat([piece[name] for piece in pieces]), value)


@pytest.mark.parametrize("old", ["distil", "replay"])
def test_gradients_reach_the_student_alone(old):
    distiller = at_task(2, old)
    sum(value.sum() for name, value in distiller.losses(batch_of(distiller)).items() if "old" in name).backward()
    assert all(parameter.grad is None for parameter in distiller.kept.parameters())
    assert distiller.student.latents()["z2"].conditional.net.linear.weight.grad[:, [0, 1, 2]].abs().min() > 0
    assert {id(one) for one in distiller.trainable()} == {id(one) for one in distiller.student.parameters()}


def test_weights_of_latents():
    distiller = at_task(1, latent_weight=0.25, loss_weights={"old_z1": 3.0, "new_z1": 2.0})
    assert distiller.loss_weights == {"old_z2": 0.25, "old_z1": 3.0, "new_z1": 2.0}
    assert distiller.controls["replay"] == {"old": "replay", "loss_weights": {"new_z1": 2.0}}
    assert distiller.controls["fine_tuning"]["old"] == "nothing"
    assert at_task(1, "replay").controls == {}


# ---------------------------------------------------------------- a stream of tasks

PROTOTYPES = torch.rand(6, 7, generator=torch.Generator().manual_seed(1))


def data():
    targets = torch.arange(120) % 6
    found = ArrayData((PROTOTYPES[targets], targets), (PROTOTYPES, torch.arange(6)), val_size=0, batch_size=60)
    found.setup()
    return found


class Follow(pl.Callback):
    """Notes the student at the end of every epoch, and how many steps Adam remembers after the first of each."""

    def __init__(self):
        self.ends, self.remembered = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 0:
            states = trainer.optimizers[0].state.values()
            self.remembered.append(int(next(iter(states))["step"]))

    def on_train_epoch_end(self, trainer, module):
        self.ends.append(copy.deepcopy(module.student.state_dict()))


def learned(folder, epochs, old="distil", tasks=TASKS):
    torch.manual_seed(0)
    distiller = Continual(model(width=16), tasks=tasks, old=old, optimizer=partial(torch.optim.Adam, lr=2e-2))
    follow = Follow()
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[follow],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        accelerator="cpu",
    )
    trainer.fit(distiller, datamodule=distiller.transfer_set(data()))
    return distiller, follow


@pytest.mark.filterwarnings("ignore")
def test_where_a_task_begins_the_student_is_kept_and_the_optimizer_forgets(tmp_path):
    distiller, follow = learned(tmp_path, 6)
    for kept, end in zip(distiller.kept, (1, 3), strict=True):
        state = kept.state_dict()
        assert all(torch.equal(state[name], value) for name, value in follow.ends[end].items())
    assert follow.remembered == [1, 3, 1, 3, 1, 3]
    assert {name for name in distiller.state_dict() if name.startswith("kept.1.")} == {
        f"kept.1.{name}" for name in distiller.student.state_dict()
    }


def test_what_is_saved_continues_with_the_models_that_were_kept():
    distiller, other = at_task(2), at_task(0)
    batch = batch_of(distiller)
    other.load_state_dict(distiller.state_dict())
    expected = distiller.losses(batch)
    found = other.losses(batch)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.filterwarnings("ignore")
def test_old_classes_are_remembered_where_something_is_done_for_them(tmp_path):
    errors = {}
    for old in WAYS:
        distiller, _ = learned(tmp_path, 40, old, tasks=[[0, 1, 2], [3, 4, 5]])
        drawn = distiller.student.eval()
        given = {"label": torch.eye(6).repeat_interleave(50, 0)}
        samples = drawn.samples(drawn.noise(300), given).unflatten(0, (6, 50)).mean(1)
        errors[old] = (samples - PROTOTYPES).square().mean(1).sqrt().unflatten(0, (2, 3)).mean(1)
    assert all(float(error[1]) < 0.05 for error in errors.values())
    assert float(errors["nothing"][0]) > 0.2
    assert float(errors["distil"][0]) < 0.1
    assert float(errors["replay"][0]) < 0.1


# ---------------------------------------------------------------- measurements


class Numbered(GraphicalModelKind):
    """A kind whose metric says which model was measured, and on which classes."""

    def __init__(self, distiller, control):
        super().__init__()
        self.models = [*distiller.kept, distiller.student, control]

    def scores(self, model, batches):
        number = next(i for i, one in enumerate(self.models) if one is model)
        classes = sorted({one for batch in batches for one in batch["target"].tolist()})
        task = [sorted(one) for one in TASKS].index(classes)
        return {"frechet": 10.0 * number + task, "one_nn": 0.5 * task}


def test_every_model_is_measured_on_the_tasks_that_it_had_seen():
    distiller, control = at_task(2), model()
    kind = Numbered(distiller, control)
    assert measurements(kind, distiller, distiller.student, data()) == {
        "frechet_step0_task0": 0,
        "frechet_step1_task0": 10,
        "frechet_step1_task1": 11,
        "frechet_step2_task0": 20,
        "frechet_step2_task1": 21,
        "frechet_step2_task2": 22,
        "frechet_old": 20.5,
        "one_nn_old": 0.25,
        "forgetting": (20 - 0 + 21 - 11) / 2,
    }
    assert measurements(kind, distiller, control, data()) == {
        "frechet_step2_task0": 30,
        "frechet_step2_task1": 31,
        "frechet_step2_task2": 32,
        "frechet_old": 30.5,
        "one_nn_old": 0.25,
    }


def test_samples_of_a_conditional_model_have_the_classes_of_the_observations():
    one = model().eval()
    targets = torch.tensor([4] * 30 + [5] * 10)
    batches = [{"input": PROTOTYPES[some], "target": some} for some in targets.split(16)]
    kind = GraphicalModelKind()
    predictions = kind.predict(one, batches)
    found = predictions.shared["values"]
    noise = one.noise(40, generator=torch.Generator().manual_seed(0))
    expected = one.samples(noise, {"label": torch.eye(6)[targets]})
    torch.testing.assert_close(found, expected.detach().double())
    assert kind.scores(one, batches) == {name: kind.metrics(predictions)[name] for name in ("frechet", "one_nn")}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"old": "forget"}, "old must be one of distil, replay, nothing, got 'forget'"),
        ({"tasks": [[0]]}, "tasks must be"),
        ({"latent_weight": -1.0}, "latent_weight must be"),
        ({"divergence": "js"}, "divergence must be"),
        ({"reduction": "max"}, "reduction must be"),
    ],
    ids=["old", "tasks", "weight", "divergence", "reduction"],
)
def test_wrong_arguments_are_refused(options, line):
    with pytest.raises(ConfigError, match=line):
        Continual(model(), **options)


def test_a_student_without_a_condition_is_refused():
    with pytest.raises(ConfigError, match="student must have an input that reads the class, got none"):
        Continual(model(conditional=False))


def test_a_class_that_the_data_lack_is_refused():
    distiller = Continual(model(), tasks=[[0, 1], [6]])
    with pytest.raises(ConfigError, match=r"tasks\[1\] must have training samples, got classes \[6\]"):
        distiller.transfer_set(data())


def test_a_loss_weight_of_no_term_is_refused():
    distiller = at_task(0, loss_weights={"old_u1": 1.0})
    with pytest.raises(ConfigError, match="old_u1 is not a term"):
        distiller.dry_run(batch_of(distiller))
