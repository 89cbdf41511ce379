"""How many workers a machine has room for, and what becomes of a run where none can live."""

import os
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import dask
import pytest
from distributed import Client, LocalCluster, Status

from lthdask.cluster.queue import Queue, Task
from lthdask.cluster.room import GB, Room, cgroup_limits
from lthdask.cluster.shared_values import NoWorkersError
from lthdask.errors import InputError

ROOMS = [
    (16, 64 * GB, 16),
    (16, 16 * GB, 15),  # 1 GB a core: the command takes some, too
    (2, 2 * GB, 1),
    (8, 4 * GB, 3),
    (8, 1 * GB, 1),
    (1, 64 * GB, 1),
]


@pytest.mark.parametrize(("places", "memory", "workers"), ROOMS)
def test_there_are_no_more_workers_than_memory_has_room_for(places, memory, workers):
    assert Room(places, memory).workers == workers


def test_fewer_workers_than_asked_for_are_explained():
    assert Room(4, 64 * GB).why(4) is None
    assert Room(4, 64 * GB).why(64) == "64 workers are too many; this machine has room for 4"
    by_memory = (
        "4 workers are too many; this machine has room for 2, at 1 GB for each and 1 GB for the "
        "command: it has 3.5 GB"
    )
    assert Room(4, int(3.5 * GB)).why(4) == by_memory


def test_a_run_is_not_started_where_linux_would_end_it_at_once():
    Room(1, GB).require_memory()
    with pytest.raises(InputError, match="takes 1 GB of memory or more; here it may have 0.7 GB"):
        Room(1, int(0.7 * GB)).require_memory()


def test_one_worker_per_gpu_where_there_are_gpus_else_by_cores(monkeypatch):
    monkeypatch.setattr("lthdask.cluster.room.CPU_COUNT", 6)
    monkeypatch.setattr("lthdask.cluster.room.devices", lambda: [])
    assert [Room.here(threads).places for threads in (1, 4, 8)] == [6, 1, 1]
    monkeypatch.setattr("lthdask.cluster.room.devices", lambda: ["0", "3"])
    assert Room.here().places == 2


GROUPS = {
    "a job of version 2": (
        "0::/slurm/job_7",
        {"slurm/job_7/memory.max": 3, "slurm/memory.high": 5},
    ),
    "version 1": ("4:cpu:/a\n3:memory:/jobs/7", {"memory/jobs/7/memory.limit_in_bytes": 3}),
    "version 1 beside others": ("3:cpuset,memory:/x", {"cpuset,memory/memory.limit_in_bytes": 3}),
    "a container": ("0::/", {"memory.max": 3}),
    "a container that sees the host's names": (
        "5:memory:/docker/123",
        {"memory/memory.limit_in_bytes": 3},
    ),
    "no limit": ("0::/user.slice", {"user.slice/memory.max": "max"}),
    "no file": ("0::/user.slice", {}),
}


@pytest.mark.parametrize("what", GROUPS)
def test_the_limits_of_every_control_group_above_this_process_count(tmp_path, what):
    own, files = GROUPS[what]
    (tmp_path / "own").write_text(own + "\n")
    for name, limit in files.items():
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    limits = cgroup_limits(tmp_path / "own", tmp_path / "root")
    assert sorted(limits) == sorted(limit for limit in files.values() if limit != "max")


def test_where_there_are_no_control_groups_none_limits(tmp_path):
    assert list(cgroup_limits(tmp_path / "own", tmp_path)) == []


def test_dask_puts_no_fence_around_local_workers(local_client):
    """It would pause a worker for good whose share is used up."""
    limits = local_client.run(lambda dask_worker: dask_worker.memory_manager.memory_limit)
    assert set(limits.values()) == {None}


def test_where_memory_is_used_up_linux_ends_workers_before_the_command(local_client):
    ours, *theirs = (
        int(Path(f"/proc/{pid}/oom_score_adj").read_text())
        for pid in (os.getpid(), *local_client.run(os.getpid).values())
    )
    assert min(theirs) > ours


@contextmanager
def in_process(workers):
    """A cluster of this process, whose workers have no nanny."""
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address=":0",
        memory_limit=0,  # or a worker that is paused would go on by itself
        silence_logs=50,
    ) as cluster:
        yield cluster


@pytest.mark.parametrize("shared", [(), ("checkpoint",)], ids=["a task", "a shared value"])
def test_a_run_without_workers_ends_and_fails_nothing(shared):
    outcomes = []
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "300 ms"}),
        in_process(0) as cluster,
        Client(cluster) as client,
    ):
        queue = Queue(client)
        queue.share("checkpoint", lambda: 1)
        queue.add(Task("cell", str, shared=shared, then=outcomes.append))
        with pytest.raises(NoWorkersError, match="no worker is left, and none has started"):
            queue.run()
    assert outcomes == []


@pytest.mark.parametrize("workers", [0, 1], ids=["no worker", "one that takes nothing"])
def test_a_run_that_waits_for_workers_can_be_cancelled(workers):
    outcomes = []
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "15 s"}),  # not for ever
        in_process(workers) as cluster,
        Client(cluster, timeout=3600) as client,  # Dask would wait as long
    ):
        client.run(_pause)
        while client.run_on_scheduler(_running):
            pass
        queue = Queue(client)
        queue.share("checkpoint", queue.stop.set)
        queue.add(Task("cell", str, shared=("checkpoint",), then=outcomes.append))
        with pytest.raises(CancelledError):
            queue.run()
    assert outcomes == []


def _pause(dask_worker):
    dask_worker.status = Status.paused


def _running(dask_scheduler):
    return len(dask_scheduler.running)


@pytest.fixture
def lonely():
    """A scheduler with one worker, which may be lost, and a client that Dask soon closes then."""
    _begun.clear()
    _over.clear()
    with dask.config.set({"distributed.comm.timeouts.connect": "300 ms"}), in_process(1) as cluster:
        client = Client(cluster.scheduler_address)
        yield cluster, client
        _over.set()
        client.close()


def test_a_scheduler_that_is_lost_as_values_are_sent_ends_the_run_and_fails_no_task(lonely):
    outcomes, (cluster, client) = [], lonely
    queue = Queue(client)
    queue.share("checkpoint", cluster.close)
    queue.add(Task("cell", str, shared=("checkpoint",), then=outcomes.append))
    with pytest.raises(InputError, match="the scheduler is gone"):
        queue.run()
    assert outcomes == []


def test_a_scheduler_that_is_lost_while_a_task_runs_ends_the_run_and_fails_no_task(lonely):
    outcomes, (cluster, client) = [], lonely
    queue = Queue(client)
    queue.add(Task("cell", _held, then=outcomes.append))
    Thread(target=lambda: (_begun.wait(), cluster.sync(cluster.scheduler.close))).start()
    with pytest.raises(InputError, match="the scheduler is gone"):
        queue.run()
    assert outcomes == []


_begun, _over = Event(), Event()


def _held(here):
    _begun.set()
    _over.wait()
