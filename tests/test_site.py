"""The documentation site: it builds without a warning, with its notebooks, and asks no network."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import lthdask

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PICTURES = {
    "analysis": "<img",
    "interactive": '<table class="map">',
    "your-own": "<progress",
    "cluster": "highlight-ipython3",  # the rest once tests/test_slurm.py has run it
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-n",
        "-q",
        ROOT / "docs",
        folder,
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.notebook
def test_the_site_loads_nothing_from_a_network(site):
    """Links to other sites are there to be clicked; a browser must not follow one by itself."""
    loads = r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*//"""
    loads += r"|@import [^;]*//|url\([\"']?(?:https?:)?//"
    pages = list(site.rglob("*.html"))
    assert {"index.html", "search.html", "api.html"} <= {page.name for page in pages}
    for file in [*pages, *site.rglob("*.css")]:
        assert not re.search(loads, file.read_text()), file.name
    assert "searchindex.js" in (site / "search.html").read_text()


@pytest.mark.notebook
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_shown_with_what_it_computed(site, notebook):
    page = (site / "notebooks" / f"{notebook.stem}.html").read_text()
    article = page.partition("<article")[2]
    assert PICTURES[notebook.stem] in article
    assert "cell_output" in article or notebook.stem == "cluster"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_it_computed(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_api_page_has_every_public_name_once():
    listed = re.findall(r"^   (\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == lthdask.__all__


def test_every_page_is_in_the_table_of_contents():
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    pages |= {f"notebooks/{path.stem}" for path in NOTEBOOKS}
    contents = re.findall(r"^[\w/-]+$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    assert set(contents) == pages


def test_the_table_of_networks_is_what_is_computed():
    table = runpy.run_path(str(ROOT / "docs" / "model.py"))["table"]()
    assert f"\n\n{table}\n\n" in (ROOT / "docs" / "model.md").read_text(), (
        "run: python docs/model.py"
    )
