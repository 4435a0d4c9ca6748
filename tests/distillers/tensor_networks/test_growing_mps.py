"""Growing bonds in training: what is due when, what the optimizer keeps, and what is refused."""

import pytest
import torch

from kdzoo.config import compose
from kdzoo.contracts.subject import Subject
from kdzoo.distillers import GrowingMPS
from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models import MLP, MPS, MPSClassifier


def teacher() -> MLP:
    return MLP(in_shape=(6,), num_classes=3, hidden=[4])


def subject(tmp_path, *, optimizer: str = "torch.optim.Adam", **changes) -> Subject:
    cfg = compose("distiller=growing_mps")
    how = {"optimizer": {"_target_": optimizer, "_partial_": True, "lr": 0.01}, "trainer.max_epochs": 3}
    return Subject(cfg, tmp_path, changes={**how, **{f"distiller.{key}": value for key, value in changes.items()}})


def largest(model: MPSClassifier) -> int:
    return max(model.dims.tolist())


def test_bonds_grow_when_they_are_due(tmp_path):
    trained = subject(tmp_path, grow=[[1, 6], [2, 9]], cut=[])
    bonds = [largest(trained.having({"trainer.max_epochs": n}).train(f"{n}").distiller.student) for n in (1, 2, 3)]
    assert bonds == [6, 9, 9]


def test_growing_alone_does_not_change_the_function(tmp_path):
    settings = {"trainer.max_epochs": 1}
    to_container = subject(tmp_path, grow=[], cut=[]).having(settings).train("plain")
    with_learned_sizes = subject(tmp_path, grow=[[1, 8]], cut=[]).having(settings).train("grown")
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(
        with_learned_sizes.distiller.student(x), to_container.distiller.student(x), rtol=1e-5, atol=1e-5
    )
    assert with_learned_sizes.distiller.student.cores.numel() > to_container.distiller.student.cores.numel()


def test_moments_are_padded_by_zeros(tmp_path):
    trained = subject(tmp_path, grow=[[1, 8]], cut=[]).having({"trainer.max_epochs": 1}).train("grown")
    student, (state,) = trained.distiller.student, trained.checkpoint["optimizer_states"]
    groups = state["param_groups"][0]["params"]
    moments = [state["state"][i]["exp_avg_sq"] for i in groups]
    assert [one.shape for one in moments] == [one.shape for one in (student.cores, student.centre)]
    assert [float(state["state"][i]["step"]) for i in groups] == [3.0, 3.0]
    for side in (0, 1):
        moment = student.layout.core(moments[0], side, 20)
        assert moment.shape == (2, 8, 8)
        assert moment[:, 4:].abs().max() == moment[:, :, 4:].abs().max() == 0
        assert moment[:, :4, :4].abs().max() > 0
    assert moments[1][4:].abs().max() == moments[1][:, :, 4:].abs().max() == 0


def test_cuts_keep_their_error_and_start_the_moments_anew(tmp_path):
    trained = subject(tmp_path, grow=[], cut=[[1, 0.3]]).having({"trainer.max_epochs": 1}).train("cut")
    assert largest(trained.distiller.student) <= 4
    assert sum(trained.distiller.student.dims.tolist()) < 66 * 4 - 2 * (3 + 2)
    assert trained.checkpoint["optimizer_states"][0]["state"] == {}
    line = trained.distiller.notes["bonds"]
    assert line.startswith("cut after 1 epochs with a relative error of 0.")
    assert float(line.split("error of ")[1].split()[0]) <= 0.3


def test_a_cut_at_error_zero_is_the_same_function(tmp_path):
    settings = {"trainer.max_epochs": 1}
    to_container = subject(tmp_path, grow=[], cut=[]).having(settings).train("plain")
    cut = subject(tmp_path, grow=[], cut=[[1, 1e-6]]).having(settings).train("cut")
    x = next(iter(cut.data.train_eval_dataloader()))["input"]
    torch.testing.assert_close(cut.distiller.student(x), to_container.distiller.student(x), rtol=1e-3, atol=1e-3)


def test_cuts_see_every_sample_of_the_epoch(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(GrowingMPS, "_cut", lambda self, grams, max_error: seen.append((grams, max_error)))
    trained = subject(tmp_path, cut=[[2, 0.2]], grow=[]).having({"trainer.limit_train_batches": 1.0}).train("seen")
    x = torch.cat([batch["input"] for batch in trained.data.train_eval_dataloader()])
    ((grams, max_error),) = seen
    assert max_error == 0.2
    assert grams.shape == (64, 2, 2)
    torch.testing.assert_close(grams[:, 0, 0], torch.ones(64, dtype=torch.float64))
    assert len(x) == 44


def test_a_checkpoint_of_another_model_is_still_refused(tmp_path):
    trained = subject(tmp_path, grow=[], cut=[])
    trained.having({"trainer.max_epochs": 1}).train("one")
    mlp = {"_target_": "kdzoo.models.MLP", "hidden": [4]}
    with pytest.raises(CheckpointError, match="of another model"):
        trained.having({"student": mlp, "distiller": {"_target_": "kdzoo.distillers.LogitKD"}}).train("one")


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
