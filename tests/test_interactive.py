"""What interactive running promises: clients that are closed or not, runs in the background.

On the two worker processes that all tests share.
"""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError

import dask
import numpy as np
import psutil
import pytest
from distributed import Client

import lthdask
from lthdask.cluster import stopping
from lthdask.cluster.queue import Queue, Task
from lthdask.errors import InputError
from lthdask.events import Event, Stopped
from lthdask.report.page.source import Source
from lthdask.report.page.still import still
from lthdask.storage.driver import driver_of
from lthdask.storage.folder import Folder
from tests.studies import made_study
from tests.test_flow import TINY
from tests.test_room import in_process

LONG = TINY.changed({"recipe.epochs": 2000, "engine.precision": "float32"})
"""It is never trained to its end."""


def settings():
    """What opening a client changes in this process."""
    return gc.get_threshold(), dask.config.get("temporary-directory"), dask.config.config


def running_tasks(client):
    """The names of the tasks that workers run, whether anybody waits for them or not."""
    found = client.run(
        lambda dask_worker: [str(task.key) for task in dask_worker.state.all_running_tasks]
    )
    return [task for tasks in found.values() for task in tasks]


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_training(submitted):
    return submitted.progress.epochs_done > 0


@pytest.fixture
def second(running):
    """A function that opens another client to the workers that all tests share."""
    return lambda: lthdask.open_client(scheduler=running)


def test_a_client_needs_no_with_and_undoes_its_settings_when_it_is_closed(second):
    before = settings()
    client = second()
    assert isinstance(client, Client)
    assert repr(client).startswith("<Client: 'tls://")
    assert client.submit(abs, -1).result() == 1
    assert settings() != before
    client.close()
    client.close()
    assert client.status == "closed"
    assert settings() == before
    with second() as client:
        assert settings() != before
    assert client.status == "closed"
    assert settings() == before


def test_clients_are_closed_in_any_order(second):
    before = settings()
    first, other = second(), second()
    during = settings()
    first.close()
    assert settings() == during
    assert os.path.isdir(dask.config.get("temporary-directory"))
    assert other.submit(abs, -2).result() == 2
    other.close()
    assert settings() == before


def test_two_studies_are_trained_on_one_client_and_each_counts_its_own(local_client, tmp_path):
    every = [lthdask.submit(TINY, local_client, tmp_path / name) for name in "ab"]
    results = [submitted.wait() for submitted in every]
    np.testing.assert_array_equal(*(of.test_loss.values for of in results))
    for submitted in every:
        now = submitted.progress
        assert (now.cells, now.cells_done, now.epochs, now.epochs_done) == (4, 4, 11, 11)
        assert "done, 4/4 cells in " in repr(submitted)
        assert submitted.results("curves").test_accuracy_curve.shape[-1] == 3
        cells = submitted.cells
        assert cells.status.tolist() == ["done"] * 4
        assert set(cells.place.str.endswith(" cpu")) == {True}
        at = results[0].sel(arm="ticket", replicate=0, threshold=0.95, rewind_epoch=2)
        assert cells.iloc[-1].test_accuracy == at.test_accuracy
        html = submitted._repr_html_()
        assert "4 of 4 cells done" in html
        assert f'title="threshold 0.95, k=2: done · test accuracy {at.test_accuracy:.1f} %' in html


