"""A run from its settings to its folder: seeds, controls, files, and faults that leave nothing half done."""

import errno
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import kdzoo
from kdzoo.config import instantiate
from kdzoo.core.report_extras import ReportExtras
from kdzoo.errors import ConfigError, DataError, RunFolderError
from kdzoo.runs import pipeline
from kdzoo.storage import checked_json, run_folder

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


def test_a_folder_in_use_is_waited_for_if_that_is_asked(settings, tmp_path, capfd):
    with ThreadPoolExecutor() as pool:
        with run_folder.lock(tmp_path / "run"):
            waiting = pool.submit(kdzoo.run, settings(), wait=True)
            while "waiting" not in (printed := capfd.readouterr().err):
                assert not waiting.done()
                time.sleep(0.01)
        assert waiting.result()["student"]
    assert printed == f"kdzoo: waiting for the same run in another process, which uses {tmp_path / 'run'}\n"


def test_a_finished_folder_is_never_overwritten(settings, tmp_path):
    first = kdzoo.run(settings())
    assert first["command"].startswith("kdzoo seed=0 control=false data.train_size=40 ")
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
    assert checked_json.read(folder / "report.json") == report
    assert report["seed"] == [3, 1]
    assert report["command"] == "the line"
    results = [checked_json.read(folder / f"seed_{seed}" / "result.json") for seed in (3, 1)]
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
    assert report["student"]["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert report["seconds"].keys() == {"teacher", "student"}
    data = instantiate(cfg.data, allow={cfg.data._target_})
    data.setup()
    inputs = torch.cat([batch["input"] for batch in data.test_dataloader()])
    with torch.no_grad():
        agrees = kdzoo.load_student(tmp_path / "run")(inputs).argmax(1) == Rule()(inputs).argmax(1)
    assert report["fidelity"]["student"]["agreement"] == pytest.approx(float(agrees.double().mean()))
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


def test_the_control_may_be_trained_in_its_own_way(settings, tmp_path):
    own = "control_training.optimizer={_target_:torch.optim.SGD,_partial_:true,lr:0.5}"
    kdzoo.run(settings("control=true", "trainer.max_epochs=1", "control_training.max_epochs=3", own))
    folder = tmp_path / "run/seed_0/checkpoints"
    epochs = {
        role: len(checked_json.read(folder / role / "history.json")["validation"]) for role in ("student", "control")
    }
    assert epochs == {"student": 1, "control": 3}
    (state,) = torch.load(folder / "control/last.ckpt", weights_only=False)["optimizer_states"]
    assert state["param_groups"][0]["lr"] == 0.5


def test_every_control_is_in_the_figure_of_the_trainings(settings, monkeypatch):
    class WithColdControl(ReportExtras):
        controls = {"cold": {"temperature": 0.5}}

    drawn = []
    monkeypatch.setattr("kdzoo.core.base.ReportExtras", WithColdControl)
    monkeypatch.setattr(pipeline.plotting, "loss_curves", lambda trainings, path, measured: drawn.append(trainings))
    kdzoo.run(settings("control=true", "trainer.max_epochs=1"))
    assert [list(trainings) for trainings in drawn] == [["teacher", "student", "control", "cold"]]


def test_overfitting_one_batch_brings_its_loss_to_almost_zero(tmp_path):
    method = ("distiller=supervised", "control=false")
    cfg = kdzoo.compose("debug=overfit", *method, f"output_dir={tmp_path}/run", f"cache_dir={tmp_path}/cache")
    summary = kdzoo.run(cfg)["splits"]
    assert (summary["n_train"], summary["n_labelled"]) == (32, 32)
    terms = json.loads((tmp_path / "run/seed_0/checkpoints/student/history.json").read_text())["terms"]
    assert terms["hard"][-1] < 0.05 * terms["hard"][0]


def test_a_full_disk_after_the_training_is_one_line_and_the_run_continues(settings, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    cfg = settings("trainer.max_epochs=1")
    for name in ("write_seed", "write_report"):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, name, full)
            with pytest.raises(RunFolderError, match="the disk is full"):
                kdzoo.run(cfg)
        assert not (tmp_path / "run" / "report.json").exists()
    assert kdzoo.run(cfg)["student"]["metrics"]["accuracy"] > 0


def test_a_finished_run_is_shown_where_nothing_can_be_written(settings, tmp_path, monkeypatch):
    first = kdzoo.run(settings("trainer.max_epochs=1"))

    def refuse(*arguments, **options):
        raise RunFolderError("cannot write")

    monkeypatch.setattr(run_folder, "lock", refuse)
    assert kdzoo.run(settings("trainer.max_epochs=1")) == first
    (tmp_path / "run" / "report.json").unlink()
    with pytest.raises(RunFolderError, match="cannot write"):
        kdzoo.run(settings("trainer.max_epochs=1"))


@pytest.mark.parametrize("distiller", ["relational_kd", "ot_pfa"])
def test_several_processes_are_refused_before_the_teacher_is_trained_where_they_compute_something_else(
    distiller, settings, tmp_path
):
    layers = ["distiller.layers={layers.0: layers.0}"] if distiller == "relational_kd" else ["data=reber"]
    own = [] if distiller == "relational_kd" else ["teacher=rnn_lm", "student=pfa"]
    cfg = kdzoo.compose(f"distiller={distiller}", *layers, *own, "trainer.devices=2", "seed=0",
                        f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}")  # fmt: skip
    with pytest.raises(ConfigError, match=r"^trainer\.devices=2 does not work with "):
        kdzoo.run(cfg)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_models_that_were_trained_in_another_type_are_measured_and_exported_in_float32(precision, tmp_path):
    folders = [f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"]
    kdzoo.run(kdzoo.compose("debug=fast", f"trainer.precision={precision}", *folders))
    student = kdzoo.load_student(tmp_path / "run" / "student")
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
