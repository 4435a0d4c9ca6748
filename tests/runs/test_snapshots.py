"""Snapshots: drawings of a model in the course of its training, in its history and as a figure."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

import kdzoo
from kdzoo import kinds
from kdzoo.data import Digits
from kdzoo.models import GAN
from kdzoo.runs import snapshots
from kdzoo.runs.training import History
from kdzoo.storage import checked_json


@pytest.fixture
def digits():
    data = Digits(labels_per_class=None)
    data.setup()
    return data


@pytest.mark.parametrize("shape", [(3, 1, 4, 5), (2, 3, 2, 2)])
def test_unpacked_images_differ_by_half_a_level(shape):
    torch.manual_seed(0)
    images = torch.rand(shape)
    difference = torch.as_tensor(snapshots.unpack(snapshots.pack(images))) - images
    assert difference.shape == shape
    assert difference.abs().max() <= 0.5 / 255 + 1e-7


def test_a_drawing_depends_on_the_weights_alone_and_leaves_the_model_in_training(digits):
    draw = snapshots.drawing(kinds.get("graphical_model"), digits)
    torch.manual_seed(0)
    model = GAN(in_shape=(1, 8, 8), latent=2, width=4).train()
    state = torch.get_rng_state()
    first = draw(model)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert first.shape[1:] == (1, 8, 8)
    assert torch.equal(draw(model), first)
    other = GAN(in_shape=(1, 8, 8), latent=2, width=4)
    assert not torch.equal(draw(other), first)


def test_models_without_images_are_not_drawn(digits):
    assert snapshots.drawing(kinds.get("classifier"), digits) is None
    assert snapshots.drawing(kinds.get("graphical_model"), digits)(nn.Linear(2, 2)) is None
    assert snapshots.draw("student", {}, None) is None


def test_a_run_draws_every_trained_model_after_1_2_4_and_the_last_epoch(tmp_path):
    settings = ["distiller=generator_kd", "trainer.max_epochs=3", "teacher_training.max_epochs=5", "data.train_size=64"]
    places = [f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}", "seed=0"]
    kdzoo.run(kdzoo.compose(*settings, *places))
    folder = tmp_path / "run" / "seed_0"
    drawn = {
        role: list(checked_json.read(folder / "checkpoints" / role / "history.json")["snapshots"])
        for role in ("teacher", "student", "control")
    }
    assert drawn == {"teacher": ["1", "2", "4", "5"], "student": ["1", "2", "3"], "control": ["1", "2", "3"]}
    for role in drawn:
        with Image.open(folder / "figures" / f"training_{role}.png") as figure:
            assert figure.info["Description"].startswith(f"Samples of the {role}")


def test_a_continued_training_keeps_the_drawings_of_its_first_part():
    trainer = SimpleNamespace(current_epoch=0)
    first, second = (History(lambda _: torch.ones(1, 1, 2, 2)) for _ in range(2))
    first.on_train_epoch_end(trainer, SimpleNamespace(student=nn.Identity()))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    trainer.current_epoch = 3
    second.on_train_end(trainer, SimpleNamespace(student=nn.Identity()))
    assert list(second.snapshots) == ["1", "3"]
    older = {key: value for key, value in first.state_dict().items() if key != "snapshots"}
    second.load_state_dict(older)  # of an earlier version
    assert second.snapshots == {}
