"""The settings of one seed, and the data, models, distillers and trainings that they build."""

import pytest
import torch
from torch import nn

from kdzoo import config, kinds
from kdzoo.errors import ConfigError
from kdzoo.runs.job import CALIBRATION_INPUTS, Job, calibrated, for_seed, initialised


@pytest.fixture
def job_of(settings, tmp_path):
    """Return a function that makes the job of a seed, with nodes of the configuration replaced."""

    def make(*overrides, seed=0, allow=(), **nodes):
        resolved = {**for_seed(settings(*overrides), seed), **nodes}
        return Job(resolved, seed, tmp_path, {*config.packaged_targets(), *allow})

    return make


def weights(model):
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


# ---------------------------------------------------------------- settings of a seed


def test_every_reference_to_the_seed_is_resolved(settings):
    resolved = for_seed(settings("seed=null", "seeds=[4,5]"), 5)
    assert (resolved["seed"], resolved["seeds"], resolved["data"]["seed"]) == (5, None, 5)


def test_accumulation_becomes_micro_batches(settings):
    resolved = for_seed(settings("trainer.accumulate_grad_batches=3"), 0)
    assert resolved["distiller"]["micro_batch_size"] == 16
    assert resolved["data"]["batch_size"] == 48
    assert resolved["trainer"]["accumulate_grad_batches"] == 1


def test_accumulation_needs_the_size_of_a_batch(settings):
    cfg = settings("trainer.accumulate_grad_batches=3")
    del cfg.data.batch_size
    with pytest.raises(
        ConfigError, match=r"accumulate_grad_batches=3 needs data\.batch_size; set distiller\.micro_bat"
    ):
        for_seed(cfg, 0)


def test_numbers_are_limited_wherever_their_key_occurs(settings):
    resolved = for_seed(settings("largest={batch_size:3,temperature:9,unknown:1}", "distiller.temperature=4"), 0)
    assert (resolved["data"]["batch_size"], resolved["distiller"]["temperature"]) == (3, 4)
    # The limits of the run itself belong to no group.
    assert resolved["largest"] == {"batch_size": 3, "temperature": 9, "unknown": 1}


def test_the_schedule_of_the_teacher_is_over_its_own_epochs(settings):
    cfg = settings("scheduler=cosine", "trainer.max_epochs=5", "teacher_training.max_epochs=9")
    resolved = for_seed(cfg, 0)
    assert resolved["scheduler"]["T_max"] == 5
    assert resolved["teacher_training"]["scheduler"]["T_max"] == 9


# ---------------------------------------------------------------- data and models


def test_weights_are_a_function_of_seed_and_role(job_of):
    sizes = {"in_shape": (1, 8, 8), "num_classes": 10}
    teacher, student = (weights(job_of().model(role, sizes)) for role in ("teacher", "student"))
    torch.manual_seed(99)
    assert torch.equal(weights(job_of().model("student", sizes)), student)
    assert not torch.equal(teacher, student)
    assert not torch.equal(weights(job_of(seed=1).model("student", sizes)), student)
    assert torch.equal(
        weights(job_of().model("student", sizes, seed=1)), weights(job_of(seed=1).model("student", sizes))
    )


class PlainData:
    """Is not a data module."""


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("data", "data must be a LightningDataModule, got PlainData"),
        ("student", "student must be a torch.nn.Module, got PlainData"),
        ("kind", "kind must be a kdzoo.kinds.Kind, got PlainData"),
    ],
)
def test_a_node_of_another_class_is_refused(node, message, job_of):
    name = f"{__name__}.PlainData"
    job = job_of(allow={name}, **{node: {"_target_": name}})
    with pytest.raises(ConfigError, match=f"^{message}"):
        {"data": job.data, "student": lambda: job.model("student", {}), "kind": lambda: job.chosen_kind}[node]()


def build(student, teacher, **options):
    """Return something else than a distiller."""
    return "text"


