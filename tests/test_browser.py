"""What a real browser shows: pages open without a network, and without a word in the console."""

import os
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from lthdask.commands.report import write_report
from lthdask.storage.schema import Status
from tests.studies import made_study

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
REQUIRED = os.environ.get("LTHDASK_REQUIRE_BROWSER") == "1"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not REQUIRED and not CHROMIUM, reason="needs Chromium"),
]


@pytest.mark.parametrize("became", [Status.DONE, Status.PENDING, Status.DIVERGED])
def test_the_report_opens_from_disk_with_every_host_name_blocked(tmp_path, became):
    arms = "ticket", "reinit", "dense_child"
    folder = made_study(tmp_path / "small", arms, replicates=2, status=lambda cell: became)
    write_report(Console(quiet=True), folder)
    said = subprocess.run(
        [
            CHROMIUM or "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=1280,2000",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={tmp_path / 'page.png'}",
            f"file://{folder / 'report.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stderr
    console = re.findall(r":(\w+):CONSOLE:\d+\] \"(.*)\", source", said)
    assert any("document idle" in line for _, line in console), said  # every figure was drawn
    assert {level for level, _ in console} == {"INFO"}, console
    assert not re.search("could not|warn|error|violat", str(console), re.IGNORECASE), console
