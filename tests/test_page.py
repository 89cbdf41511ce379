"""What the page of a study shows while it fills, who gets it, and what it costs a run."""

import asyncio
import contextlib
import gc
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from urllib.error import HTTPError

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure
from bokeh.util.token import generate_jwt_token, generate_session_id
from distributed.dashboard import scheduler as applications_of_dask
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.netutil import bind_sockets
from tornado.websocket import websocket_connect

from lthdask.cluster import dashboard
from lthdask.cluster.client import open_client
from lthdask.cluster.dashboard import show_page
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.options import Options, origins_with
from lthdask.report.page import words
from lthdask.report.page.alone import serve, server_of
from lthdask.report.page.choice import Choice, Chooser
from lthdask.report.page.document import bring_up_to_date, document, page_of
from lthdask.report.page.forecast import forecast
from lthdask.report.page.source import Source
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.driver import driving
from lthdask.storage.folder import Folder
from lthdask.storage.results import open_part, open_results
from lthdask.storage.schema import Extent, Status

AXES = {
    "arm": ["ticket", "reinit"],
    "replicate": [0],
    "threshold": [0.5, 0.9],
    "rewind_epoch": [0.0, 2.0],
}
CELLS = [Cell(arm, 0, t, k) for arm in ("ticket", "reinit") for t in (0.5, 0.9) for k in (0, 2)]
T = 4
NOW = 1_000_000.0


@pytest.fixture
def folder(tmp_path):
    """A study of 6 cells with 4 epochs, whose dense run is trained."""
    folder = Folder(tmp_path / "study")
    folder.make()
    folder.write_study("name: small\n")
    about = {"study": {"name": "small", "recipe": {"epochs": T}, "matching_margin": 0.01}}
    create_cube(folder.cube, Extent(AXES, T, ["fc.weight"]), about)
    cube = Cube(folder.cube)
    curve = {"train_loss": 1.0, "validation_loss": 1.0, "validation_accuracy": 0.9}
    cube.write_dense(0, {n: curve | {"test_accuracy": 0.2 * n} for n in range(1, T + 1)}, {})
    for cell in CELLS:
        if cell.arm == "reinit" and cell.rewind_epoch:
            cube.mark(cell, Status.NOT_APPLICABLE)
    return folder


def end(folder, cell, seconds_per_epoch=2.0, accuracy=0.7, ended=NOW):
    """Write the results of a cell."""
    epochs = T - cell.first_epoch
    metrics = {"test_accuracy": accuracy, "density": 0.1, "epochs_trained": epochs}
    record = {"seconds": seconds_per_epoch * epochs, "started": ended - 1, "ended": ended}
    curves = {epoch: {"test_accuracy": accuracy} for epoch in range(cell.first_epoch + 1, T + 1)}
    Cube(folder.cube).write(
        cell,
        Status.DONE,
        metrics=metrics,
        curves=curves,
        layers={},
        record=record,
        place="node1 cpu",
    )


def looked_twice(source):
    """Look at a study; how its cells were computed is read at the second look."""
    for _ in range(2):
        source._due = 0.0
        source.look()
    return source


def begin(folder, name, **about):
    """Record an attempt at a run."""
    usual = {"driver": "d", "started": NOW, "place": "node2 cpu", "pid": 7, "epoch": 0, "step": 0}
    folder.runs.begin(name, usual | {"beside": 1} | about, most=3)


def test_what_is_left_is_counted_in_epochs_and_takes_as_long_as_what_is_done(folder):
    # tickets 4 + 4 + 2 + 2 epochs, new initialisations 4 + 4, the dense run 4
    of = forecast(open_results(folder.path, "records"), {}, 2, NOW)
    assert (of.ended, of.epochs_done, of.epochs, of.rate, of.left) == (0, 4, 24, None, None)
    end(folder, Cell("ticket", 0, 0.5, 0), seconds_per_epoch=2.0)
    of = forecast(open_results(folder.path, "records"), {}, 2, NOW)
    assert (of.cells, of.ended, of.epochs_done, of.rate) == (6, 1, 8, 1.0)
    assert of.left[0] == 16
    assert np.isnan(of.left[1:]).all()  # one cell has no spread
    running = {"ticket-r0-t0.9-k0": {"started": NOW - 4.0, "epoch": 0, "beside": 1}}
    of = forecast(open_results(folder.path, "records"), running, 2, NOW)
    assert (of.epochs_done, of.left[0]) == (10, 14)  # it has trained for 4 s


