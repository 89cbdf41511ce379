"""What the report promises: one page that says everything and needs nothing."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.io.doc import _PATCHED_CURDOCS, curdoc, patch_curdoc
from click.testing import CliRunner
from rich.console import Console
from safetensors.numpy import save_file

from lthdask.commands.main import main
from lthdask.commands.report import leave_report
from lthdask.report.account import GROUPS, comparison, report, tidy
from lthdask.report.summary import limits, sentences
from lthdask.storage.results import open_results
from lthdask.storage.schema import Status
from tests.studies import made_study

SMALL = 1_500_000
"""Bytes that the report of a small study may have."""
HOSTILE = "</script><script>alert(1)</script><b>"


class Page(HTMLParser):
    """The attributes that make a browser load something, and the text that it shows."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.shown, self.scripts, self.policy, self._in = [], "", 0, "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._in, of = tag, dict(attrs)
        self.scripts += tag == "script"
        self.loaded += [value for name, value in attrs if name in ("src", "href", "data", "action")]
        if of.get("http-equiv") == "Content-Security-Policy":
            self.policy = of["content"]

    def handle_endtag(self, tag):
        self._in, self.shown = "", self.shown + " "

    def handle_data(self, data):
        if self._in not in ("script", "style"):
            self.shown += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study with a control, two replicates and a cell that failed."""
    failed = ("ticket", 1, 0.9, 2)
    folder = made_study(
        tmp_path_factory.mktemp("runs") / "small",
        ("ticket", "reinit"),
        replicates=2,
        accuracy=lambda cell: 0.951 - 0.02 * (cell.threshold > 0.5),
        status=lambda c: (
            Status.FAILED
            if (c.arm, c.replicate, c.threshold, c.rewind_epoch) == failed
            else Status.DONE
        ),
    )
    why = folder / "cells" / "ticket-r1-t0.9-k2" / "traceback.txt"
    why.parent.mkdir(parents=True)
    why.write_text("Traceback (most recent call last):\n  there\nOSError: disk <gone>\n")
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return open_results(folder, *GROUPS)


def lthdask(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)], prog_name="lthdask")


def test_the_report_of_a_small_study_is_one_file_that_loads_nothing(folder):
    """The policy forbids a browser to ask for anything, should a library want to."""
    said = lthdask("report", folder)
    assert (said.exit_code, said.output) == (0, f"report: {folder / 'report.html'}\n")
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.loaded == []
    assert page.policy.startswith("default-src 'none'")
    assert "http" not in page.policy
    assert len(text.encode()) < SMALL
    assert (folder / "report.html").stat().st_mode & 0o044  # for colleagues to read


def test_the_report_says_what_came_out_with_its_uncertainty(folder, results):
    shown = Page((folder / "report.html").read_text()).shown
    for sentence in sentences(results):
        assert sentence.removeprefix("* ")[1:] in shown
    assert "ticket − dense 0.10 ±" in shown
    assert "1 failed, 0 diverged" in shown
    assert "OSError: disk <gone>; see cells/ticket-r1-t0.9-k2/traceback.txt" in shown
    assert "worker-hours for 11 cells" in shown
    assert "name: lenet_300_100" in shown
    assert "torch: '2.0'" in shown
    assert "verdict, at a margin of 0.2 points" in shown
    assert "Each of the 2 replicates had an initialisation" in shown
    assert "Schuirmann, D. J. (1987)" in shown


@pytest.fixture(scope="module")
def strange(results):
    """The page of a study of which nothing is done, and some texts are hostile."""
    status = results.status.where(results.status == Status.NOT_APPLICABLE, int(Status.PENDING))
    place = results.place.copy(data=results.place.where(False, HOSTILE))
    empty = results.assign(status=status.assign_attrs(results.status.attrs))
    empty = empty.assign_coords(place=place).assign_attrs(versions=HOSTILE)
    return report(empty, {HOSTILE: "cells/x/traceback.txt"})


def test_a_study_of_which_nothing_is_done_has_a_report(strange):
    assert "No ticket is done" in strange


def test_text_from_a_study_is_never_code(strange):
    page = Page(strange)
    assert page.scripts == 3  # BokehJS, its settings, and the figures
    assert page.shown.count(HOSTILE) >= 2


def test_the_table_has_a_row_for_each_cell(folder, results, tmp_path):
    file = tmp_path / "cells.csv"
    assert lthdask("report", folder, "--csv", file).output == f"table: {file}\n"
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert len(rows) == results.status.size == len(tidy(results).splitlines()) - 1
    names = ("arm", "replicate", "threshold", "rewind_epoch", "status", "test_accuracy", "place")
    assert [[row[name] for name in names] for row in rows if row["threshold"] == "0.9"][:4] == [
        ["ticket", "0", "0.9", "0.0", "done", "93.1", "node0 cpu"],
        ["ticket", "0", "0.9", "2.0", "done", "93.1", "node0 cpu"],
        ["ticket", "1", "0.9", "0.0", "done", "93.1", "node1 cpu"],
        ["ticket", "1", "0.9", "2.0", "failed", "", ""],
    ]


def test_a_page_of_dask_that_ended_in_an_error_is_no_obstacle(results):
    """Bokeh does not take such a page's document back, and finds it gone later."""
    with pytest.raises(ZeroDivisionError), patch_curdoc(Document()):
        raise ZeroDivisionError
    try:
        with pytest.raises(RuntimeError, match="previously destroyed"):
            curdoc()
        assert "Bokeh" in report(results, {})
    finally:
        _PATCHED_CURDOCS.pop()


