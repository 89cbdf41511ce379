"""What somebody sees of the page of a study, in a real browser."""

import logging
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lthdask import flow
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status
from lthdask.study import Study
from tests.browser import page, start
from tests.studies import made_study

pytestmark = pytest.mark.browser
FAILED = ("ticket-r0-t0.9-k0", "ticket-r1-t0.9-k0")


FOCUSED = """
let node = document.activeElement
while (node.shadowRoot?.activeElement) node = node.shadowRoot.activeElement
return node.name
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = start(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()


def until(condition):
    """Wait until a condition holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def watching(folder, refusing=False):
    """Run `lthdask watch`, which must not complain, and yield the address that it says."""
    command = [sys.executable, "-m", "lthdask", "watch", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        try:
            yield re.search(r"http://\S+", process.stdout.readline())[0]
        finally:
            process.terminate()
            complaints = process.stderr.read()
    assert not complaints or refusing


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A study that has ended; one of its tickets has failed."""
    folder = made_study(
        tmp_path_factory.mktemp("page") / "ended",
        arms=("ticket", "random_mask"),
        replicates=2,
        accuracy=lambda cell: 0.90 if cell.threshold == 0.9 else 0.94,
        status=lambda cell: Status.FAILED if str(cell) in FAILED else Status.DONE,
    )
    why = "Traceback (most recent call last):\nRuntimeError: <b>out of memory</b>\n"
    for name in FAILED:
        Folder(folder).runs.write_traceback(name, why)
    with watching(folder, refusing=True) as address:
        yield address


def test_a_study_that_has_ended_is_shown_with_what_failed(browser, ended):
    with page(browser, ended) as shown:
        shown.wait_for("14 of 16 cells done, 2 failed")
        shown.wait_for("nobody runs it now")
        shown.wait_for("RuntimeError: <b>out of memory</b>")


def test_the_pointer_is_told_figures_worker_and_state(browser, ended):
    with page(browser, ended + "&replicate=0") as shown:
        shown.wait_for("16 cells")
        shown.point(shown.place("− dense", 1, 0))
        for told in ("state: done", "test accuracy: 94.0 %", "trained on: node0 cpu"):
            shown.wait_for(told)


def test_a_click_shows_the_learning_curves_and_the_address_keeps_it(browser, ended):
    with page(browser, ended) as shown:
        shown.wait_for("Choose a cell")
        shown.click(shown.place("− dense", 1, 1))
        shown.place("ticket, threshold 0.9, k=2", 1, 90)
        shown.wait_for("threshold 0.9, k=2: done")
        shown.wait(lambda: "threshold=0.9" in browser.current_url, "the cell in the address")
        browser.refresh()
        shown.wait_for("threshold 0.9, k=2: done")


def test_the_keyboard_chooses_arm_replicate_and_cell(browser, ended):
    from selenium.webdriver.common.keys import Keys

    with page(browser, ended) as shown:
        shown.wait_for("16 cells")
        for name in ("arm", "replicate", "threshold", "rewind_epoch"):
            choices = shown.wait(lambda of=name: shown.select(of), f"a list {name}")
            shown.wait(choices.is_displayed, f"the list {name}")
            choices.send_keys(Keys.ARROW_DOWN)
            assert browser.execute_script(FOCUSED) == name
        shown.place("random mask − dense, replicate 0", 0, 0)
        shown.wait_for("threshold 0.5, k=0: done")
        assert browser.execute_script(FOCUSED) == "rewind_epoch"  # also after it was drawn


SERVER = """
import asyncio, sys
from pathlib import Path
from tornado.netutil import bind_sockets
from lthdask.report.page.alone import server_of
async def serve():
    sockets = bind_sockets(int(sys.argv[2]), "127.0.0.1")
    server = server_of(Path(sys.argv[1]), "secret", sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(serve())
"""


@contextmanager
def killed_at_the_end(folder, port=0):
    """Serve the page from a process of its own, and yield the port."""
    command = [sys.executable, "-c", SERVER, str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_a_page_whose_server_is_started_anew_comes_back_as_it_was(browser, tmp_path):
    study, chosen = made_study(tmp_path / "study"), "threshold 0.9, k=2: done"
    with ExitStack() as stack:
        with killed_at_the_end(study) as port:
            address = f"http://127.0.0.1:{port}/?token=secret"
            shown = stack.enter_context(page(browser, address, complaint="(?i)connect"))
            shown.wait_for("4 cells")
            shown.click(shown.place("− dense", 1, 1))
            shown.wait_for(chosen)
            browser.execute_script("window.old = true")
        shown.wait_for("connection was lost")
        with killed_at_the_end(study, port):
            shown.wait(lambda: not browser.execute_script("return window.old"), "another page")
            shown.wait_for(chosen)


def test_without_its_token_the_page_is_refused(browser, ended):
    with page(browser, ended.partition("?")[0], complaint="403") as shown:
        assert "403" in shown.text()


@pytest.mark.parametrize(
    ("host", "answer"), [("foreign.example", "refused"), ("localhost", "open")]
)
def test_a_page_of_a_foreign_origin_gets_no_websocket(browser, ended, tmp_path, host, answer):
    address = ended.replace("http://", "ws://").partition("?")[0] + "ws"
    (tmp_path / "page.html").write_text(
        f"""<link rel="icon" href="data:,"><script>
        const socket = new WebSocket("{address}", ["bokeh", "x"])
        socket.onopen = () => document.title = "open"
        socket.onerror = () => document.title ||= "refused"
        </script>"""
    )
    complaint = "403" if answer == "refused" else ""
    with (
        web_server(tmp_path) as port,
        page(browser, f"http://{host}:{port}/page.html", complaint) as shown,
    ):
        shown.wait(lambda: browser.title, "an answer")
        assert browser.title == answer


@contextmanager
def web_server(folder):
    """Serve the files of a folder, and yield the port."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def test_the_page_fills_while_a_study_trains_here_and_for_who_watches_elsewhere(
    browser, local_client, tmp_path, caplog
):
    changes = {
        "network.name": "lenet_300_100",
        "recipe.epochs": "5",
        "grid.thresholds": "0.5,0.8,0.9,0.95",
        "grid.rewind_epochs": "0,1,2,3",
        "grid.arms": "ticket,random_mask",
    }
    study, folder = Study.read("digits").changed(changes), tmp_path / "live"
    port = local_client.cluster.scheduler.http_server.port
    run = threading.Thread(target=flow.run, args=(study, local_client, folder))
    run.start()
    try:
        until(lambda: (folder / "study.yaml").exists())  # the page is there before
        with (
            watching(folder) as address,
            page(browser, f"http://127.0.0.1:{port}/status") as shown,
        ):
            browser.find_element("css selector", ".navbar li a[href='grid']").click()
            shown.wait_for("of 32 cells done")
            shown.wait_for("epochs/s")
            shown.wait(lambda: " left (" in shown.text(), "the time left, and its spread")
            assert "GiB" in shown.text()
            shown.click(shown.place("− dense", 0, 1))
            with page(browser, address) as elsewhere:
                some = re.compile(r"[1-9]\d* of 32 cells done")
                elsewhere.wait(lambda: some.search(elsewhere.text()), "a cell that is done")
                elsewhere.wait_for("32 of 32 cells done", 120)
                told = "16 cells: 16 done"  # also to those who do not see it
                elsewhere.wait(lambda: told in elsewhere.described(), "the text of the map")
            shown.wait_for("32 of 32 cells done")
            local_client.restart()
            shown.wait_for("threshold 0.8, k=0: done")
    finally:
        run.join()
    servers = [line for line in caplog.records if line.name.startswith(("bokeh", "tornado"))]
    assert [line for line in servers if line.levelno >= logging.WARNING] == []
