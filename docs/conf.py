"""The documentation site: uv run sphinx-build -W --keep-going -n docs docs/_build/html.

Nothing of it is loaded from a network, neither while it is built nor while it is read.
"""

import json
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

_about = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
project = "lthdask"
author = "the authors of lthdask"
version = release = _about["version"]

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4  # as on a forge, so that `page.md#heading` works on both
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True  # from nothing, each time
nb_execution_excludepatterns = ["notebooks/cluster.ipynb"]  # tests/test_slurm.py does

autodoc_typehints = "none"  # numpydoc's sections say the types, in words
autosummary_generate = True
numpydoc_show_class_members = False
nitpick_ignore_regex = [("py:.*", r"(?!lthdask).*")]  # the pages of others are not at hand


def _inside(app: Sphinx, page: str, text: list[str]) -> None:
    """Point links to the benchmarks, which lie outside of docs/, to the page that includes them."""
    if page != "benchmarks":
        text[0] = text[0].replace("../benchmarks/README.md", "benchmarks.md")


def _as_it_ran(app: Sphinx, page: str, text: list[str]) -> None:
    """Show the notebook that needs a cluster as it last ran here, unless it has changed since."""
    ran = Path(__file__).parent / "_build" / "cluster.ipynb"
    if page == "notebooks/cluster" and ran.exists():
        asked, found = (json.loads(of)["cells"] for of in (text[0], ran.read_text()))
        if [cell["source"] for cell in asked] == [cell["source"] for cell in found]:
            text[0] = ran.read_text()


def setup(app: Sphinx) -> None:
    """Add what the site needs beside its extensions."""
    app.connect("source-read", _inside)
    app.connect("source-read", _as_it_ran)


html_theme = "pydata_sphinx_theme"
html_title = f"lthdask {release}"
html_sidebars = {"**": ["pages"]}
html_theme_options = {
    "navbar_center": [],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": [],
    "footer_end": [],
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
}
html_show_sourcelink = False
smartquotes = False  # they make a dash of the two of an option
copybutton_selector = "div.highlight:not(.highlight-text) pre"
