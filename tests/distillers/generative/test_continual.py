"""Continual learning: the loss terms by hand, the copies made between tasks, forgetting, and the measurements."""

import copy
from functools import partial

import pytest
import pytorch_lightning as pl
import torch

from kdzoo import kinds
from kdzoo.core.batch import micro_batches
from kdzoo.data import ArrayData
from kdzoo.distillers import Continual, SemiAuxiliary
from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import positive_scale
from kdzoo.kinds.graphical_model import GraphicalModelKind
from kdzoo.models import HVAE

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
    """Return a distiller in double precision in the middle of a task, whose models all differ."""
    distiller = Continual(model(), tasks=TASKS, old=old, **options).double()
    for snapshot in distiller.snapshots:
        snapshot.load_state_dict(model().double().state_dict())
    distiller.begin_task(task)
    return distiller


def batch_of(distiller, n=N):
    student, classes = distiller.student, torch.tensor(TASKS[int(distiller.task)])
    batch = {"input": torch.rand(n, 7), "target": classes[torch.arange(n) % len(classes)], "old_class": torch.rand(n)}
    for purpose in ("", "old_", "replayed_"):
        batch |= pack_noise(student.noise(n), purpose)
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


def old_samples(distiller, batch):
    """Return the classes of the samples of the last model, the inputs for these classes, and the noise."""
    classes = torch.tensor([label for task in TASKS[: int(distiller.task)] for label in task])
    target = classes[(batch["old_class"] * len(classes)).floor().long()]
    label = torch.nn.functional.one_hot(target, 6).double()
    return target, {"label": label}, unpack_noise(batch, "old_")


# ---------------------------------------------------------------- the losses


@pytest.mark.parametrize("old", WAYS)
@pytest.mark.parametrize(("task", "share"), [(0, 1), (1, 1 / 3), (2, 1 / 2)], ids=["first", "second", "third"])
def test_terms_of_new_classes_are_their_share_of_the_negative_elbo(task, share, old):
    distiller = at_task(task, old)
    batch = batch_of(distiller)
    expected = distiller.student.negative_elbo(batch, unpack_noise(batch))
    terms = {name: value for name, value in distiller.losses(batch).items() if name.startswith("new_")}
    assert terms.keys() == {"new_z2", "new_z1", "new_image"}
    for name, value in expected.items():
        torch.testing.assert_close(terms[f"new_{name}"], value * (1 if old == "nothing" else share))


@pytest.mark.parametrize("task", [1, 2])
def test_distilled_terms_of_old_classes_by_hand(task):
    distiller = at_task(task)
    batch = batch_of(distiller)
    rest = 1 - len(TASKS[task]) / sum(len(classes) for classes in TASKS[: task + 1])
    _, inputs, noise = old_samples(distiller, batch)

    def rollout_by_hand(graph):
        nets = {node.name: node.conditional.net for node in graph.random_nodes().values()}
        parameters, above, label = {}, [], inputs["label"]
        for name in ("z2", "z1"):
            loc, raw = nets[name](*above, label).chunk(2, -1)
            parameters[name] = (loc, positive_scale(raw))
            above = [loc + positive_scale(raw) * noise[name]]
        return parameters, nets["image"](*above, label)

    teacher_parameters, teacher_image = rollout_by_hand(distiller.snapshots[task - 1])
    student_parameters, student_image = rollout_by_hand(distiller.student)
    terms = distiller.losses(batch)
    difference = (teacher_image - student_image).square().sum(1)
    torch.testing.assert_close(terms["old_image"], rest * difference / (2 * 0.05))
    for name in ("z2", "z1"):
        pairs = zip(teacher_parameters[name], student_parameters[name], strict=True)
        gaps = [(teacher - student).square().sum(1) for teacher, student in pairs]
        assert float(gaps[0].detach().min()) > 0
        torch.testing.assert_close(terms[f"old_{name}"], rest * sum(gaps))


def test_distilled_terms_are_those_of_semi_auxiliary_with_the_last_model_as_teacher():
    distiller = at_task(2)
    batch = batch_of(distiller)
    target, _, noise = old_samples(distiller, batch)
    teacher, student = copy.deepcopy(distiller.snapshots[1]), copy.deepcopy(distiller.student)
    terms = SemiAuxiliary(student, teacher, inputs="data").losses({**batch, **pack_noise(noise), "target": target})
    continual_terms = distiller.losses(batch)
    for name, value in terms.items():
        torch.testing.assert_close(continual_terms[f"old_{name}"], value / 2)


