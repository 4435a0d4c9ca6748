"""Additions of a method to the report: nothing by default, and each addition where the report shows it."""

import torch
from torch import nn

import kdzoo
from kdzoo.core.report_extras import ReportExtras
from kdzoo.distillers import LogitKD
from kdzoo.storage import checked_json


def test_by_default_nothing_is_added(tmp_path):
    extras = ReportExtras()
    assert dict(extras.controls) == extras.baselines(None) == extras.measurements(nn.Identity(), [], None) == {}
    assert extras.figures(tmp_path) == []
    assert not list(tmp_path.iterdir())


class Extras(ReportExtras):
    """Adds one of everything."""

    @property
    def controls(self):
        return {"cold": {"temperature": 1.0}}

    def baselines(self, data):
        return {"constant": Constant()}

    def measurements(self, model, batches, quick_scores):
        return {"twice": 2 * quick_scores(model, batches)["accuracy"]}

    def figures(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "extra.png").write_bytes(b"")
        return [folder / "extra.png"]


class Constant(nn.Module):
    """Always predicts the first class."""

    def forward(self, inputs):
        return torch.eye(10)[torch.zeros(len(inputs), dtype=torch.long)]


class WithExtras(LogitKD):
    """Adds to its report."""

    def __init__(self, *models, **options):
        super().__init__(*models, **options)
        self.report_extras = Extras()


def test_a_run_reports_every_addition(tmp_path):
    target = f"{__name__}.WithExtras"
    small = ("seed=0", "data.train_size=40", "data.batch_size=16", "data.labels_per_class=null")
    folders = (f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}")
    cfg = kdzoo.compose(*small, "student.hidden=[8]", "teacher.hidden=[8]", "trainer.max_epochs=1", *folders)
    cfg.distiller._target_ = target
    report = kdzoo.run(cfg, allow={target})
    assert report["controls"].keys() == {"control", "cold", "constant"}
    for role in ("student", "control"):
        assert report[role]["metrics"]["twice"] == 2 * report[role]["metrics"]["accuracy"]
    assert report["controls"]["cold"]["metrics"]["twice"] == 2 * report["controls"]["cold"]["metrics"]["accuracy"]
    assert "twice" not in report["teacher"]["metrics"]
    assert report["controls"]["constant"]["parameters"] == 0
    folder = tmp_path / "run"
    assert "![seed_0/figures/extra.png]" in (folder / "report.md").read_text()
    assert checked_json.read(folder / "report.json") == report
    assert (folder / "seed_0" / "cold" / "model.safetensors").exists()
