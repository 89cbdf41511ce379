"""Workers that cannot live, for want of memory or otherwise: uv run pytest -m faults."""

import os
import resource
import signal
import sys
import threading
from contextlib import suppress

import dask
import psutil
import pytest
from distributed import WorkerPlugin

from lthdask.cluster.client import open_client
from lthdask.errors import InputError
from lthdask.flow import run
from tests.test_faults import meanwhile
from tests.test_flow import TINY
from tests.test_run import start

pytestmark = pytest.mark.faults


def test_the_first_command_ends_where_memory_is_small_for_the_cores(tmp_path):
    """Dask paused its workers there for good, as torch never gives memory back."""

    def limit():
        resource.setrlimit(resource.RLIMIT_RSS, (2 * 10**9, 2 * 10**9))

    few = ["--thresholds", "0.5,0.8", "--rewind-epochs", "0", "--epochs", "2", "--workers", "2"]
    process = start(*few, "--out", tmp_path / "run", preexec_fn=limit)
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert "2 workers are too many; this machine has room for 1, at 1 GB for each" in output
    assert "2/2 cells" in output


class DiesLookingAround(WorkerPlugin):
    """Every worker dies as it reads the data."""

    def setup(self, worker):
        def hook(event, arguments):
            if event == "open" and "digits.csv" in str(arguments[0]):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)


def test_a_look_around_that_kills_every_worker_ends_in_a_sentence(tmp_path):
    with open_client(2, deployment="local") as client:
        client.register_plugin(DiesLookingAround())
        with pytest.raises(InputError, match="worker after worker died as it looked around"):
            run(TINY, client, tmp_path)
        allowed = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures)
    assert allowed == 1000, "a cell is not to blame for the worker it was on"


@pytest.fixture
def deadly():
    """While this event is set, whatever has been forked since dies at once."""
    now, over = threading.Event(), threading.Event()
    spared = {worker.pid for worker in psutil.Process().children(recursive=True)}

    def kill():
        while not over.wait(0.02):
            for server in psutil.Process().children() if now.is_set() else []:
                with suppress(psutil.NoSuchProcess):
                    for worker in server.children():
                        if worker.pid not in spared:
                            worker.kill()

    with meanwhile(kill):
        yield now
        over.set()


def test_workers_that_die_as_they_start_end_the_run_in_a_sentence(deadly, tmp_path):
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "3 s"}),
        open_client(2, deployment="local") as client,
    ):
        deadly.set()
        with pytest.raises(InputError, match="no worker is left, and none has started"):
            run(TINY, client, tmp_path)


def test_a_client_whose_workers_die_as_they_start_is_not_opened(deadly):
    deadly.set()
    with (
        pytest.raises(InputError, match="workers of this machine end as they start"),
        open_client(2, deployment="local"),
    ):
        pass