@pytest.mark.parametrize("task", [1, 2])
def test_replayed_samples_are_means_of_the_last_model(task):
    distiller = at_task(task, "replay")
    batch = batch_of(distiller)
    rest = 1 - len(TASKS[task]) / sum(len(classes) for classes in TASKS[: task + 1])
    target, inputs, noise = old_samples(distiller, batch)
    samples = distiller.snapshots[task - 1].rollout(noise, inputs).distributions["image"].mean
    expected = distiller.student.negative_elbo({"input": samples, "target": target}, unpack_noise(batch, "replayed_"))
    terms = distiller.losses(batch)
    for name, value in expected.items():
        torch.testing.assert_close(terms[f"old_{name}"], rest * value)


def test_distilled_terms_of_a_student_equal_to_the_last_model_are_zero():
    distiller = at_task(1)
    distiller.snapshots[0].load_state_dict(distiller.student.state_dict())
    terms = distiller.losses(batch_of(distiller))
    assert all(not value.any() for name, value in terms.items() if name.startswith("old_"))


@pytest.mark.parametrize("old", WAYS)
def test_the_first_task_has_terms_of_old_classes_only_in_a_dry_run(old):
    distiller = at_task(0, old)
    batch = batch_of(distiller)
    assert not [name for name in distiller.losses(batch) if name.startswith("old_")]
    dry_run = {name: value for name, value in distiller.dry_run(batch).items() if name.startswith("old_")}
    assert bool(dry_run) == (old != "nothing")
    assert all(not value.any() for value in dry_run.values())


@pytest.mark.parametrize("old", WAYS)
def test_micro_batches_have_the_same_values_as_the_whole_batch(old):
    distiller = at_task(2, old)
    batch = batch_of(distiller)
    expected, parts = distiller.losses(batch), [distiller.losses(part) for part in micro_batches(batch, 4)]
    for name, value in expected.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), value)


@pytest.mark.parametrize("old", ["distil", "replay"])
def test_gradients_reach_only_the_student(old):
    distiller = at_task(2, old)
    sum(value.sum() for name, value in distiller.losses(batch_of(distiller)).items() if "old" in name).backward()
    assert all(parameter.grad is None for parameter in distiller.snapshots.parameters())
    assert distiller.student.latents()["z2"].conditional.net.linear.weight.grad[:, [0, 1, 2]].abs().min() > 0
    student_parameters = list(distiller.student.parameters())
    assert {id(parameter) for parameter in distiller.trainable()} == {id(parameter) for parameter in student_parameters}


def test_latent_weight_and_loss_weights_are_combined_and_controls_keep_only_those_of_new_classes():
    distiller = at_task(1, latent_weight=0.25, loss_weights={"old_z1": 3.0, "new_z1": 2.0})
    assert distiller.loss_weights == {"old_z2": 0.25, "old_z1": 3.0, "new_z1": 2.0}
    assert distiller.report_extras.controls["replay"] == {"old": "replay", "loss_weights": {"new_z1": 2.0}}
    assert distiller.report_extras.controls["fine_tuning"]["old"] == "nothing"
    assert at_task(1, "replay").report_extras.controls == {}


# ---------------------------------------------------------------- a stream of tasks

PROTOTYPES = torch.rand(6, 7, generator=torch.Generator().manual_seed(1))


def data():
    targets = torch.arange(120) % 6
    result = ArrayData((PROTOTYPES[targets], targets), (PROTOTYPES, torch.arange(6)), val_size=0, batch_size=60)
    result.setup()
    return result


class Recorder(pl.Callback):
    """Records the student at the end of every epoch, and Adam's number of steps after the first batch of each."""

    def __init__(self):
        self.ends, self.adam_steps = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 0:
            states = trainer.optimizers[0].state.values()
            self.adam_steps.append(int(next(iter(states))["step"]))

    def on_train_epoch_end(self, trainer, module):
        self.ends.append(copy.deepcopy(module.student.state_dict()))


def train(folder, epochs, old="distil", tasks=TASKS):
    torch.manual_seed(0)
    distiller = Continual(model(width=16), tasks=tasks, old=old, optimizer=partial(torch.optim.Adam, lr=2e-2))
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        accelerator="cpu",
    )
    trainer.fit(distiller, datamodule=distiller.transfer_set(data()))
    return distiller, recorder


