"""docs/design.md says how to add to the house, and it is true."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
STUDY = """
name: mine
data: {name: halves, image_size: 8, validation: 100}
network: {name: perceptron}
recipe:
  epochs: 2
  batch_size: 50
  optimizer: {name: sgd, rate: 0.01}
  schedule: {name: constant}
pruning: {score: steadiness}
grid: {thresholds: [0.5], rewind_epochs: [0], arms: [ticket, random_reinit]}
"""
ASKED = """
import json, lthdask
results = lthdask.open_results("runs/mine", "layers")
names = ["arm", "layer", "status", "counted_density", "test_accuracy", "largest_weight"]
found = {name: results[name].values.ravel().tolist() for name in names}
print(json.dumps(found | {"from": lthdask.__file__}))
"""


def additions():
    """Each as (file, the line it comes before, what is added)."""
    tokens = MarkdownIt("commonmark").parse((ROOT / "docs" / "design.md").read_text())
    for mark, block in pairwise(tokens):
        if mark.type == "html_block" and "tests/test_design.py" in mark.content:
            head, added = block.content.split("\n", 1)
            file, _, before = head.removeprefix("# ").partition(", before: ")
            yield file, before, added


@pytest.fixture
def copy(tmp_path):
    """A copy of the house with all that the page adds."""
    shutil.copytree(ROOT / "lthdask", tmp_path / "lthdask", ignore=shutil.ignore_patterns("*.pyc"))
    for file, before, added in additions():
        path = tmp_path / file
        text = path.read_text()
        found = re.search(rf"^ *{re.escape(before)}.*", text, re.MULTILINE) if before else None
        assert found or not before, f"no line of {file} begins with {before}"
        at = found.start() if found else len(text)
        path.write_text(text[:at] + ("" if found else "\n\n") + added + text[at:])
    return tmp_path


def lthdask_in(folder, *arguments):
    command = [sys.executable, "-m", "lthdask", *arguments]
    here = {**os.environ, "PYTHONPATH": str(folder)}  # workers do not look where they begin
    done = subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_the_page_adds_goes_from_the_grid_into_the_cube(copy):
    (copy / "mine.yaml").write_text(STUDY)
    lthdask_in(copy, "run", "--study", "mine.yaml", "--data", ".", "--deploy", "local", "--json")
    asked = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=copy, capture_output=True, text=True, check=True
    )
    found = json.loads(asked.stdout)
    assert found["from"].startswith(str(copy))
    assert found["arm"] == ["ticket", "random_reinit"]
    assert found["layer"] == ["1.weight"]
    assert found["status"] == [1, 1]
    assert found["counted_density"] == [0.5, 0.5]
    assert max(found["test_accuracy"]) > 90
    assert min(found["largest_weight"]) > 0


@pytest.mark.slow
def test_a_queue_that_dask_jobqueue_knows_is_one_line(copy):
    section = 'jobqueue: {oar: {cores: 1, memory: 2GiB, walltime: "01:00:00"}}'
    (copy / "cluster.yaml").write_text(section)
    script = lthdask_in(copy, "run", "--deploy", "oar", "--print-job-script")
    assert "#OAR -l /nodes=1/core=1,walltime=01:00:00" in script


def test_what_the_page_adds_has_its_place(copy):
    for file, _, _ in additions():
        compile((copy / file).read_text(), file, "exec")


def test_the_page_names_every_room():
    page = (ROOT / "docs" / "design.md").read_text()
    rooms = {path.name for path in (ROOT / "lthdask").iterdir() if (path / "__init__.py").exists()}
    assert all(f"{room}/" in page for room in rooms)
