"""What a run promises where one worker is sick: it costs time, never a cell.

Each test makes one of two real workers sick in a real run. Most wait for each other's steps,
and are run by uv run pytest -m faults.
"""

import errno
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import WorkerPlugin

from lthdask.cluster.client import open_client
from lthdask.options import Options
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status
from tests.conftest import ran
from tests.test_faults import INTERVAL, STUDY, begun
from tests.test_flow import RESULTS

pytestmark = pytest.mark.faults


@pytest.fixture(scope="session")
def undisturbed(local_client, tmp_path_factory):
    """The results of the study when nothing happens."""
    return ran(STUDY, local_client, tmp_path_factory.mktemp("undisturbed"))


def assert_equal(results, undisturbed):
    assert (results.status == Status.DONE).all()
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, undisturbed[name].values)


class Sick(WorkerPlugin):
    """Worker 1 cannot train a cell, however often it is started anew.

    Worker 0 is well, but busy until 1 has failed three different cells.
    """

    def __init__(self, problem, at, marks):
        self.problem, self.at, self.marks = problem, at, Path(marks)

    def setup(self, worker):
        def hook(event, arguments):
            path = Path(str(arguments[0])) if event == "open" else Path()
            if not path.parent.name.startswith("ticket-"):
                return
            if worker.name == 0:
                while len(list(self.marks.iterdir())) < 3:
                    time.sleep(0.05)
            elif path.name.startswith(self.at):
                (self.marks / path.parent.name).touch()
                if isinstance(self.problem, int):
                    os.kill(os.getpid(), self.problem)
                raise self.problem

        sys.addaudithook(hook)


PROBLEMS = {
    "an error": (RuntimeError("CUDA error: an illegal memory access"), "attempt-"),
    "a lost mount": (OSError(errno.ESTALE, "Stale file handle"), "attempt-"),
    "a death": (signal.SIGKILL, ".state-"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_sick_worker_is_left_out_and_costs_no_cell(tmp_path, undisturbed, problem, caplog):
    marks = tmp_path / "marks"
    marks.mkdir()
    with open_client(2, deployment="local") as client:
        client.register_plugin(Sick(*PROBLEMS[problem], marks))
        options = Options(checkpoint_interval=INTERVAL)
        results = ran(STUDY, client, tmp_path / "run", options=options)
        assert [worker["name"] for worker in client.scheduler_info()["workers"].values()] == [0]
    assert_equal(results, undisturbed)
    (said,) = [record.getMessage() for record in caplog.records if "left out" in record.msg]
    assert said.startswith("worker 1 is left out: ")


class Broken(WorkerPlugin):
    """No worker can save a state of an arm."""

    def setup(self, worker):
        def hook(event, arguments):
            path = Path(str(arguments[0])) if event == "open" else Path()
            if path.parent.name.startswith("reinit-") and path.name.startswith(".state-"):
                raise RuntimeError("the arm is broken")

        sys.addaudithook(hook)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_arm_that_is_broken_costs_no_cell_of_others_and_no_worker(tmp_path, caplog, workers):
    study = STUDY.changed({"grid.arms": "ticket,reinit", "grid.rewind_epochs": "0"})
    with open_client(workers, deployment="local") as client:
        client.register_plugin(Broken())
        results = ran(study, client, tmp_path, options=Options(checkpoint_interval=0))
        client.wait_for_workers(workers, timeout=30)
    assert (results.status.sel(arm="ticket") == Status.DONE).all()
    assert (results.status.sel(arm="reinit") == Status.FAILED).all()
    assert "left out" not in caplog.text
    for threshold in study.grid.thresholds:
        attempts = Folder(tmp_path).runs.attempts(f"reinit-r0-t{threshold:g}-k0")
        assert len({attempt["pid"] for attempt in attempts}) == len(attempts) == 3
        assert {attempt["worker"] for attempt in attempts} == {
            f"worker {number}" for number in range(workers)
        }
        reason = Folder(tmp_path).runs.reason(f"reinit-r0-t{threshold:g}-k0")
        assert reason == "RuntimeError: the arm is broken"


def test_a_process_that_can_open_no_more_files_is_started_anew(tmp_path, undisturbed):
    limited = []

    def limit(event):
        if event.kind == "epoch" and event.name.startswith("ticket") and not limited:
            (attempt, *_) = [a for a in begun(tmp_path) if a["run"] == event.name]
            limited.append(attempt["pid"])
            resource.prlimit(attempt["pid"], resource.RLIMIT_NOFILE, (20, 4096))

    with open_client(2, deployment="local") as client:
        results = ran(
            STUDY, client, tmp_path, watch=limit, options=Options(checkpoint_interval=INTERVAL)
        )
        assert limited[0] not in client.run(os.getpid).values()
        assert len(client.nthreads()) == 2
    assert_equal(results, undisturbed)
