"""Every metric that docs/report.md documents is in the catalogue, with one meaning each."""

import re
from collections import Counter
from pathlib import Path

import pytest

from kdzoo.core.metric_catalogue import GROUPS, find

METRICS = [metric for group in GROUPS.values() for metric in group]
REPORT_PAGE = Path(__file__).parents[2] / "docs" / "report.md"


def documented():
    """Return the names in the metric column of the tables of the page."""
    tables = REPORT_PAGE.read_text(encoding="utf-8").split("## Classifiers")[1]
    cells = re.findall(r"^\| (`.*?) \|", tables, flags=re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_names_are_listed_once():
    assert max(Counter(metric.name for metric in METRICS).values()) == 1


@pytest.mark.parametrize("name", documented())
def test_a_documented_metric_is_explained(name):
    assert find(name) is not None, name


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_meaning_is_a_sentence(metric):
    assert metric.meaning[0].isupper()
    assert metric.meaning.endswith(".")
    assert "\n" not in metric.meaning


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("accuracy", "accuracy"),
        ("accuracy_worst", "accuracy_worst"),
        ("accuracy_lenet", "accuracy_<inner_network>"),
        ("frechet_low", "frechet_low"),
        ("frechet_pca", "frechet_<extractor>"),
        ("emd_paired", "<distance>_paired"),
        ("frechet_step1_task0", "frechet_step<i>_task<j>"),
    ],
)
def test_a_name_counts_before_a_pattern(name, listed):
    assert find(name).name == listed


def test_unknown_names_have_no_entry():
    assert find("acuracy") is None
    assert find("") is None


def test_arrows_point_to_the_better_side():
    assert (find("accuracy").arrow, find("kl").arrow, find("dispersion").arrow) == ("↑", "↓", "")