def test_a_distiller_of_another_class_is_refused(job_of):
    name = f"{__name__}.build"
    with pytest.raises(ConfigError, match=r"^distiller must be a kdzoo\.Distiller, got str"):
        job_of(allow={name}, distiller={"_target_": name}).distiller(nn.Linear(1, 1), nn.Linear(1, 1))


def test_a_wrong_optimizer_or_schedule_is_found_when_the_distiller_is_built(job_of):
    models = nn.Linear(1, 1), nn.Linear(1, 1)
    with pytest.raises(ConfigError, match=r"^cannot build torch\.optim\.Adam: Invalid learning rate: -1"):
        job_of("optimizer.lr=-1").distiller(*models)
    with pytest.raises(ConfigError, match=r"^cannot build torch\.optim\.lr_scheduler\.CosineAnnealingLR: .*no_such"):
        job_of("scheduler=cosine", "scheduler.no_such=1").distiller(*models)


# ---------------------------------------------------------------- kinds


def test_a_chosen_kind_is_that_of_the_student(job_of):
    model = nn.Linear(1, 1)
    assert job_of().chosen_kind is None
    assert job_of().kind_of("student", model).name == "classifier"
    chosen = job_of("kind=language_model")
    assert chosen.kind_of("student", model) is chosen.chosen_kind
    assert chosen.kind_named("language_model") is chosen.chosen_kind
    assert chosen.kind_named("classifier").name == kinds.get("classifier").name


# ---------------------------------------------------------------- calibration and initialisation


class Calibrates(nn.Module):
    """Keeps the inputs that it is calibrated on."""

    def calibrate(self, inputs):
        self.inputs = inputs


class ManyBatches:
    """Training inputs in blocks, of which only as many are read as are needed."""

    def __init__(self):
        self.n_read = 0

    def train_eval_dataloader(self):
        for start in range(0, 10_000, 1000):
            self.n_read += 1
            yield {"input": torch.arange(start, start + 1000)}


def test_a_model_is_calibrated_on_the_first_training_inputs():
    data = ManyBatches()
    model = calibrated(Calibrates(), data)
    assert torch.equal(model.inputs, torch.arange(CALIBRATION_INPUTS))
    assert data.n_read == 5
    plain = nn.Linear(1, 1)
    assert calibrated(plain, None) is plain


class TakesWeights(nn.Module):
    """Keeps what it is initialised from."""

    def init_from_teacher(self, teacher, data):
        self.source = (teacher, data)

    def check_init_from_teacher(self, teacher, data):
        """Accept everything."""


def test_a_student_is_initialised_from_a_teacher_if_there_is_one():
    teacher = nn.Linear(1, 1)
    assert initialised(TakesWeights(), teacher, "data").source == (teacher, "data")
    assert "source" not in vars(initialised(TakesWeights(), None, "data"))
    plain = nn.Linear(1, 1)
    assert initialised(plain, teacher, "data") is plain


def test_a_training_has_the_settings_of_the_run_and_its_changes(job_of, tmp_path):
    job = job_of("checkpoint_every_n_steps=3", "logger=csv", "callbacks=early_stopping")
    training = job.training("student", tmp_path / "x", max_epochs=7)
    assert training.settings["max_epochs"] == 7
    assert "_target_" not in training.settings
    assert (training.every_n_steps, training.label, training.folder) == (3, "student", tmp_path / "x")
    assert [type(callback).__name__ for callback in training.callbacks] == ["EarlyStopping"]
    assert [logger.save_dir for logger in training.loggers] == [str(tmp_path / "x")]
    assert training.hyperparameters["seed"] == job.seed
    assert not {"logger", "output_dir"} & training.hyperparameters.keys()


def test_objects_among_the_arguments_of_the_trainer_are_built_for_each_training(job_of, tmp_path):
    job = job_of("debug=profiler")
    first, second = (job.training("student", tmp_path).settings["profiler"] for _ in range(2))
    assert type(first).__name__ == "SimpleProfiler"
    assert first is not second
