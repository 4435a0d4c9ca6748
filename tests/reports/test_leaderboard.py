"""Runs are ranked by the student's score, named by what differs, and merged where only the seeds differ."""

import csv
import math

import pytest
import yaml

from kdzoo.errors import ConfigError, RunFolderError
from kdzoo.reports import leaderboard
from kdzoo.storage import checked_json
from tests.reports.example import model, report


def write_run(folder, settings, **changes):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"output_dir": str(folder), **settings}))
    checked_json.write(folder / "report.json", report(**changes))


def temperature(value, seed=0):
    return {
        "distiller": {"_target_": "kdzoo.distillers.LogitKD", "temperature": value},
        "seed": seed,
        "data": {"seed": seed},
    }


@pytest.fixture
def runs(tmp_path):
    """Three runs at two temperatures, one of them with two seeds."""
    write_run(tmp_path / "a", temperature(1.0), student=model(0.6), seed=0)
    write_run(tmp_path / "b", temperature(4.0), student=model(0.8), seed=0)
    write_run(tmp_path / "deep" / "c", temperature(4.0, seed=1), student=model(0.9), seed=1)
    return leaderboard.read_runs([tmp_path])


def test_runs_are_found_at_any_depth_and_once(runs, tmp_path):
    assert [run.folder.name for run in runs] == ["a", "b", "c"]
    assert len(leaderboard.read_runs([tmp_path, tmp_path / "deep", tmp_path])) == 3
    assert "output_dir" not in runs[0].settings


def test_rows_are_ranked_and_named_by_what_differs(runs):
    (board,) = leaderboard.boards(runs)
    assert (board.data, board.metric, board.better) == ("digits", "accuracy", "higher")
    assert board.varied == ["distiller.temperature"]
    assert [row.settings for row in board.rows] == [{"distiller.temperature": 4.0}, {"distiller.temperature": 1.0}]
    first, second = board.rows
    assert first.scores["student"] == [0.8, 0.9]
    assert first.score == pytest.approx(0.85)
    assert first.deviation == pytest.approx(0.1 / math.sqrt(2))
    assert first.text("student") == "0.85 ± 0.071"
    assert (second.text("student"), second.gap_closed) == ("0.6", 0.8)
    assert math.isnan(second.deviation)
    assert board.best == "Best of 2: accuracy 0.85 ± 0.071 with distiller.temperature=4.0, its control 0.7 ± 0."


def test_a_repeated_seed_counts_once_and_equal_numbers_are_one_setting(tmp_path):
    write_run(tmp_path / "a", temperature(4.0), student=model(0.6), seed=0)
    write_run(tmp_path / "b", temperature(4), student=model(0.6), seed=0)
    write_run(tmp_path / "c", temperature(4, seed=1), student=model(0.8), seed=1)
    (board,) = leaderboard.boards(leaderboard.read_runs([tmp_path]))
    assert [row.scores["student"] for row in board.rows] == [[0.6, 0.8]]


