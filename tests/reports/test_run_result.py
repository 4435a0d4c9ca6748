"""The result of a run is the dictionary of its report, a table where it is shown, and the way to its files."""

import copy
import json
import pickle
import re
from html.parser import HTMLParser

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.models import MLP
from kdzoo.reports import terminal
from kdzoo.reports.run_result import RunResult
from kdzoo.storage.checkpoint import save_model
from tests.reports.example import report

NODE = {"_target_": "kdzoo.models.MLP", "in_shape": [2], "num_classes": 3, "hidden": [4]}


@pytest.fixture
def result(tmp_path):
    return RunResult(report(seed=[0, 1]), tmp_path)


def test_it_is_the_dictionary_of_the_report(result):
    assert result == report(seed=[0, 1])
    assert result["student"]["metrics"]["accuracy"] == 0.9
    assert json.loads(json.dumps(result)) == result
    for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert other == result
        assert other.folder == result.folder


def test_it_is_printed_as_the_table_of_the_command_line(result, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal.show(result)
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    print(result)
    assert capsys.readouterr().out.splitlines() == [*shown, f"Run folder: {result.folder}"]
    assert repr(result) == str(result)


def test_a_notebook_shows_a_table_that_needs_nothing_else(result):
    text = result._repr_html_()
    assert text.startswith('<div class="kdzoo-run-result">')
    assert not re.search(r"https?://|@import|url\(|<script|src=", text)
    # Text has the colour of the notebook around it, so that it can be read in a light and in a dark one.
    assert set(re.findall(r"[^-]color: ([^;]+);", text)) == {"inherit"}
    words = []
    parser = HTMLParser()
    parser.handle_data = words.append
    parser.feed(text)
    text = "".join(words)
    for part in ("logit_kd on digits, seeds 0, 1", "accuracy ↑", "cold start", "closes 80%", str(result.folder)):
        assert part in text, part


def test_the_students_of_all_seeds_can_be_loaded(result):
    # The student at the top of the folder is that of the first seed.
    for number, folder in enumerate(("student", "seed_0/student", "seed_1/student")):
        torch.manual_seed(max(number - 1, 0))
        save_model(MLP(in_shape=[2], num_classes=3, hidden=[4]), NODE, result.folder / folder)
    first, other = result.load_student(), result.load_student(seed=1)
    assert not first.training
    x = torch.randn(5, 2)
    assert torch.equal(first(x), result.load_student(seed=0)(x))
    assert not torch.equal(first(x), other(x))
    with pytest.raises(ConfigError, match=r"seed must be one of the seeds of this run, \[0, 1\], got 7"):
        result.load_student(seed=7)


def test_a_student_of_a_class_that_the_run_allowed_can_be_loaded(result):
    node = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    save_model(torch.nn.Linear(2, 3), node, result.folder / "student")
    with pytest.raises(ConfigError, match=r"torch\.nn\.Linear"):
        result.load_student()
    allowed = RunResult(result, result.folder, allow={"torch.nn.Linear"})
    assert isinstance(allowed.load_student(), torch.nn.Linear)


def test_the_page_is_in_the_run_folder(result, tmp_path):
    assert result.page == tmp_path / "report.html"
