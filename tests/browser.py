"""A real browser for the tests: Chromium without a window, and what a person does with a page."""

import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

TEXT = """
const texts = []
const walk = (node) => {
  if (node.nodeType == Node.TEXT_NODE) texts.push(node.textContent)
  if (["STYLE", "SCRIPT"].includes(node.nodeName)) return
  if (node.shadowRoot) walk(node.shadowRoot)
  node.childNodes.forEach(walk)
}
walk(document.body)
return texts.join(" ").replace(/\\s+/g, " ")
"""
"""The text of a page; that of Bokeh lies in shadow roots."""
PLACE = """
const [title, column, row] = arguments
const models = [...(window.Bokeh?.documents[0]?.all_models ?? [])]
const plot = models.find((model) => model.type == "Figure" && model.title.text.includes(title))
const view = plot && Bokeh.index.find_one(plot)
if (!view) return null
const {left, top} = (view.canvas_view ?? view.canvas).el.getBoundingClientRect()
const {x_scale, y_scale} = view.frame
return [left + x_scale.compute(column), top + y_scale.compute(row)]
"""
"""Where in the window a place of a figure is."""
SELECT = """
const found = []
const walk = (node) => {
  if (node.nodeName == "SELECT" && node.name == arguments[0]) found.push(node)
  if (node.shadowRoot) walk(node.shadowRoot)
  node.childNodes.forEach(walk)
}
walk(document.body)
return found[0]
"""
DESCRIBED = """
const found = []
const walk = (node) => {
  if (node.getAttribute?.("role") == "img") found.push(node.getAttribute("aria-label"))
  if (node.shadowRoot) walk(node.shadowRoot)
  node.childNodes.forEach(walk)
}
walk(document.body)
return found.join(" ")
"""
"""The text alternatives of the figures of a page."""
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromedriver")


def start(folder):
    """Start a browser; skip the test where there is none."""
    lacking = [file for file in CHROMIUM if not shutil.which(file)]
    if lacking and os.environ.get("LTHDASK_REQUIRE_BROWSER") != "1":
        pytest.skip(f"there is no {lacking[0]}; on Debian, install chromium and chromium-driver")
    assert not lacking, f"a browser is required, but there is no {lacking[0]}"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM[0]
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={folder}")
    options.add_argument("--window-size=1280,900")
    options.add_argument("--host-resolver-rules=MAP foreign.example 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, Service(CHROMIUM[1]))


class Page:
    """A page in a browser."""

    def __init__(self, browser):
        self.browser = browser
        self.console = []

    def text(self):
        """Return all that can be read."""
        return self.browser.execute_script(TEXT)

    def described(self):
        """Return what somebody is told who does not see the figures."""
        return self.browser.execute_script(DESCRIBED)

    def wait(self, condition, what, seconds=60):
        """Wait until a condition holds, and return its value."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(0.1)
        return value

    def wait_for(self, text, seconds=60):
        """Wait until a text can be read."""
        self.wait(lambda: text in self.text(), f"{text!r} in {self.text()[:2000]!r}", seconds)

    def place(self, title, column, row):
        """Return where in the window a place of a figure is."""
        where = lambda: self.browser.execute_script(PLACE, title, column, row)  # noqa: E731
        return self.wait(where, f"a figure {title!r}")

    def point(self, at):
        """Move the pointer."""
        self._mouse("mouseMoved", at)

    def click(self, at):
        """Click somewhere."""
        self.point(at)
        self._mouse("mousePressed", at, button="left", clickCount=1)
        self._mouse("mouseReleased", at, button="left", clickCount=1)

    def _mouse(self, kind, at, **more):
        event = {"type": kind, "x": at[0], "y": at[1], **more}
        self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def select(self, name):
        """Return the list to choose from that has a name."""
        return self.browser.execute_script(SELECT, name)

    def complaints(self):
        """Return the errors and warnings in the console."""
        self.console += self.browser.get_log("browser")
        return [line["message"] for line in self.console if line["level"] in ("SEVERE", "WARNING")]


@contextmanager
def page(browser, url, complaint=""):
    """Open a page that complains of nothing, or of what a pattern says.

    If its test fails, keep how it looked.
    """
    before = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get_log("browser")
    opened, mine = Page(browser), browser.current_window_handle
    try:
        browser.get(url)
        yield opened
        found = opened.complaints()
        assert found == [line for line in found if complaint and re.search(complaint, line)]
        assert found or not complaint
    except BaseException:
        kept = Path(tempfile.mkdtemp(prefix="lthdask-browser-"))
        browser.save_screenshot(kept / "page.png")
        opened.complaints()
        (kept / "console.txt").write_text("\n".join(line["message"] for line in opened.console))
        print(f"the picture and the console of the page are in {kept}")
        raise
    finally:
        browser.switch_to.window(mine)
        browser.close()
        browser.switch_to.window(before)