def test_a_comparison_shows_the_settings_that_differ_and_both_maps(results):
    other = results.assign_attrs(study=re.sub(r"\nseed: \d+", "\nseed: 77", results.attrs["study"]))
    text = comparison({"one": results, "two": other})
    shown = Page(text).shown.split()
    assert shown.count("seed") == 1
    assert "recipe.epochs" not in shown
    assert all(text.count(f"{name}: ticket ") for name in ("one", "two"))


def test_what_cannot_be_written_is_said_and_fails_no_run(folder, tmp_path):
    said = lthdask("report", folder, "-o", tmp_path / "none" / "page.html")
    assert said.exit_code == 2
    assert "write it elsewhere with -o" in said.output
    (tmp_path / "report.html").mkdir()
    (tmp_path / "results.zarr").symlink_to(folder / "results.zarr")
    console = Console(width=500, file=io.StringIO())
    leave_report(console, tmp_path)
    assert console.file.getvalue().startswith("no report was written: ")
    assert "-o FILE" in console.file.getvalue()


def test_a_folder_without_a_study_is_said_to_be_that_and_not_to_be_unwritable(tmp_path):
    said = lthdask("report", tmp_path / "none")
    assert said.exit_code == 2
    assert f"there are no results at {tmp_path}/none/results.zarr; give the folder" in said.output
    assert "cannot be written" not in said.output


def test_a_report_reads_the_cube_once_but_for_the_cell_whose_curves_it_draws(
    folder, tmp_path, monkeypatch
):
    read, opened = Counter[str](), os.open

    def counted(file, *flags, **more):
        read[str(file)] += "/results.zarr/" in str(file)
        return opened(file, *flags, **more)

    monkeypatch.setattr(os, "open", counted)
    assert lthdask("report", folder, "-o", tmp_path / "page.html").exit_code == 0
    chunks = {file: n for file, n in read.items() if "/results.zarr/status/" in file}
    # Both arms and replicates of the cell that is drawn.
    assert sorted(chunks.values()) == [1] * 12 + [2] * 4
    again = {file for file, n in read.items() if n > 1}
    assert {file.split("/results.zarr/")[1].split("/")[0] for file in again} <= {
        "status", "metrics", "dense_curves", "dense_learning",
    }  # fmt: skip


WITHOUT_TORCH = """
import sys
from click.testing import CliRunner
from lthdask.commands.main import main
for arguments in (["results", sys.argv[1]], ["report", sys.argv[1], "-o", sys.argv[2]]):
    print(CliRunner().invoke(main, arguments, prog_name="lthdask").output)
print(sorted({"torch", "pydantic", "distributed"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_a_reader_waits_for_no_torch_and_is_told_what_the_network_tells(folder, tmp_path):
    """How many channels a layer has says any checkpoint, or else the network."""
    said = limits(open_results(folder, "layers"))
    assert "1.weight (99.7 % of its channels" in said
    shapes = {"1.weight": (300, 784), "3.weight": (100, 300), "5.weight": (10, 100)}
    checkpoint = folder / "checkpoints" / "replicate-0" / "epoch-0000.safetensors"
    checkpoint.parent.mkdir(parents=True)
    weights = {f"weights/{name}": np.zeros(shape, "f4") for name, shape in shapes.items()}
    save_file(weights, checkpoint)
    try:
        command = [sys.executable, "-c", WITHOUT_TORCH, folder, tmp_path / "page.html"]
        done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said in done
        assert done.splitlines()[-1] == "[]"
        checkpoint.write_bytes(b"damaged")
        assert limits(open_results(folder, "layers")) == said
    finally:
        shutil.rmtree(folder / "checkpoints")


def test_the_same_folder_is_not_compared_with_itself(folder):
    said = lthdask("report", folder, folder)
    assert said.exit_code == 2
    assert "twice" in said.output
