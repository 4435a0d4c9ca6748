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


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_settings_are_in_one_piece_at_any_width(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [([f"data.file=/a/long/path/{i}", "student.a_long_name=[1,2]"], ("0.5 ± 0.1", str(i))) for i in range(12)]
    heads = {"a student": "right", "the control": "right"}
    terminal.show_named("A title", "settings", heads, rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    for i, (settings, _) in enumerate(rows, 1):
        at = next(n for n, line in enumerate(lines) if line.split()[:2] == [str(i), settings[0]])
        assert settings[1] in lines[at + 1]
        assert ("0.5 ± 0.1" in lines[at]) == (columns > 40)
    assert sum("0.5 ± 0.1" in line for line in lines) == len(rows)


def test_a_setting_that_is_longer_than_a_line_is_folded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal.show_named("Runs", "settings", {"folder": "left"}, [(["x" * 100], ("y" * 100,)), ([], ("z",))])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "".join(lines).count("x") == "".join(lines).count("y") == 100


def test_a_report_from_elsewhere_is_text_and_no_command_of_the_terminal():
    text = terminal.to_text(report(data="[/red][bold]x\x1b[31m"), 80)
    assert "[/red][bold]x\N{REPLACEMENT CHARACTER}[31m" in text
    assert "\x1b" not in text
