"""Tables on the terminal fit its width, whatever the number of models."""

import io

import pytest
from rich.console import Console

from kdzoo.reports import terminal
from tests.reports.example import model, report

MANY = {f"baseline_{i}": model(0.5 + i / 100) for i in range(9)}


def printed(tables, width):
    console = Console(file=io.StringIO(), width=width)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_every_model_is_in_a_table_that_fits(width):
    many = report(controls={"control": model(0.7), **MANY})
    text = printed(terminal.tables(many, width), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for name in ("teacher", "student", "control", *MANY):
        assert name.replace("_", " ") in text
    assert text.count("accuracy") == len(list(terminal.tables(many, width)))
    assert "…" not in text


@pytest.mark.parametrize("width", range(45, 110, 3))
def test_no_value_is_cut_off_at_any_width(width):
    several = {"mean": 0.052731, "std": 0.00612, "values": [0.05, 0.06]}
    models = {name: {**model(0.5), "metrics": {"accuracy": several}} for name in ("student", "control", "cold_start")}
    controls = {name: models[name] for name in ("control", "cold_start")}
    text = printed(terminal.tables(report(**models | {"controls": controls}, seed=[0, 1]), width), width)
    assert "…" not in text
    assert text.count("0.05273 ± 0.0061") == 3


def test_a_narrow_terminal_has_a_table_for_each_model():
    assert len(list(terminal.tables(report(), 10))) == 4


def test_a_row_without_a_value_is_left_out_of_a_table():
    last = list(terminal.tables(report(), 10))[-1]
    assert "kl (teacher)" not in printed([last], 80)


def test_sentences_follow_the_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal.show(report())
    out = capsys.readouterr().out
    assert "logit_kd on digits, seed 0" in out
    assert out.index("cross entropy") < out.index("better than its control")