@pytest.mark.parametrize(
    ("paces", "within"), [((2.0, 2.0, 2.0), (1.0, 1.0)), ((1.0, 2.0, 3.0), (0.25, 1.75))]
)
def test_the_time_left_has_the_spread_of_the_cells_that_are_done(folder, paces, within):
    for cell, pace in zip([CELLS[0], CELLS[2], CELLS[4]], paces, strict=True):
        end(folder, cell, pace)
    expected, low, high = forecast(open_results(folder.path, "records"), {}, 1, NOW).left
    assert expected == 8 * 2.0  # epochs, seconds
    # s / mean = 0 or 0.5; 3 cells are done, and 3 are left
    assert within == pytest.approx((low / expected, high / expected), abs=0.1)


def test_nobody_is_told_when_a_study_ends_that_nobody_runs(folder):
    end(folder, CELLS[0])
    begin(folder, CELLS[1])  # and its process has died
    look = Source(folder.path).look()
    assert (look.driver, look.running, look.forecast.left) == (None, {}, None)
    assert "nobody runs it now" in words.heading("small", look)


def test_a_look_shows_what_runs_and_why_cells_failed(folder):
    source = Source(folder.path)
    end(folder, CELLS[0])
    begin(folder, CELLS[0])
    begin(folder, CELLS[1], driver="an earlier one", started=NOW - 100)
    begin(folder, CELLS[2])
    Cube(folder.cube).mark(CELLS[3], Status.FAILED)
    folder.runs.write_traceback(
        CELLS[3], "Traceback (most recent call last):\n  x\nValueError: <b>no</b>\n"
    )
    with driving(folder.path):
        looked_twice(source)
        look = source.latest
    assert list(look.running) == [str(CELLS[2])]
    assert look.why == {"ValueError: <b>no</b>": [str(CELLS[3])]}
    assert "&lt;b&gt;no&lt;/b&gt;" in words.failures(look)
    columns = source.columns("ticket", 0)
    assert columns["state"] == ["done", "pending", "running", "failed"]
    assert columns["place"] == ["node1 cpu", "", "node2 cpu", ""]


def test_a_look_is_another_one_only_if_there_is_something_to_draw(folder, monkeypatch):
    monkeypatch.setattr("lthdask.report.page.source.EVERY", 0.0)
    source = looked_twice(Source(folder.path))
    first = source.latest
    source._due = 0.0
    assert source.look().number == first.number
    end(folder, CELLS[0])
    source._due = 0.0
    assert source.look().number == first.number + 1


