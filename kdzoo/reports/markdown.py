"""A report as Markdown, for repositories and issue trackers."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdzoo.reports import content


def to_markdown(report: Mapping[str, Any], figures: Sequence[str]) -> str:
    """Return the report as Markdown.

    Args:
        report: The report.
        figures: Paths of figures relative to the run folder.
    """
    names = list(content.models(report))
    lines = [
        f"# {content.title(report)}",
        "",
        "| | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---" + "|---:" * len(names) + "|",
    ]
    for row in content.rows(report):
        cells = [f"**{cell}**" if i == row.best else cell for i, cell in enumerate(row.cells)]
        lines.append("| " + " | ".join([row.label, *cells]) + " |")
    lines += ["", *content.sentences(report), "", "Run again:", "", "```", report["command"], "```", ""]
    lines += [f"![{figure}]({figure})" for figure in figures]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return "\n".join([*lines, "", f"Versions: {versions}", ""])