def test_what_is_cancelled_trains_no_more_and_picks_up_where_it_left_off(local_client, tmp_path):
    workers = local_client.run(os.getpid)
    submitted = lthdask.submit(LONG, local_client, tmp_path)
    until(lambda: is_training(submitted))
    with pytest.raises(InputError, match="is being run by .* choose another folder with `out`"):
        lthdask.submit(LONG, local_client, tmp_path)
    assert submitted.cells.status.tolist() == ["pending"] * 4
    assert "1 dense run running" in submitted._repr_html_()
    with pytest.raises(TimeoutError, match="has not ended after 0 s; it goes on"):
        submitted.wait(timeout=0)
    here = threading.get_ident()
    threading.Timer(0.1, signal.pthread_kill, (here, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt) as interrupted:
        submitted.wait()
    assert "is trained on; `cancel()` ends that" in interrupted.value.__notes__[0]
    assert running_tasks(local_client)
    submitted.cancel()
    submitted.cancel()
    assert running_tasks(local_client) == []
    assert local_client.run(os.getpid) == workers
    assert driver_of(tmp_path) is None
    assert list(Folder(tmp_path).runs.unfinished()) == ["dense-r0"]  # its state is saved
    with pytest.raises(CancelledError, match="the same study picks up where it left off"):
        submitted.wait()
    assert repr(submitted) == f"<tiny in {tmp_path}: cancelled, 0/4 cells done>"
    again = lthdask.submit(LONG, local_client, tmp_path)
    until(lambda: len(Folder(tmp_path).runs.attempts("dense-r0")) == 2)
    again.cancel()
    first, second = Folder(tmp_path).runs.attempts("dense-r0")
    assert (second["epoch"], second["step"]) > (first["epoch"], first["step"])


def test_a_run_that_is_interrupted_trains_no_more(local_client, tmp_path):
    def interrupt(event):
        if event.kind == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lthdask.run(LONG, local_client, tmp_path, watch=interrupt)
    assert running_tasks(local_client) == []
    assert list(Folder(tmp_path).runs.unfinished()) == ["dense-r0"]


def test_what_only_a_worker_finds_out_is_told_by_the_run_that_it_ends(local_client, tmp_path):
    submitted = lthdask.submit(TINY.changed({"recipe.batch_size": 1000}), local_client, tmp_path)
    with pytest.raises(InputError, match="there are only 397 training images"):
        submitted.wait()
    assert "ended by InputError: batch_size is 1000" in repr(submitted)
    assert "ended by InputError: batch_size is 1000" in submitted._repr_html_()
    assert submitted.cells.status.tolist() == ["pending"] * 4


def test_what_is_wrong_with_the_folder_is_raised_at_once(local_client, tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises(InputError, match="something other than a study.*with `out`"):
        lthdask.submit(TINY, local_client, tmp_path)


def test_a_client_that_is_closed_cancels_what_was_submitted_to_it(second, local_client, tmp_path):
    client = second()
    submitted = lthdask.submit(LONG, client, tmp_path)
    until(lambda: is_training(submitted))
    client.close()
    assert "cancelled" in repr(submitted)
    assert list(Folder(tmp_path).runs.unfinished()) == ["dense-r0"]
    assert running_tasks(local_client) == []


def test_a_client_of_somebody_else_that_is_closed_ends_the_run_in_a_sentence(
    local_client, running, tmp_path
):
    with Client(running, security=local_client.security) as client:
        submitted = lthdask.submit(LONG, client, tmp_path)
        until(lambda: is_training(submitted))
    with pytest.raises(InputError, match="the client was closed while the study was trained"):
        submitted.wait()
    assert driver_of(tmp_path) is None
    until(lambda: not running_tasks(local_client))


def test_results_so_far_are_there_at_once_and_what_nobody_holds_goes_on(local_client, tmp_path):
    at_once = lthdask.submit(TINY, local_client, tmp_path).results()
    assert at_once.sizes["replicate"] == 1
    gc.collect()
    until(lambda: driver_of(tmp_path) is None)
    assert (lthdask.open_results(tmp_path).status == 1).all()


def test_a_folder_that_goes_while_it_is_drawn_leaves_a_picture_without_maps(tmp_path):
    class Gone(Source):
        def columns(self, arm, replicate):
            shutil.rmtree(self.folder.path)
            self._due = 0
            assert self.look().results is None
            return super().columns(arm, replicate)

    html = still("tiny", Gone(made_study(tmp_path / "study")))
    assert "4 of 4 cells done" in html
    assert "<table" not in html


@pytest.mark.slow
def test_a_worker_whose_task_does_not_stop_is_replaced(local_client, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE", 0.5)
    local_client.wait_for_workers(2)
    before = set(local_client.run(os.getpid).values())
    queue = Queue(local_client)
    queue.add(Task("deaf", lambda here: time.sleep(600)))
    threading.Timer(1, queue.stop.set).start()
    with pytest.raises(CancelledError):
        queue.run()
    local_client.wait_for_workers(2)
    assert len(before & set(local_client.run(os.getpid).values())) == 1


def _go_on_until_it_is_unwanted(here):
    here.tell(Event("begun", str(os.getpid())))
    while not here.should_stop():
        time.sleep(0.01)
    raise Stopped


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_replaced_and_the_others_stop(local_client, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE", 1)
    local_client.wait_for_workers(2)
    pids = []

    def freeze_one(event):
        pids.append(int(event.name))
        if len(pids) == 2:
            os.kill(pids[0], signal.SIGSTOP)
            queue.stop.set()

    queue = Queue(local_client, freeze_one)
    for name in "ab":
        queue.add(Task(name, _go_on_until_it_is_unwanted))
    with pytest.raises(CancelledError):
        queue.run()
    local_client.wait_for_workers(2)
    left = set(local_client.run(os.getpid).values())
    assert (pids[0] in left, pids[1] in left, len(left)) == (False, True, 2)
    assert running_tasks(local_client) == []


deaf = threading.Event()


def _be_deaf_for_a_second(here):
    deaf.set()
    time.sleep(1)


@pytest.mark.parametrize("patience", [30, 0.1], ids=["it ends", "it goes on"])
def test_a_worker_that_nobody_would_replace_ends_what_it_does(monkeypatch, caplog, patience):
    monkeypatch.setattr(stopping, "PATIENCE", 0.1)
    monkeypatch.setattr(stopping, "REPLACING", patience)
    deaf.clear()
    with in_process(1) as cluster, Client(cluster) as client:
        queue = Queue(client)
        queue.add(Task("deaf", _be_deaf_for_a_second))
        threading.Thread(target=lambda: (deaf.wait(), queue.stop.set())).start()
        with pytest.raises(CancelledError):
            queue.run()
        goes_on = running_tasks(client) != []
    assert goes_on == (patience == 0.1)
    assert goes_on == ("may still train" in caplog.text)


SCRIPT = """
import os, sys, time
import lthdask

if __name__ == "__main__":
    client = lthdask.open_client(2, deployment="local")
    submitted = lthdask.submit(lthdask.Study.read("long.yaml"), client, "run")
    while not submitted.progress.epochs_done:
        time.sleep(0.02)
    print(*client.run(os.getpid).values())
"""


@pytest.mark.slow
def test_a_process_that_ends_without_closing_its_client_ends_its_workers(tmp_path):
    (tmp_path / "long.yaml").write_text(LONG.to_yaml())
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "error", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    pids = map(int, done.stdout.splitlines()[-1].split())
    until(lambda: not any(map(psutil.pid_exists, pids)))
    assert list(Folder(tmp_path / "run").runs.unfinished()) == ["dense-r0"]
