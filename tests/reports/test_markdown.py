"""The Markdown repeats the table and says how to run again."""

from kdzoo.reports.markdown import to_markdown
from tests.reports.example import report


def test_the_markdown_repeats_the_table_and_says_how_to_run_again():
    text = to_markdown(report(), ["seed_0/figures/losses.png"])
    assert text.startswith("# logit_kd on digits, seed 0\n")
    assert "| | teacher | student | control | cold start |\n|---|---:|---:|---:|---:|" in text
    assert "| accuracy ↑ | 0.95 | **0.9** | 0.7 | 0.8 |" in text
    assert "closes 80% of the gap to the teacher." in text
    assert "```\nkdzoo seed=0\n```" in text
    assert "![seed_0/figures/losses.png](seed_0/figures/losses.png)" in text
    assert text.endswith("Versions: python 3.11\n")
