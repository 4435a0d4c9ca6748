"""The page of several runs is one well-formed file with a table, a figure and links to the runs."""

import re

import pytest

from kdzoo.errors import RunFolderError
from kdzoo.reports import leaderboard, leaderboard_page
from tests.reports.example import model
from tests.reports.test_html import Page
from tests.reports.test_leaderboard import temperature, write_run


def page_of(folder, output, title="Sweep <1>"):
    path = leaderboard_page.write(leaderboard.boards(leaderboard.read_runs([folder])), output, title)
    return path, path.read_text(encoding="utf-8")


def test_a_page_has_every_run_a_figure_and_links(tmp_path):
    for name, value, score in (("a", 1.0, 0.6), ("b", 4.0, 0.8)):
        write_run(tmp_path / "runs" / name, temperature(value), student=model(score))
    path, text = page_of(tmp_path / "runs", tmp_path / "sweep")
    page = Page(text)
    assert path == tmp_path / "sweep" / "leaderboard.html"
    words = " ".join(" ".join(page.text).split())
    assert "Sweep <1>" in words
    assert "Best of 2: accuracy 0.8 with distiller.temperature=4.0, its control 0.7." in words
    links = [address for address in page.addresses if not address.startswith("data:")]
    assert links == ["../runs/b/report.html", "../runs/a/report.html"]
    assert sum(address.startswith("data:image/png") for address in page.addresses) == 1
    assert not re.search(r"https?://|<script", text)
    assert {file.name for file in path.parent.iterdir()} == {
        "leaderboard.html",
        "leaderboard.csv",
        "digits_accuracy.png",
    }


def test_a_single_run_has_no_figure(tmp_path):
    write_run(tmp_path / "runs" / "a", temperature(1.0))
    path, text = page_of(tmp_path / "runs", tmp_path / "out")
    Page(text)
    assert not list(path.parent.glob("*.png"))


def test_runs_on_two_data_sets_have_two_tables_and_no_common_verdict(tmp_path):
    for name, data in (("a", "digits"), ("b", "mnist")):
        write_run(tmp_path / "runs" / name, temperature(1.0), data=data)
    page = Page(page_of(tmp_path / "runs", tmp_path / "out")[1])
    assert [tag for tag, _ in page.tags].count("table") == 2
    assert not any(attributes.get("class") == "verdict" for _, attributes in page.tags)


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    write_run(tmp_path / "runs" / "a", temperature(1))
    (tmp_path / "file").write_text("")
    boards = leaderboard.boards(leaderboard.read_runs([tmp_path / "runs"]))
    with pytest.raises(RunFolderError, match=r"cannot write .*leaderboard\.csv"):
        leaderboard_page.write(boards, tmp_path / "file" / "below", "Title")
