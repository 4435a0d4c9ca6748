"""Sphinx configuration: Markdown pages and the API from docstrings."""

from typing import Any

project = "kdzoo"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_typehints = "none"  # the docstrings state shapes and ranges, which the types do not
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Axes of shapes look like names to link to, and re-exported classes are documented under one name only.
suppress_warnings = ["ref.python", "myst.xref_missing"]
napoleon_use_ivar = True  # otherwise an attribute that is also a property would be documented twice


def setup(app: Any) -> None:
    """Escape the star of a shape such as (*n, c), which reStructuredText would read as emphasis."""

    def escape(*arguments: Any) -> None:
        lines = arguments[-1]
        lines[:] = [line.replace("(*", "(\\*").replace(", *", ", \\*") for line in lines]

    app.connect("autodoc-process-docstring", escape)
