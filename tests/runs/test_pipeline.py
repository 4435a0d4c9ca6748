"""A run from its settings to its folder: seeds, controls, files, and faults that leave nothing half done."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import kdzoo
from kdzoo.errors import ConfigError, DataError, RunFolderError
from kdzoo.runs import pipeline
from kdzoo.storage import run_folder

ROOT = Path(__file__).resolve().parents[2]


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_a_folder_that_cannot_be_written(settings, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunFolderError) as error:
        kdzoo.run(settings())
    assert "choose another" in one_line(error)


def test_a_folder_in_use_is_refused(settings, tmp_path):
    with run_folder.lock(tmp_path / "run"):
        with pytest.raises(RunFolderError) as error:
            kdzoo.run(settings())
        assert "is in use by another process" in one_line(error)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_finished_folder_is_never_overwritten(settings, tmp_path):
    first = kdzoo.run(settings())
    files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError) as error:
        kdzoo.run(settings("distiller.temperature=5"))
    assert "distiller.temperature: 4.0 -> 5" in one_line(error)
    again = kdzoo.run(settings())
    assert again == first
    left = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == files


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.batch_size=41", "batch_size=41 is larger than the 40 training samples"),
        ("distiller.temperature=0", "temperature must be finite and > 0, got 0"),
        ("distiller.loss_weights.soft=-1", "loss_weights.soft must be a"),
        ("distiller.micro_batch_size=0", "micro_batch_size must be at least 1 or None, got 0"),
        ("data.train_size=100000", "train_size=100000 is more than"),
    ],
)
def test_settings_that_do_not_fit(override, expected, settings, tmp_path):
    with pytest.raises(ConfigError) as error:
        kdzoo.run(settings(override))
    assert expected in one_line(error)
    assert not (tmp_path / "run" / "report.json").exists()


def test_two_seeds_are_averaged_and_each_has_its_files(settings, tmp_path):
    report = kdzoo.run(settings("seed=null", "seeds=[3,1]", "control=true", "trainer.max_epochs=1"), command="the line")
    folder = tmp_path / "run"
    assert json.loads((folder / "report.json").read_text()) == report
    assert report["seed"] == [3, 1]
    assert report["command"] == "the line"
    results = [json.loads((folder / f"seed_{seed}" / "result.json").read_text()) for seed in (3, 1)]
    for role in ("teacher", "student", "control"):
        values = [result["models"][role]["metrics"]["accuracy"] for result in results]
        assert report[role]["metrics"]["accuracy"]["values"] == values
        assert report[role]["parameters"] == results[0]["models"][role]["parameters"]
    assert report["comparison"]["metric"] == report["score"] == "accuracy"
    assert (folder / "seed_3" / "figures" / "losses.png").exists()
    exported = [
        (folder / name / "model.safetensors").read_bytes() for name in ("student", "seed_3/student", "seed_1/student")
    ]
    assert exported[0] == exported[1] != exported[2]


def test_the_kind_is_in_the_report_and_in_the_result_of_each_seed(settings, tmp_path):
    report = kdzoo.run(settings("trainer.max_epochs=1"))
    assert report["kind"] == "classifier"
    assert json.loads((tmp_path / "run" / "seed_0" / "result.json").read_text())["kind"] == "classifier"
    assert json.loads((tmp_path / "run" / "report.json").read_text())["kind"] == "classifier"


def test_a_finished_seed_is_not_trained_again(settings, tmp_path, monkeypatch):
    report = kdzoo.run(settings("trainer.max_epochs=1"))
    (tmp_path / "run" / "report.json").unlink()  # as if the process had been killed just before the report
    monkeypatch.setattr(pipeline, "prepare_models", None)
    assert kdzoo.run(settings("trainer.max_epochs=1")) == report
    assert report.folder == tmp_path / "run"
    assert report.page.is_file()
    assert isinstance(report.load_student(), nn.Module)


def test_a_run_over_several_seeds_continues_from_the_file_that_it_has_written(settings, tmp_path):
    first = kdzoo.run(settings("trainer.max_epochs=1", "seed=null", "seeds=[0,1]", "control=false"))
    (tmp_path / "run" / "report.json").unlink()
    shutil.rmtree(tmp_path / "run" / "seed_1")
    again = kdzoo.run(tmp_path / "run" / "config.yaml")
    assert again["student"]["metrics"] == first["student"]["metrics"]


def test_a_run_continues_from_the_file_that_it_has_written(settings, tmp_path):
    first = kdzoo.run(settings("trainer.max_epochs=1"))
    assert kdzoo.run(tmp_path / "run" / "config.yaml") == first
    assert kdzoo.run(OmegaConf.to_container(settings("trainer.max_epochs=1"))) == first


def test_compilation_is_refused_for_a_method_that_it_does_not_fit(settings):
    with pytest.raises(ConfigError, match=r"^compile=true does not work with FeatureKD: hidden layers are read"):
        kdzoo.run(settings("distiller=feature_kd", "distiller.layers={layers.0: layers.0}", "compile=true"))


class Rule(nn.Module):
    """A teacher without parameters: the class is the brightest of ten groups of pixels."""

    def forward(self, inputs):
        return torch.stack([pixels.sum(1) for pixels in inputs.flatten(1)[:, :60].chunk(10, 1)], 1)


def test_a_teacher_without_parameters_runs_end_to_end(settings, tmp_path):
    cfg = settings("trainer.max_epochs=1")
    cfg.teacher = {"_target_": f"{__name__}.Rule"}
    report = kdzoo.run(cfg, allow={f"{__name__}.Rule"})
    assert report["teacher"]["parameters"] == 0
    assert report["student"]["parameters"] > 0
    assert report["seconds"].keys() == {"teacher", "student"}
    assert 0 <= report["fidelity"]["student"]["agreement"] <= 1
    assert not (tmp_path / "cache" / "teachers").exists()


def test_the_function_is_not_hidden_by_a_module():
    """``kdzoo.runs`` is a package and ``kdzoo.run`` the function, whatever was imported before."""
    code = "import kdzoo.runs.pipeline, kdzoo; assert callable(kdzoo.run); assert kdzoo.run is kdzoo.runs.pipeline.run"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_data_without_a_test_split_are_refused(settings, monkeypatch):
    monkeypatch.setattr("kdzoo.data.Digits.test_dataloader", lambda self: [])
    with pytest.raises(DataError, match="Digits has no test split; a report needs at least one labelled test sample"):
        kdzoo.run(settings())


def test_a_history_becomes_curves_without_the_sum_of_the_terms():
    history = {
        "steps": [1, 2, 3],
        "terms": {"soft": [1.0, None, 3.0], "hard": [4.0, 5.0, 6.0]},
        "validation": [
            {"epoch": 0, "val/soft": 0.5, "val/loss": 9.0},
            {"epoch": 1, "val/soft": 0.25, "val/hard": 0.125, "val/loss": 8.0},
        ],
    }
    curves = pipeline.training_curves(history)
    assert curves.training == {"soft": ([1, 3], [1.0, 3.0]), "hard": ([1, 2, 3], [4.0, 5.0, 6.0])}
    assert curves.validation == {"soft": ([1, 2], [0.5, 0.25]), "hard": ([2], [0.125])}


def test_teacher_student_and_control_are_drawn_in_one_figure_also_from_the_cache(settings, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        pipeline.plotting, "loss_curves", lambda trainings, path, measured: drawn.append((trainings, path, measured))
    )
    overrides = ("control=true", "trainer.max_epochs=2", "distiller.loss_weights.hard=0")
    kdzoo.run(settings(*overrides))
    cfg = settings(*overrides)
    cfg.output_dir = str(tmp_path / "again")  # with the teacher of the first run
    kdzoo.run(cfg)
    assert [path for _, path, _ in drawn] == [
        tmp_path / name / "seed_0/figures/losses.png" for name in ("run", "again")
    ]
    assert [measured for *_, measured in drawn] == [["hard"], ["hard"]]
    first, second = (trainings for trainings, *_ in drawn)
    assert list(first) == ["teacher", "student", "control"]
    assert first == second
    for role, terms in {"teacher": {"hard"}, "student": {"soft", "hard"}, "control": {"hard"}}.items():
        assert first[role].training.keys() == first[role].validation.keys() == terms
    epochs = {role: curves.validation["hard"][0] for role, curves in first.items()}
    assert epochs["student"] == epochs["control"] == [1, 2]
    assert (tmp_path / "run/seed_0/checkpoints/control/history.json").exists()


def test_overfitting_one_batch_brings_its_loss_to_almost_zero(tmp_path):
    method = ("distiller=supervised", "control=false")
    cfg = kdzoo.compose("debug=overfit", *method, f"output_dir={tmp_path}/run", f"cache_dir={tmp_path}/cache")
    summary = kdzoo.run(cfg)["splits"]
    assert (summary["n_train"], summary["n_labelled"]) == (32, 32)
    terms = json.loads((tmp_path / "run/seed_0/checkpoints/student/history.json").read_text())["terms"]
    assert terms["hard"][-1] < 0.05 * terms["hard"][0]
