"""Takes the pictures of the README: python docs/pictures.py [FOLDER], some minutes on two cores.

A real study of scikit-learn's digits is trained, its live page is taken while it runs, and its
report at the end, by the Chromium or Chrome of this machine.
"""

import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from lthdask.report.browser import Browser, opened
from lthdask.storage.arrays import Arrays
from lthdask.storage.schema import Status

STUDY = {
    "network.name": "lenet_300_100",
    "grid.thresholds": "0.5,0.8,0.9,0.95,0.98,0.99",
    "grid.rewind_epochs": "0,1,2,3,4",
    "grid.arms": "ticket,random_mask,reinit",
    "grid.replicates": "3",
    "recipe.epochs": "8",
    "keep_until": "7",
}
"""What is changed of the study that is shipped as digits: it shall take minutes, with controls."""
CHOSEN = "arm=ticket&threshold=0.95&rewind_epoch=1.0"
"""What is chosen on the live page."""
WAIT = "new Promise((done) => setTimeout(done, {}))"
DRAWN = """
(() => {
  const [shown] = globalThis.Bokeh?.documents ?? []
  const figures = [...(shown?.all_models ?? [])].filter((model) => model.type == "Figure")
  return figures.length >= 2 && shown.is_idle
})()
"""


def pictures(folder: Path, runs: Path, changes: dict[str, str]) -> None:
    """Train a study, and take the pictures of its live page and of its report."""
    run = runs / "digits"
    settings = [f"--set={key}={value}" for key, value in (STUDY | changes).items()]
    command = [sys.executable, "-m", "lthdask", "run", "--deploy", "local", "--out", str(run)]
    folder.mkdir(parents=True, exist_ok=True)
    with opened() as browser:
        with subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, text=True) as training:
            assert training.stdout is not None
            address = next(line.split()[-1] for line in training.stdout if "dashboard" in line)
            wait_until_under_way(run, training)
            show(browser, address.replace("/status", f"/grid?{CHOSEN}"), 1280, 720)
            take(browser, folder / "live.png", 1280, 720)
            training.stdout.read()
        assert training.returncode == 0, "the study failed"
        show(browser, (run / "report.html").as_uri(), 1280, 1500)
        take(browser, folder / "report.png", 800, 780)


def wait_until_under_way(run: Path, training: Any) -> None:
    """Wait until a third of the cells is done, or the study has ended."""
    while training.poll() is None:
        time.sleep(0.3)
        try:
            status = Arrays(run)["status"]
        except Exception:  # it is being made
            continue
        left = (status == Status.PENDING).sum()
        if left <= 2 / 3 * (status != Status.NOT_APPLICABLE).sum():
            return


def show(browser: Browser, address: str, width: int, height: int) -> None:
    """Open a page, and wait until it has drawn its figures."""
    size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": False}
    browser.ask("Emulation.setDeviceMetricsOverride", **size)
    browser.ask("Page.navigate", url=address)
    end = time.monotonic() + 120
    while not browser.value(DRAWN):
        assert time.monotonic() < end, f"{address} is not drawn"
        time.sleep(0.1)
    browser.value(WAIT.format(5000))


def take(browser: Browser, file: Path, width: int, height: int) -> None:
    """Take a picture of the upper part of the page."""
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = b64decode(browser.ask("Page.captureScreenshot", clip=clip)["data"])
    image = Image.open(BytesIO(shot)).convert("RGB").quantize(255)  # a third of Chromium's size
    image.save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures"
    with tempfile.TemporaryDirectory() as runs:
        pictures(where, Path(runs), {})