@pytest.mark.filterwarnings("ignore")
def test_at_the_start_of_a_task_the_student_is_copied_and_the_optimizer_state_is_cleared(tmp_path):
    distiller, recorder = train(tmp_path, 6)
    for snapshot, end in zip(distiller.snapshots, (1, 3), strict=True):
        state = snapshot.state_dict()
        assert all(torch.equal(state[name], value) for name, value in recorder.ends[end].items())
    assert recorder.adam_steps == [1, 3, 1, 3, 1, 3]
    assert {name for name in distiller.state_dict() if name.startswith("snapshots.1.")} == {
        f"snapshots.1.{name}" for name in distiller.student.state_dict()
    }


def test_a_checkpoint_restores_the_task_and_the_copies():
    distiller, other = at_task(2), at_task(0)
    batch = batch_of(distiller)
    other.load_state_dict(distiller.state_dict())
    expected = distiller.losses(batch)
    terms = other.losses(batch)
    assert terms.keys() == expected.keys()
    assert all(torch.equal(terms[name], value) for name, value in expected.items())


@pytest.mark.filterwarnings("ignore")
def test_distillation_and_replay_keep_the_old_classes_and_fine_tuning_forgets_them(tmp_path):
    errors = {}
    for old in WAYS:
        distiller, _ = train(tmp_path, 40, old, tasks=[[0, 1, 2], [3, 4, 5]])
        student = distiller.student.eval()
        inputs = {"label": torch.eye(6).repeat_interleave(50, 0)}
        samples = student.samples(student.noise(300), inputs).unflatten(0, (6, 50)).mean(1)
        errors[old] = (samples - PROTOTYPES).square().mean(1).sqrt().unflatten(0, (2, 3)).mean(1)
    assert all(float(error[1]) < 0.05 for error in errors.values())
    assert float(errors["nothing"][0]) > 0.2
    assert float(errors["distil"][0]) < 0.1
    assert float(errors["replay"][0]) < 0.1


# ---------------------------------------------------------------- measurements


class NumberingKind(GraphicalModelKind):
    """A kind whose metrics encode which model was measured, and on the classes of which task."""

    def __init__(self, distiller, control):
        super().__init__()
        self.models = [*distiller.snapshots, distiller.student, control]

    def quick_scores(self, model, batches):
        number = next(i for i, candidate in enumerate(self.models) if candidate is model)
        labels = sorted({label for batch in batches for label in batch["target"].tolist()})
        task = [sorted(classes) for classes in TASKS].index(labels)
        return {"frechet": 10.0 * number + task, "one_nn": 0.5 * task}


def test_every_model_is_measured_on_the_tasks_that_it_was_trained_on():
    distiller, control = at_task(2), model()
    quick_scores = partial(kinds.quick_scores, NumberingKind(distiller, control))
    batches = list(data().test_dataloader())
    assert distiller.report_extras.measurements(distiller.student, batches, quick_scores) == {
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
    assert distiller.report_extras.measurements(control, batches, quick_scores) == {
        "frechet_step2_task0": 30,
        "frechet_step2_task1": 31,
        "frechet_step2_task2": 32,
        "frechet_old": 30.5,
        "one_nn_old": 0.25,
    }


# ---------------------------------------------------------------- invalid arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"old": "forget"}, "old must be one of distil, replay, nothing, got 'forget'"),
        ({"tasks": [[0]]}, "tasks must be"),
        ({"latent_weight": -1.0}, "latent_weight must be"),
        ({"divergence": "js"}, "divergence must be"),
        ({"reduction": "max"}, "reduction must be"),
    ],
    ids=["old", "tasks", "weight", "divergence", "reduction"],
)
def test_an_invalid_argument_raises(options, message):
    with pytest.raises(ConfigError, match=message):
        Continual(model(), **options)


def test_a_student_without_inputs_raises():
    with pytest.raises(ConfigError, match="student must have an input that reads the class, got none"):
        Continual(model(conditional=False))


def test_a_class_without_training_samples_raises():
    distiller = Continual(model(), tasks=[[0, 1], [6]])
    with pytest.raises(ConfigError, match=r"tasks\[1\] must have training samples, got classes \[6\]"):
        distiller.transfer_set(data())


def test_a_loss_weight_that_names_no_term_raises():
    distiller = at_task(0, loss_weights={"old_u1": 1.0})
    with pytest.raises(ConfigError, match="old_u1 is not a term"):
        distiller.dry_run(batch_of(distiller))
