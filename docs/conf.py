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
autodoc_typehints = "none"  # shapes and ranges are in the docstrings
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Names of tensors' shapes and re-exported classes have no page of their own to link to.
suppress_warnings = ["ref.python", "myst.xref_missing"]
napoleon_use_ivar = True  # attributes that are properties as well are described once


def setup(app: Any) -> None:
    """Keep the star of a shape such as (*n, c) from starting an emphasis."""

    def escape(*arguments: Any) -> None:
        lines = arguments[-1]
        lines[:] = [line.replace("(*", "(\\*").replace(", *", ", \\*") for line in lines]

    app.connect("autodoc-process-docstring", escape)
