"""What Dask's own pages show of a study, and that whoever watches it may do as they like."""

import gc
import threading
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import dask
import pytest
from dask.utils import key_split
from distributed import Client, LocalCluster
from distributed.config import defaults
from distributed.dashboard.scheduler import applications, template_variables
from distributed.utils import color_of

from lthdask.arms import ARMS
from lthdask.driver.sweep import checkpoint_name
from lthdask.flow import run
from lthdask.grid import Cell
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status
from lthdask.worker.tasks import dense_run_name
from tests.test_flow import TINY


def answer(client, page):
    """The status with which the dashboard answers."""
    url = client.dashboard_link.removesuffix("/status") + page
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=20) as found:
            return found.status
    except HTTPError as error:
        return error.code


def pages(client):
    """Every page of the dashboard, and whatever else is in its menu."""
    menu = template_variables(client.cluster.scheduler)
    listed = [*menu["pages"], *(plot["url"] for plot in menu["plots"])]
    return {*applications, *(f"/{page}" for page in listed)}


def close_pages(dask_scheduler):
    """Have the server forget pages at once that nobody looks at; it would feed them for 15 s."""
    for application in dask_scheduler.http_application.applications:
        for page in getattr(application, "app_paths", ()):
            for session in application.get_sessions(page):
                session.request_expiration()


def groups(dask_scheduler):
    """The groups of tasks that the scheduler knows."""
    return set(dask_scheduler.task_groups)


@pytest.fixture(scope="module")
def watched(local_client, tmp_path_factory):
    """What was seen by one who fetches a page at each event, and all of them once: at a cell."""
    study = TINY.changed({"grid.thresholds": "0.5", "grid.arms": "ticket,random_mask"})
    seen = SimpleNamespace(events=[], threads=set(), answers={}, groups=set())

    def watch(event):
        seen.events.append(event)
        seen.threads.add(threading.current_thread())
        assert answer(local_client, "/info/main/workers.html") == 200
        if event.kind == "cell" and not seen.answers:
            seen.groups = local_client.run_on_scheduler(groups)
            for page in pages(local_client):
                seen.answers[page] = answer(local_client, page)
                local_client.run_on_scheduler(close_pages)

    gc.freeze()  # Bokeh collects garbage for each page that it forgets: 0.3 s, with torch in memory
    seen.results = run(study, local_client, tmp_path_factory.mktemp("watched") / "run", watch=watch)
    yield seen
    gc.unfreeze()


def test_every_page_that_dask_answers_is_answered_while_a_study_runs(watched):
    assert watched.groups >= {"checkpoint", "cell.ticket-task", "cell.random-mask-task"}
    assert {"/status", "/groups", "/info", "/individual-progress"} <= watched.answers.keys()
    others = {page: status for page, status in watched.answers.items() if status != 200}
    with (
        dask.config.set(defaults),
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        assert others == {page: answer(client, page) for page in others}


def test_every_entry_of_the_menu_answers(watched, local_client):
    menu = template_variables(local_client.cluster.scheduler)
    entries = {f"/{page}" for page in [*menu["pages"], *(plot["url"] for plot in menu["plots"])]}
    assert {page: watched.answers[page] for page in entries} == dict.fromkeys(entries, 200)


def test_a_watch_that_fetches_a_page_at_each_event_hangs_nothing_and_misses_none(watched):
    assert (watched.results.status == Status.DONE).all()
    assert watched.threads == {threading.current_thread()}
    plan, *events = watched.events
    assert (plan.kind, plan.cells) == ("plan", 4)
    assert sum(event.epochs for event in events) == plan.epochs
    last = {event.name: event.kind for event in events if event.kind != "dense"}
    assert last == {"dense-r0": "epoch"} | {
        f"{arm}-r0-t0.5-k{k}": "cell" for arm in ("ticket", "random_mask") for k in (0, 2)
    }


def test_a_watch_that_raises_ends_the_run_and_loses_nothing_that_is_done(local_client, tmp_path):
    def attempts(cell):
        return Folder(tmp_path).runs.attempts(str(cell))

    def watch(event):
        if event.kind == "epoch" and cube.exists() and Status.DONE in Cube(cube).cells().values():
            raise ValueError("nowhere to draw it")

    cube = tmp_path / "results.zarr"
    with pytest.raises(ValueError, match="nowhere to draw it") as raised:
        run(TINY, local_client, tmp_path, watch=watch)
    assert "What is done is kept" in raised.value.__notes__[0]
    done = {c: attempts(c) for c, status in Cube(cube).cells().items() if status is Status.DONE}
    assert done
    assert (run(TINY, local_client, tmp_path).status == Status.DONE).all()
    assert done == {cell: attempts(cell) for cell in done}


def test_dense_runs_checkpoints_and_the_usual_arms_have_colours_of_their_own():
    cells = {arm: Cell(arm, 0, 0.5, 2).label for arm in ARMS}
    assert cells["random_mask"] == "cell.random-mask-task-r0-t0.5-k2"
    named = [dense_run_name(0), checkpoint_name(0, 2), *cells.values()]
    found = [key_split(f"{name}-0123abcd-7") for name in named]
    arms = [f"cell.{arm.replace('_', '-')}-task" for arm in ARMS]
    assert found == ["dense", "checkpoint", *arms]
    usual = ("ticket", "random_mask", "reinit", "lr_rewind", "fine_tune")
    groups = ["dense", "checkpoint", *(arms[list(ARMS).index(arm)] for arm in usual)]
    assert len({color_of(group) for group in groups}) == len(groups)
    assert max(arms) < "checkpoint"  # Dask's page of groups puts them behind it
