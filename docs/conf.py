"""Sphinx: Markdown pages and the public modules' docstrings, built with warnings as errors and without the network."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

import triptych

project = "Triptych"
author = "The Triptych developers"
copyright = f"2026, {author}"
version = release = triptych.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Triptych {release}"
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
# scikit-learn gives estimators these where a method has more arguments than X and y; their docstrings refer to its own pages
REQUESTS = "set_fit_request, set_partial_fit_request, set_transform_request, set_score_request"
autodoc_default_options = {"members": True, "exclude-members": REQUESTS}
smartquotes = False
nitpicky = True
# The inventories of other projects lie on the network: their names stay plain.
nitpick_ignore_regex = [("py:.*", r"(torch|numpy|scipy|sklearn|collections|contextlib|pathlib|enum|os)\..*|ArrayLike")]

HEADING = re.compile(r"-{4,}")
ENTRY = re.compile(r"(\w+(?:, \w+)*) : (.+)")


def set_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Make RST of a docstring: formulas keep their bars, numpydoc's headings become rubrics and its entries a list."""
    del app, what, name, thing, options
    out: list[str] = []
    for line, below in zip(lines, [*lines[1:], ""]):
        entry = ENTRY.fullmatch(line)
        if HEADING.fullmatch(line):
            out[-1] = f".. rubric:: {out[-1]}"
            out.append("")
        elif entry and any(HEADING.fullmatch(before) for before in lines):
            typed = below.startswith(" ") and not below.strip()[:1].islower()  # else it is a sentence that goes on
            out += [f"``{entry[1]}``", f"    *{entry[2]}*", ""] if typed else [f"``{entry[1]}``", f"    {entry[2]}"]
        else:
            out.append(line.replace("|", r"\|"))
    lines[:] = out


class Requests(HTMLParser):
    """The addresses that a browser asks for by itself when it shows a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag loads."""
        values = dict(attrs)
        loaded = [values.get("src"), values.get("srcset"), values.get("poster")]
        if tag == "link":
            loaded.append(values.get("href"))
        self.found += [address for address in loaded if address]


def refuse_requests(app: Sphinx, error: Exception | None) -> None:
    """Warn (an error, with -W) of every page that would ask for something over the network."""
    if error is None and app.builder.format == "html":
        for page in sorted(Path(app.outdir).rglob("*.html")):
            for address in Requests(page).found:
                if re.match(r"([a-z]+:)?//", address):
                    logging.getLogger(__name__).warning("%s asks for %s over the network", page.name, address)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", set_docstring)
    app.connect("build-finished", refuse_requests)