def test_looks_take_less_than_a_hundredth_of_a_core(folder, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(time, "thread_time", lambda: 0.05 * next(clock))
    source = looked_twice(Source(folder.path))  # which opens the study
    source._due = 0.0
    before = time.monotonic()
    source.look()
    assert source._due - before > 5.0  # one of 0.05 s


def test_what_others_look_at_is_there_when_a_page_opens(folder):
    source = looked_twice(Source(folder.path))
    document(source)(first := Document())
    assert not list(first.select({"type": figure}))
    source.columns("ticket", 0)
    document(source)(second := Document())
    (plot,) = second.select({"type": figure})
    assert plot.title.text == "ticket − dense, replicate 0"


def test_a_page_is_sent_what_is_new_alone(folder):
    cells = ColumnDataSource(looked_twice(Source(folder.path)).columns("ticket", 0))
    sent = []
    (doc := Document()).add_root(cells)
    doc.on_change(sent.append)
    end(folder, CELLS[2])
    now = looked_twice(Source(folder.path)).columns("ticket", 0)
    bring_up_to_date(cells, now)
    (event,) = sent
    rows = {row for patches in event.patches.values() for row, _ in patches}
    assert rows == {2}
    for name, values in now.items():
        np.testing.assert_array_equal(cells.data[name], values)


def test_before_there_are_results_the_page_says_what_it_waits_for(tmp_path):
    look = Source(tmp_path).look()
    assert look.results is None
    assert "no results" in words.heading("small", look)


def test_one_cell_is_read_alone_and_is_the_same(folder):
    end(folder, CELLS[3])
    whole = open_results(folder.path, "curves").sel(threshold=[0.9], rewind_epoch=[2.0])
    part = open_part(folder.path, "curves", threshold=0.9, rewind_epoch=2.0)
    for name in part.data_vars:
        np.testing.assert_array_equal(part[name], whole[name])
    with pytest.raises(InputError, match=r"threshold 0\.7 is not in"):
        open_part(folder.path, threshold=0.7)


def test_what_was_chosen_stays_chosen(folder):
    results = open_results(folder.path)
    chooser = Chooser(
        {"arm": "reinit", "threshold": "0.9", "rewind_epoch": "2.0", "replicate": "9"}
    )
    chooser.offer(results)
    assert chooser.choice(results) == Choice("reinit", 0, (0.9, 2.0))  # there is no replicate 9
    chooser.choose_cell(0.5, 0.0)
    chooser.offer(results)
    assert chooser.choice(results) == Choice("reinit", 0, (0.5, 0.0))
    chooser.choose_cell()
    chooser.offer(results)
    assert chooser.choice(results).cell is None


@pytest.mark.parametrize("origin", ["https://hub.example.org", "a b", ""])
def test_an_origin_that_is_none_is_refused(origin):
    with pytest.raises(InputError, match="host and port"):
        Options(allow_origin=(origin,))


def test_a_page_that_is_refused_leaves_no_event_loop_behind(folder):
    with pytest.raises(InputError, match="host and port"):
        serve(folder.path, origins=["*/"])
    asyncio.set_event_loop(None)
    gc.collect()  # a loop that nobody closed is an error here


@contextlib.contextmanager
def served(folder):
    """Serve the page in another thread; yield its port."""
    there = queue.SimpleQueue()

    async def until_the_end():
        end = asyncio.Event()
        sockets = bind_sockets(0, "127.0.0.1")
        server = server_of(folder.path, "secret", sockets)
        there.put((sockets[0].getsockname()[1], asyncio.get_running_loop(), end))
        await end.wait()
        server.stop()

    thread = threading.Thread(target=asyncio.run, args=[until_the_end()])
    thread.start()
    port, loop, end = there.get(timeout=60)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()


def opened(url):
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()


def connect(port, origin, session, name=""):
    """Return the first message of a websocket; None if it is closed before."""

    async def ask():
        request = HTTPRequest(f"ws://127.0.0.1:{port}/{name}ws", headers={"Origin": origin})
        socket = await websocket_connect(request, subprotocols=["bokeh", session])
        first = message = await socket.read_message()
        socket.close()
        while message is not None:
            message = await socket.read_message()
        return first

    return asyncio.run(ask())


def menu_of(port, page):
    """The pages in the menu of a page of a dashboard."""
    return re.findall(r'<a href="(\w+)">', opened(f"http://127.0.0.1:{port}/{page}"))


def session_of(page):
    return re.search(r'"token":"([^"]+)"', page)[1]


def test_the_page_opens_with_its_token_alone(folder):
    with served(folder) as port:
        at = f"http://127.0.0.1:{port}/"
        assert "<title>lthdask</title>" in opened(at + "?token=secret")
        for wrong in ("", "?token=", "?token=Secret", "autoload.js", "metadata"):
            with pytest.raises(HTTPError, match="403"):
                opened(at + wrong)


def test_pages_of_this_machine_may_connect_and_what_was_added_and_no_other(folder):
    command = [sys.executable, "-m", "lthdask", "watch", str(folder.path)]
    command += ["--allow-origin", "hub.example.org"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            address = re.search(r"http://127.0.0.1:(\d+)/\S+", watching.stdout.readline())
            port, session = address[1], session_of(opened(address[0]))
            for origin in (
                "http://127.0.0.1:8787",
                "http://localhost:9",
                "https://hub.example.org",
            ):
                assert "ACK" in connect(port, origin, session)
            for origin in ("http://example.org", "http://127.0.0.1.example.org:80"):
                with pytest.raises(HTTPClientError, match="403"):
                    connect(port, origin, session)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(60) == 0
        finally:
            watching.kill()


def test_a_websocket_without_a_page_that_was_let_in_gets_nothing(folder):
    forged = generate_jwt_token(generate_session_id(signed=False), signed=False)
    with served(folder) as port:
        assert connect(port, "http://localhost:8787", forged) is None


def test_the_page_is_the_first_in_the_menu_of_the_dashboard(folder, local_client):
    show_page(local_client, partial(page_of, folder.path), origins_with([]))
    port = local_client.cluster.scheduler.http_server.port
    for name in ("grid", "status"):
        assert menu_of(port, name)[:2] == ["grid", "status"]
    session = session_of(opened(f"http://127.0.0.1:{port}/grid"))
    assert "ACK" in connect(port, "http://localhost:1", session, "grid/")
    with pytest.raises(HTTPClientError, match="403"):
        connect(port, "http://example.org", session, "grid/")


@contextlib.contextmanager
def scheduler_of_its_own(folder):
    """Start a scheduler that is nobody's; yield its address, and the port of its dashboard."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", "0", "--dashboard-address", "127.0.0.1:0"]
    file = folder / "scheduler.json"
    with subprocess.Popen(
        [*command, "--scheduler-file", file], stderr=subprocess.DEVNULL
    ) as process:
        try:
            end = time.monotonic() + 60
            while not file.exists():
                assert time.monotonic() < end
                time.sleep(0.05)
            about = json.loads(file.read_text())
            yield about["address"], about["services"]["dashboard"]
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_scheduler_that_ran_already_has_the_page_first_in_its_menu(folder, tmp_path):
    with (
        scheduler_of_its_own(tmp_path) as (address, port),
        open_client(scheduler=address) as client,
    ):
        show_page(client, partial(page_of, folder.path), origins_with([]))
        for name in ("grid", "status"):
            assert menu_of(port, name)[:2] == ["grid", "status"]
        session = session_of(opened(f"http://127.0.0.1:{port}/grid"))
        assert "ACK" in connect(port, "http://localhost:1", session, "grid/")


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        ("distributed.dashboard.scheduler.template_variables", "the menu of the dashboard lacks"),
        ("bokeh.server.tornado.BokehTornado", "the dashboard has no page of the grid"),
    ],
)
def test_a_dask_that_has_changed_costs_the_page_and_not_the_run(
    gone, says, folder, local_client, monkeypatch, caplog
):
    monkeypatch.setattr(dashboard, "_sites", {})
    monkeypatch.delattr(gone)
    show_page(local_client, partial(page_of, folder.path), origins_with([]))
    assert says in caplog.text


def test_workers_are_told_with_their_memory(local_client):
    workers = dashboard.crew_of(local_client.cluster.scheduler)
    assert {worker["name"] for worker in workers} == {"worker 0", "worker 1"}
    assert all(worker["host"] == "127.0.0.1" and worker["runs"] == [] for worker in workers)
    assert "GiB" in words.workers(workers)


def test_jupyterlab_is_offered_a_pane_where_its_extension_is_installed(monkeypatch):
    monkeypatch.setattr(applications_of_dask, "applications", {})
    dashboard.offer_pane()
    assert applications_of_dask.applications == {}
    monkeypatch.setattr(dashboard, "find_spec", lambda name: name == "dask_labextension")
    dashboard.offer_pane()
    assert list(applications_of_dask.applications) == ["/individual-lottery-grid"]
    pane = applications_of_dask.applications["/individual-lottery-grid"]
    pane(Folder, {}, document := Document())  # a scheduler that has run no study
    assert "No study" in document.roots[0].text