def test_the_share_of_the_gap_is_the_mean_over_runs(tmp_path):
    # The second run repeats a seed, and the last one has no teacher that is better than its control.
    for name, seed, gap in (("a", 0, 0.8), ("b", 0, 0.8), ("c", 1, 0.6), ("d", 2, None)):
        comparison = {**report()["comparison"], "gap_closed": gap}
        write_run(tmp_path / name, temperature(4.0, seed), seed=seed, comparison=comparison)
    write_run(tmp_path / "e", temperature(1.0), comparison=None)
    (board,) = leaderboard.boards(leaderboard.read_runs([tmp_path]))
    several, unknown = board.rows
    assert (several.gap_closed, several.gap_text) == (pytest.approx(0.7), "70 ± 14%")
    assert (unknown.gap_closed, unknown.gap_text) == (None, "")
    leaderboard.write_csv([board], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert float(first["gap_closed_std"]) == pytest.approx(0.2 / math.sqrt(2))
    assert (second["gap_closed"], second["gap_closed_std"]) == ("", "")


def test_runs_that_measure_other_samples_have_a_board_of_their_own(tmp_path):
    write_run(tmp_path / "a", temperature(4.0), student=model(0.6))
    write_run(tmp_path / "trial", temperature(4.0), student=model(0.9), splits={"n_test": 7})
    assert [len(board.rows) for board in leaderboard.boards(leaderboard.read_runs([tmp_path]))] == [1, 1]


def test_settings_are_named_as_they_are_typed(tmp_path):
    write_run(tmp_path / "a", temperature(4.0), student=model(0.6))
    write_run(tmp_path / "b", temperature(None), student=model(0.5))
    (board,) = leaderboard.boards(leaderboard.read_runs([tmp_path]))
    assert [row.setting_text for row in board.rows] == ["distiller.temperature=4.0", "distiller.temperature=null"]


def test_classes_have_the_names_of_their_files(tmp_path):
    (tmp_path / "conf" / "student").mkdir(parents=True)
    (tmp_path / "conf" / "student" / "my_net.yaml").write_text("_target_: nets.MyNet\n")
    (tmp_path / "conf" / "student" / "broken.yaml").write_text("a: [")
    command = f"kdzoo --config-dir {tmp_path / 'conf'} student=my_net"
    write_run(tmp_path / "a", {"student": {"_target_": "kdzoo.models.MLP"}}, student=model(0.6))
    write_run(tmp_path / "b", {"student": {"_target_": "nets.MyNet"}}, student=model(0.5), command=command)
    write_run(tmp_path / "c", {"student": {"_target_": "nets.Other"}}, student=model(0.4), command=command)
    (board,) = leaderboard.boards(leaderboard.read_runs([tmp_path]))
    assert [row.setting_text for row in board.rows] == ["student=mlp", "student=my_net", "student=Other"]


def test_where_lower_is_better_the_smallest_comes_first(tmp_path):
    for name, value in (("a", 0.7), ("b", 0.2), ("c", math.nan)):
        student = {**model(0.5), "metrics": {"perplexity": value}}
        write_run(tmp_path / name, {"rate": name}, student=student, score="perplexity", kind="language_model")
    (board,) = leaderboard.boards(leaderboard.read_runs([tmp_path]))
    assert board.better == "lower"
    assert [row.settings["rate"] for row in board.rows] == ["b", "a", "c"]


def test_runs_on_other_data_or_with_another_score_have_their_own_board(tmp_path):
    write_run(tmp_path / "a", {"x": 1})
    write_run(tmp_path / "b", {"x": 2}, data="mnist")
    write_run(tmp_path / "c", {"x": 3}, score="cross_entropy")
    found = leaderboard.boards(leaderboard.read_runs([tmp_path]))
    assert [(board.data, board.metric) for board in found] == [
        ("digits", "accuracy"),
        ("mnist", "accuracy"),
        ("digits", "cross_entropy"),
    ]
    assert [board.varied for board in found] == [[], [], []]
    assert found[1].rows[0].setting_text == "logit_kd"


def test_keys_that_only_some_runs_have_name_no_row_but_keep_rows_apart(tmp_path):
    write_run(tmp_path / "a", {"distiller": {"_target_": "kdzoo.distillers.DKD", "beta": 1}})
    write_run(tmp_path / "b", {"distiller": {"_target_": "kdzoo.distillers.DKD", "beta": 1, "alpha": 2}})
    write_run(tmp_path / "c", {"distiller": {"_target_": "kdzoo.distillers.LogitKD"}})
    (board,) = leaderboard.boards(leaderboard.read_runs([tmp_path]))
    assert board.varied == ["distiller"]
    assert sorted(row.settings["distiller"] for row in board.rows) == ["dkd", "dkd", "logit_kd"]


def test_several_seeds_of_one_run_have_their_deviation(tmp_path):
    student = model(0.8)
    student["metrics"]["accuracy"] = {"mean": 0.8, "std": 0.1, "values": [0.7, 0.9]}
    write_run(tmp_path / "a", {"x": 1}, student=student, control=student, teacher=student, seed=[0, 1])
    (board,) = leaderboard.boards(leaderboard.read_runs([tmp_path]))
    assert board.rows[0].scores["student"] == [0.7, 0.9]


def test_the_table_holds_plain_numbers(runs, tmp_path):
    leaderboard.write_csv(leaderboard.boards(runs), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert float(first["student"]) == pytest.approx(0.85)
    assert float(first["student_std"]) == pytest.approx(0.0707, abs=1e-4)
    assert (first["n_seeds"], second["n_seeds"], second["student_std"]) == ("2", "1", "")
    assert (second["distiller.temperature"], second["gap_closed"], second["parameters"]) == ("1.0", "0.8", "1234")
    assert second["command"] == "kdzoo seed=0"


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no finished run in it"):
        leaderboard.read_runs([tmp_path])
    with pytest.raises(ConfigError, match=r"nowhere: there is no such folder"):
        leaderboard.read_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report.json", "{", "is not valid JSON"),
        ("report.json", "[]", "must hold keys and values"),
        ("report.json", "{}", "has no checksum"),
        ("config.yaml", "a: [", "is not valid YAML"),
        ("config.yaml", "- 1", "must hold keys and values"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(name, content, message, tmp_path):
    write_run(tmp_path / "a", {"x": 1})
    (tmp_path / "a" / name).write_text(content)
    with pytest.raises(RunFolderError, match=message) as caught:
        leaderboard.read_runs([tmp_path])
    assert str(tmp_path / "a") in str(caught.value)
