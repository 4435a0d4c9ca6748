"""Sphinx configuration: Markdown pages and the API from docstrings."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import gallery_runs

project = "kdzoo"
html_title = "kdzoo"
html_show_copyright = False
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # MathJax beside the pages, so that equations need no network
]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build", "gallery"]
autodoc_typehints = "description"  # beside the descriptions, which state the shapes and ranges that types do not
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Axes of shapes look like names to link to, and re-exported classes are documented under one name only.
suppress_warnings = ["ref.python", "myst.xref_missing"]
napoleon_use_ivar = True  # otherwise an attribute that is also a property would be documented twice


def setup(app: Any) -> None:
    """Make the figures of the gallery, and escape what reStructuredText would read as emphasis in docstrings."""

    def escape(*arguments: Any) -> None:  # the star of a shape such as (*n, c)
        lines = arguments[-1]
        lines[:] = [line.replace("(*", "(\\*").replace(", *", ", \\*") for line in lines]

    app.connect("autodoc-process-docstring", escape)
    app.connect("builder-inited", lambda app: gallery_runs.make(Path(app.srcdir) / "gallery"))
