"""The page of a run is one well-formed file that needs no other, below 2 MB, with everything that the report says."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kdzoo.plotting.style import save_figure
from kdzoo.reports.content import flat
from kdzoo.reports.html import MAX_BYTES, WIDE, to_html
from tests.reports.example import model, report

VOID = {"meta", "img", "br", "link"}
SETTINGS = {"student": {"hidden": [8], "dropout": None}, "seed": 0, "note": "<b>&"}


class Page(HTMLParser):
    """Collects tags, addresses and text, and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.text, self.tags = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def figures(tmp_path):
    """A run folder with one figure."""
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2, 4])
    save_figure(
        figure, tmp_path / "seed_0" / "figures" / "loss_terms.png", title="Loss", caption="Loss < 1 over steps."
    )
    return tmp_path, ["seed_0/figures/loss_terms.png"]


def page(figures, **changes):
    return to_html(report(threads=2, **changes), SETTINGS, *figures, "@article{x}\n")


def test_the_page_is_well_formed_and_loads_nothing(figures):
    text = page(figures)
    parsed = Page(text)
    assert all(address.startswith("data:image/png;base64,") for address in parsed.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", text)
    assert len(text.encode()) < MAX_BYTES


def test_the_page_has_verdict_measurements_figures_settings_and_citations(figures):
    text = "".join(Page(page(figures)).text)
    for part in (
        "logit_kd on digits, seed 0",
        "closes 80% of the gap to the teacher.",
        "accuracy ↑",
        "cold start",
        "Time: teacher 1.0 s",
        "Share of correct predictions. Higher is better.",
        "Loss terms",
        "Loss < 1 over steps.",
        "student.hidden",
        "<b>&",  # escaped in the file
        "kdzoo seed=0",
        "@article{x}",
        "python 3.11; 2 threads.",
    ):
        assert part in text, part
    assert text.count("closes 80%") == 1  # the verdict is not repeated below the table


def test_the_best_value_is_marked(figures):
    parsed = Page(page(figures))
    assert sum(tag == "td" and attributes.get("class") == "best" for tag, attributes in parsed.tags) == 2


def test_a_report_of_several_seeds_without_teacher_and_control(figures):
    several = {"mean": 0.5, "std": 0.01, "values": [0.49, 0.51]}
    text = page(
        figures,
        teacher=None,
        control=None,
        controls={},
        comparison=None,
        student=model(0.5) | {"metrics": {"accuracy": several}},
        seed=[0, 1],
        fidelity={},
    )
    parsed = "".join(Page(text).text)
    assert "0.5 ± 0.01" in parsed
    assert "2 seeds; figures show the first one" in re.sub(r"\s+", " ", parsed)
    assert 'class="verdict"' not in text


def test_figures_that_do_not_fit_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    names = [f"{i}.png" for i in range(4)]
    for name in names:
        Image.fromarray(noise).save(tmp_path / name)
    text = page((tmp_path, names))
    assert len(text.encode()) < MAX_BYTES
    assert text.count("Not shown on this page") >= 1
    assert text.count("data:image") >= 1


def test_wide_figures_take_the_whole_width_of_the_page(tmp_path):
    for name, width in (("narrow.png", WIDE - 1), ("wide.png", WIDE)):
        Image.new("RGB", (width, 50)).save(tmp_path / name)
    parsed = Page(page((tmp_path, ["narrow.png", "wide.png"])))
    assert [attributes.get("class") for tag, attributes in parsed.tags if tag == "figure"] == [None, "wide"]


def test_a_file_that_is_not_an_image_is_named(tmp_path):
    (tmp_path / "extra.png").write_bytes(b"not an image")
    text = page((tmp_path, ["extra.png"]))
    assert "Not shown on this page: extra.png" in text
    assert "data:image" not in text


def test_an_embedded_figure_shows_the_same(figures):
    source = Page(page(figures)).addresses[0]
    embedded = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB")
    original = Image.open(figures[0] / figures[1][0]).convert("RGB")
    assert embedded.size == original.size
    assert np.abs(np.asarray(embedded, int) - np.asarray(original, int)).mean() < 2


def test_settings_have_dotted_keys():
    assert dict(flat(SETTINGS)) == {"student.hidden": [8], "student.dropout": None, "seed": 0, "note": "<b>&"}
    assert list(flat({"a": {}})) == [("a", {})]
