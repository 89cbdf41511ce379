"""What figures as files promise: their size, vectors, and that no browser is left behind."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bokeh.embed import json_item

from lthdask.errors import InputError
from lthdask.report import browser
from lthdask.report.account import GROUPS, figures
from lthdask.report.figures.density import accuracy_over_density
from lthdask.report.figures.map import difference_map
from lthdask.report.figures.saving import save, save_all
from lthdask.storage.results import open_results
from tests.studies import made_study
from tests.test_html_report import lthdask

REQUIRED = os.environ.get("LTHDASK_REQUIRE_BROWSER") == "1"
NO_BROWSER = not REQUIRED and not any(map(shutil.which, browser.NAMES))
in_a_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(NO_BROWSER, reason="needs Chromium"),
]
ROOT = Path(__file__).parent.parent
SIZE = re.compile(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]")
IMAGES = re.compile(rb"/Subtype /Image\s.*?>>", re.DOTALL)


def marked(test):
    for mark in in_a_browser:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return made_study(folder, ("ticket", "random_mask"), replicates=2)


@pytest.fixture(scope="module")
def results(folder):
    return open_results(folder, *GROUPS)


@pytest.fixture
def scratch(tmp_path, monkeypatch):  # after tmp_path, which pytest makes there, too
    """The folder for temporary files, which has to be empty again; Chromium needs short names."""
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield scratch
    kept = "torchinductor_*"  # by torch, for the next process
    assert [place for place in scratch.iterdir() if not place.match(kept)] == []
    assert processes_of(scratch) == []
    shutil.rmtree(scratch)


def processes_of(scratch):
    """Return the processes that were given a file of a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(scratch).encode() in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


def a_browser(folder, monkeypatch, script):
    """Put a browser on PATH that does what a script says."""
    file = folder / "bin" / "chromium"
    file.parent.mkdir()
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:/bin:/usr/bin")


def test_without_a_browser_one_sentence_says_what_to_do(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = lthdask("report", folder, "--figures", tmp_path / "figures")
    assert said.exit_code == 2
    assert said.output.startswith("error: PNG, SVG and PDF are drawn by Chromium or Chrome")
    assert said.output.count("\n") == 1
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "echo it is broken >&2; exit 3",
            "chromium does not start: the browser ended; it is broken",
        ),
        ("exec sleep 600", "chromium does not start: the browser did not answer within 0.3 s"),
    ],
)
def test_a_browser_that_does_not_start_is_said_and_ended(
    results, scratch, tmp_path, monkeypatch, script, problem
):
    a_browser(tmp_path, monkeypatch, script)
    monkeypatch.setattr(browser, "SECONDS", 0.3)
    with pytest.raises(InputError, match=problem):
        save(difference_map(results), tmp_path / "map.pdf")


def test_what_is_no_size_or_format_is_refused(results, tmp_path):
    plot = difference_map(results)
    with pytest.raises(InputError, match="known: .pdf, .png, .svg"):
        save(plot, tmp_path / "map.jpg")
    with pytest.raises(InputError, match="in mm, from 40 to 400; got 3.5"):
        save(plot, tmp_path / "map.pdf", width=3.5)


@marked
@pytest.mark.parametrize(
    ("draw", "width", "points"), [(accuracy_over_density, 85, 241), (difference_map, 180, 510)]
)
def test_a_figure_is_saved_in_its_size_as_vectors_with_its_fonts(
    results, scratch, tmp_path, draw, width, points
):
    """The PNG has 300 pixels in an inch of 72 points; the page of the PDF is as large.

    To a pixel of the screen, which is 3/4 of a point: browsers round differently.
    """
    plot = draw(results)
    before = json_item(plot)
    save_all({"figure": plot}, tmp_path, width)
    save(plot, tmp_path / "alone.png", width)
    assert json_item(plot)["doc"] == before["doc"]
    pdf, png, svg = (
        (tmp_path / f"figure.{suffix}").read_bytes() for suffix in ("pdf", "png", "svg")
    )
    across, down = (int.from_bytes(png[place : place + 4]) for place in (16, 20))
    assert across == pytest.approx(points * 300 / 72, abs=300 / 96)
    assert png == (tmp_path / "alone.png").read_bytes()
    sizes = [tuple(map(float, size)) for size in SIZE.findall(pdf)]
    assert sizes == [pytest.approx((points, 72 * down / 300), abs=72 / 96)]
    assert b"/FontFile2" in pdf
    for image in IMAGES.findall(pdf):  # the bar of colours is one
        pixels = [int(re.search(rb"/%s (\d+)" % side, image)[1]) for side in (b"Width", b"Height")]
        assert pixels[0] * pixels[1] < 5000
    root = ElementTree.fromstring(svg)
    assert root.get("width") == f"{points}pt"
    assert any(
        "dense" in (text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text")
    )


@marked
def test_all_figures_of_a_report_are_written_in_all_formats(folder, results, scratch, tmp_path):
    to = tmp_path / "new" / "figures"
    said = lthdask("report", folder, "--figures", to)
    names = list(figures(results))
    assert said.output == f"figures: {len(names)} in {to}, each as PNG, SVG and PDF\n"
    assert names[:3] == ["map-ticket", "map-random-mask", "accuracy-over-density"]
    written = sorted(f"{name}.{suffix}" for name in names for suffix in ("pdf", "png", "svg"))
    assert sorted(file.name for file in to.iterdir()) == written


SAVING = """
from lthdask.report.browser import opened
with opened() as page:
    print("open", flush=True)
    page.value("new Promise(() => {})")
"""


@marked
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_browser_outlives_the_process_that_opened_it(how):
    """The kernel closes the pipe of a process that was killed; its folder is then left."""
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))
    saving = subprocess.Popen(
        [sys.executable, "-c", SAVING],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(scratch)},
    )
    with saving:
        assert saving.stdout.readline() == b"open\n"
        assert processes_of(scratch)
        saving.send_signal(how)
    end = time.monotonic() + 30
    while processes_of(scratch):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert how == signal.SIGKILL or list(scratch.iterdir()) == []
    shutil.rmtree(scratch)


@marked
def test_the_pictures_of_the_readme_are_made_by_their_script(scratch, tmp_path):
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    tiny = {"grid.thresholds": "0.5,0.95", "grid.rewind_epochs": "0,1", "recipe.epochs": "2"}
    tiny |= {"grid.replicates": "1", "grid.arms": "ticket", "keep_until": "1"}
    script.pictures(tmp_path / "pictures", tmp_path, tiny)
    for name in ("live", "report"):
        assert 10_000 < (tmp_path / "pictures" / f"{name}.png").stat().st_size < 200_000
        assert (ROOT / "docs" / "pictures" / f"{name}.png").stat().st_size < 200_000
