"""Bonds that change between epochs: the schedule, the function, the state of the optimizer, and refusals."""

import pytest
import torch

from kdzoo.config import compose
from kdzoo.contracts.subject import Subject
from kdzoo.distillers import GrowingMPS
from kdzoo.distillers.tensor_networks.growing_mps import FeatureProducts
from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models import MLP, MPS, MPSClassifier
from tests.distillers.tensor_networks.cases import PERCEPTRON_TEACHER


def teacher() -> MLP:
    return MLP(in_shape=(6,), num_classes=3, hidden=[4])


def subject(tmp_path, *, optimizer: str = "torch.optim.Adam", **changes) -> Subject:
    cfg = compose("distiller=growing_mps")
    settings = {"optimizer": {"_target_": optimizer, "_partial_": True, "lr": 0.01}, "trainer.max_epochs": 3}
    return Subject(cfg, tmp_path, changes={**settings, **{f"distiller.{key}": value for key, value in changes.items()}})


def largest(model: MPSClassifier) -> int:
    return max(model.dims.tolist())


def test_bonds_grow_when_they_are_due(tmp_path):
    trained = subject(tmp_path, grow=[[1, 6], [2, 9]], cut=[])
    bonds = [
        largest(trained.with_changes({"trainer.max_epochs": n}).train(f"{n}").distiller.student) for n in (1, 2, 3)
    ]
    assert bonds == [6, 9, 9]


def test_growing_alone_does_not_change_the_function(tmp_path):
    settings = {"trainer.max_epochs": 1}
    fixed = subject(tmp_path, grow=[], cut=[]).with_changes(settings).train("fixed")
    grown = subject(tmp_path, grow=[[1, 8]], cut=[]).with_changes(settings).train("grown")
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(grown.distiller.student(x), fixed.distiller.student(x), rtol=1e-5, atol=1e-5)
    assert grown.distiller.student.cores.numel() > fixed.distiller.student.cores.numel()


def test_moments_are_padded_by_zeros(tmp_path):
    trained = subject(tmp_path, grow=[[1, 8]], cut=[]).with_changes({"trainer.max_epochs": 1}).train("grown")
    student, (state,) = trained.distiller.student, trained.checkpoint["optimizer_states"]
    groups = state["param_groups"][0]["params"]
    moments = [state["state"][i]["exp_avg_sq"] for i in groups]
    assert [moment.shape for moment in moments] == [student.cores.shape, student.centre.shape]
    assert [float(state["state"][i]["step"]) for i in groups] == [3.0, 3.0]
    for side in (0, 1):
        moment = student.layout.core(moments[0], side, 20)
        assert moment.shape == (2, 8, 8)
        assert moment[:, 4:].abs().max() == moment[:, :, 4:].abs().max() == 0
        assert moment[:, :4, :4].abs().max() > 0
    assert moments[1][4:].abs().max() == moments[1][:, :, 4:].abs().max() == 0


def test_a_cut_keeps_its_error_and_resets_the_moments(tmp_path):
    trained = subject(tmp_path, grow=[], cut=[[1, 0.3]]).with_changes({"trainer.max_epochs": 1}).train("cut")
    assert largest(trained.distiller.student) <= 4
    assert sum(trained.distiller.student.dims.tolist()) < 66 * 4 - 2 * (3 + 2)
    assert trained.checkpoint["optimizer_states"][0]["state"] == {}
    note = trained.distiller.notes["bonds"]
    assert note.startswith("cut after 1 epochs with a relative error of 0.")
    assert float(note.split("error of ")[1].split()[0]) <= 0.3


def test_a_cut_of_almost_no_error_does_not_change_the_function(tmp_path):
    settings = {"trainer.max_epochs": 1}
    fixed = subject(tmp_path, grow=[], cut=[]).with_changes(settings).train("fixed")
    cut = subject(tmp_path, grow=[], cut=[[1, 1e-6]]).with_changes(settings).train("cut")
    x = next(iter(cut.data.train_eval_dataloader()))["input"]
    torch.testing.assert_close(cut.distiller.student(x), fixed.distiller.student(x), rtol=1e-3, atol=1e-3)


def test_a_cut_uses_the_features_of_all_samples_of_its_epoch(tmp_path, monkeypatch):
    calls, epoch_inputs, add = [], {}, GrowingMPS.on_train_batch_start

    def recorded(self, batch, batch_idx):
        epoch_inputs.setdefault(self.current_epoch, []).append(batch["input"])
        add(self, batch, batch_idx)

    monkeypatch.setattr(GrowingMPS, "on_train_batch_start", recorded)
    monkeypatch.setattr(GrowingMPS, "_cut", lambda self, grams, max_error: calls.append((grams, max_error)))
    trained = (
        subject(tmp_path, cut=[[2, 0.2]], grow=[]).with_changes({"trainer.limit_train_batches": 1.0}).train("recorded")
    )
    ((grams, max_error),) = calls
    assert max_error == 0.2
    inputs = torch.cat(epoch_inputs[1])
    assert len(inputs) == 44
    torch.testing.assert_close(grams, trained.distiller.student.grams(inputs))
    torch.testing.assert_close(grams[:, 0, 0], torch.ones(64, dtype=torch.float64))


def test_the_products_of_features_are_saved_and_restored():
    distiller, restored = (GrowingMPS(MPS(6, 3, 2), teacher()) for _ in range(2))
    for products in (None, FeatureProducts(torch.rand(6, 2, 2, dtype=torch.float64), 7)):
        distiller.feature_products, checkpoint = products, {}
        distiller.on_save_checkpoint(checkpoint)
        restored.on_load_checkpoint(checkpoint)
        assert restored.feature_products == products


def test_a_run_grows_and_cuts(small_mps_run):
    settings = ["distiller.grow=[[1,5]]", "distiller.cut=[[2,0.1]]", "control=false"]
    run = small_mps_run("growing_mps", *PERCEPTRON_TEACHER, *settings)
    assert max(run.student.dims.tolist()) <= 5
    assert run.report["controls"] == {}


def test_a_checkpoint_of_another_model_is_still_refused(tmp_path):
    trained = subject(tmp_path, grow=[], cut=[])
    trained.with_changes({"trainer.max_epochs": 1}).train("one")
    mlp = {"_target_": "kdzoo.models.MLP", "hidden": [4]}
    with pytest.raises(CheckpointError, match="of another model"):
        trained.with_changes({"student": mlp, "distiller": {"_target_": "kdzoo.distillers.LogitKD"}}).train("one")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grow": [[0, 4]]}, r"grow\[0\]\[0\] must be an integer >= 1, got 0"),
        ({"grow": [[2, 8], [3, 0]]}, r"grow\[1\]\[1\] must be an integer >= 1, got 0"),
        ({"grow": [[3]]}, r"grow\[0\] must be a pair \[epochs, value\], got \[3\]"),
        ({"cut": [[1, 1.5]]}, r"cut\[0\]\[1\] must be in \[0, 1\), got 1.5"),
        ({"noise": -1.0}, "noise must be a finite number >= 0, got -1.0"),
    ],
    ids=["epochs", "bond", "pair", "error", "noise"],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GrowingMPS(MPS(6, 3, 2), teacher(), **options)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (MLP(in_shape=(6,), num_classes=3), "student must be a matrix product state .* got MLP"),
        (MPS(6, 3, 2, boundary="periodic"), "student must have boundary='open', got 'periodic'"),
    ],
    ids=["mlp", "periodic"],
)
def test_students_that_cannot_grow_are_refused(student, message):
    with pytest.raises(ConfigError, match=message):
        GrowingMPS(student, teacher())
