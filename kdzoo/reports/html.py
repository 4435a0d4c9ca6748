"""A report as one HTML file that needs nothing else: no network, no other file, no script.

The page of a run has the verdict, the measurements, the figures with their captions, the settings and the citations.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from kdzoo.reports import content

# Mail programs and issue trackers take files of this size.
MAX_BYTES = 2_000_000
# Of that, what the figures may take, in base64: text and style need well below the rest.
MAX_FIGURE_BYTES = 1_800_000
# Pixels from which a figure is wide: scaled to half of a page, about 540, its text would have 60 % of its size.
WIDE = 850


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        heading: What it is, from the name of its file.
        caption: What is drawn; empty for a figure that does not say.
        source: The image as a ``data:`` address; empty if the page would become too large, or the file is not an image.
        path: Path of the file relative to the run folder.
        is_wide: Whether it takes the whole width of the page, because its text would be too small in half of it.
    """

    heading: str
    caption: str
    source: str
    path: str
    is_wide: bool = False


def to_html(
    report: Mapping[str, Any], settings: Mapping[str, Any], folder: Path, figures: Sequence[str], citations: str
) -> str:
    """Return the page of a run.

    Args:
        report: The report.
        settings: The resolved configuration of the run.
        folder: The run folder.
        figures: Paths of PNG files relative to the folder.
        citations: BibTeX entries.
    """
    rows = content.rows(report)
    return template("report.html.j2").render(
        title=content.title(report),
        verdict=content.verdict(report),
        sentences=content.sentences(report)[1 if report["comparison"] else 0 :],
        models=[name.replace("_", " ") for name in content.models(report)],
        rows=rows,
        metrics=[row.metric for row in rows if row.metric is not None],
        figures=list(embedded(folder, figures)),
        settings=list(content.flat(settings)),
        report=report,
        citations=citations.strip(),
    )


def to_table(report: Mapping[str, Any], folder: Path) -> str:
    """Return the title, the measurements and the sentences about them as HTML to be shown within another page.

    Colours are those of the page around it, which may be light or dark.

    Args:
        report: The report.
        folder: The run folder, which is named below the table.
    """
    return template("run_result.html.j2").render(
        title=content.title(report),
        sentences=content.sentences(report),
        models=[name.replace("_", " ") for name in content.models(report)],
        rows=content.rows(report),
        folder=folder,
    )


def template(name: str) -> jinja2.Template:
    """Return a template of this package; what is filled in is escaped, and a name without a value is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdzoo.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def embedded(folder: Path, paths: Iterable[str]) -> Iterator[Figure]:
    """Yield the figures, with their images as long as all of them together are small enough for the page."""
    room = MAX_FIGURE_BYTES
    for path in paths:
        caption, encoded, is_wide = "", "", False
        # A figure of a user's method may be in a format that cannot be shown; it is named all the same.
        with suppress(OSError), Image.open(folder / path) as image:
            caption = str(image.info.get("Description", ""))
            is_wide = image.width >= WIDE
            encoded = base64.b64encode(_compressed(image)).decode("ascii")
        room -= len(encoded)
        source = f"data:image/png;base64,{encoded}" if encoded and room >= 0 else ""
        heading = Path(path).stem.replace("_", " ").capitalize()
        yield Figure(heading, caption, source, path, is_wide)


def _compressed(image: Image.Image) -> bytes:
    """Return a PNG with at most 256 colours, which figures hardly have more of: about a third of the bytes."""
    buffer = io.BytesIO()
    image.convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
