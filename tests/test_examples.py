"""What the docstrings promise: their examples are true, and every public name has one."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import lthdask
from lthdask.grid import Cell
from tests.studies import made_study, made_ticket
from tests.test_verdict import minus, results

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "lthdask").rglob("*.py")
    if any(">>> " in line and "+SKIP" not in line for line in file.read_text().splitlines())
)


def small():
    """The results of which the examples speak: two thresholds by two rewind epochs."""
    ticket = [
        [minus(0.1, 0.2, 0), minus(-0.2, -0.1, -0.3)],
        [minus(-4.3, -4.2, -4.4), minus(-0.6, 1, -2.2)],
    ]
    slow = {"iterations_to_dense": [[[40, np.inf, np.inf]] * 2] * 2}
    return results({"ticket": ticket, "random_mask": np.array(ticket) - 0.03}, speed=slow)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the study of which the examples speak."""
    place = tmp_path_factory.mktemp("examples")
    (place / "runs").mkdir()
    folder, cell = made_study(place / "runs" / "digits"), Cell("ticket", 0, 0.5, 0)
    study = lthdask.Study.parse((folder / "study.yaml").read_text())
    made_ticket(folder, cell, {"study": study.to_dict(), "cell": vars(cell)})
    return place


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_the_docstrings_are_true(name, place, request, monkeypatch):
    """Those that need workers share two of them."""
    monkeypatch.chdir(place)
    module, known = import_module(name), {"results": small()}
    examples = [e.source for found in doctest.DocTestFinder().find(module) for e in found.examples]
    if any(re.search(r"\bclient\b", source) for source in examples):
        known["client"] = request.getfixturevalue("local_client")
        known["address"] = request.getfixturevalue("running")
    found = doctest.testmod(module, extraglobs=known, optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("name", lthdask.__all__)
def test_a_public_name_has_an_example_that_is_run(name):
    public = getattr(lthdask, name)
    (found,) = doctest.DocTestFinder(recurse=False).find(public, name)
    run = [e.source for e in found.examples if not e.options.get(doctest.SKIP)]
    assert any(name in source for source in run)
    assert public.__module__ in EXAMPLES


def test_the_page_on_stability_lists_the_public_names():
    page = (ROOT / "docs" / "stability.md").read_text()
    assert sorted(re.findall(r"^\| `lthdask\.(\w+)` \|", page, re.MULTILINE)) == lthdask.__all__
