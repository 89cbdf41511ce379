"""What a run promises on a real Slurm: bash tests/slurm.sh up && uv run pytest -m slurm.

Two stand-in GPUs on one node; every job is a real one, and the results are compared with
those of workers on this machine, bit for bit.
"""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import dask
import nbformat
import numpy as np
import pytest
import yaml
from distributed import Client
from nbclient import NotebookClient

from lthdask.cluster.client import open_client
from lthdask.cluster.dashboard import crew_of, show_page
from lthdask.cluster.deployment import slurm_answers
from lthdask.cluster.jobs import ask_for_workers
from lthdask.errors import InputError
from lthdask.options import Options, origins_with
from lthdask.report.page.document import page_of
from lthdask.storage.folder import Folder
from tests.conftest import ran
from tests.test_flow import RESULTS, SMALL
from tests.test_page import menu_of
from tests.test_run import SCRIPT

REQUIRED = os.environ.get("LTHDASK_REQUIRE_SLURM") == "1"
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        not REQUIRED and not slurm_answers(), reason="no Slurm answers: bash tests/slurm.sh up"
    ),
]
DOCS = Path(__file__).parent.parent / "docs"
STUDY = SMALL.changed(
    # On a busy machine, what a short measurement chooses may differ from run to run.
    {"grid.replicates": "1", "grid.thresholds": "0.5,0.8,0.9,0.95", "engine.precision": "float32"}
)


@pytest.fixture
def cluster_file(tmp_path):
    """Return a function that writes a cluster file for this Slurm."""

    def write(**changes):
        section = {
            "name": f"lthdask-{os.getpid()}",
            "cores": 1,
            "processes": 1,
            "job-cpu": 1,
            "memory": "2GB",
            "walltime": "00:30:00",
            "interface": "lo",
            "job-extra-directives": ["--gres=gpu:1", "--no-requeue"],
            "log-directory": str(tmp_path / "logs"),
            "shared-temp-directory": str(tmp_path / "tls"),
        }
        patience = changes.pop("patience", "2 minutes")
        path = tmp_path / "cluster.yaml"
        ours = {"patience": patience, "checkpoint-interval": "5 seconds"}
        values = {"lthdask": ours, "jobqueue": {"slurm": section | changes}}
        path.write_text(yaml.safe_dump(values))
        (tmp_path / "logs").mkdir(exist_ok=True)
        return path

    yield write
    until(lambda: not jobs(), "jobs were left in the queue")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of the study on workers of this machine."""
    with open_client(2, deployment="local") as client:
        return ran(STUDY, client, tmp_path_factory.mktemp("undisturbed"))


def jobs(state="all"):
    """The numbers of this test's jobs in the queue."""
    asked = ["squeue", "-h", "-o", "%i", f"--name=lthdask-{os.getpid()}", f"--states={state}"]
    if state == "all":
        asked[-1] = "--states=PENDING,RUNNING,CONFIGURING"
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


def until(condition, otherwise, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)


def assert_equal(results, undisturbed):
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, undisturbed[name].values)


def test_a_study_on_two_gpu_jobs_equals_one_on_this_machine(cluster_file, tmp_path, undisturbed):
    during_dense = []

    def watch(event):
        if event.kind == "epoch" and event.name.startswith("dense"):
            during_dense.append(len(jobs()))

    with open_client((2, 2), cluster=cluster_file(), deployment="slurm") as client:
        results = ran(STUDY, client, tmp_path / "run", watch=watch)
        client.wait_for_workers(2, timeout=90)
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        daemons = client.run(lambda: os.environ["DASK_CONFIG"])
        sampled = client.run(dask.config.get, "distributed.worker.profile.interval")
    assert sorted(seen.values()) == ["0", "1"]
    assert set(daemons.values()) == {str(tmp_path / "cluster.yaml")}
    assert set(sampled.values()) == {"100 ms"}
    assert set(during_dense) == {1}  # no GPU is held while only the dense run can work
    assert all("cpu job " in str(place) for place in results.place.values.ravel())
    assert_equal(results, undisturbed)


def test_a_worker_that_is_cancelled_in_a_cell_is_replaced_and_nothing_is_lost(
    cluster_file, tmp_path, undisturbed
):
    cancelled = []

    def watch(event):
        if event.kind == "epoch" and event.name.startswith("ticket") and not cancelled:
            cancelled.extend(jobs("RUNNING")[:1])
            subprocess.run(["scancel", *cancelled], check=True)

    with open_client(1, cluster=cluster_file(), deployment="slurm") as client:
        results = ran(STUDY, client, tmp_path / "run", watch=watch)
    assert cancelled
    assert results.attempts.max() > 1
    assert_equal(results, undisturbed)


def test_a_study_longer_than_the_wall_time_completes_over_several_jobs(cluster_file, tmp_path):
    long = STUDY.changed({"recipe.epochs": "24", "grid.rewind_epochs": "0,1,2,3"})
    path = cluster_file(walltime="00:01:00")
    with open_client(1, cluster=path, deployment="slurm") as client:
        results = ran(long, client, tmp_path / "run", options=Options(checkpoint_interval=5))
    assert (results.status == 1).all()
    assert len({str(place) for place in results.place.values.ravel()}) > 1
    # What the end of a job interrupted, if none was between two cells, went on in the next, and
    # not from its start.
    folder = Folder(tmp_path / "run")
    runs = [folder.runs.attempts(place.name) for place in (tmp_path / "run" / "cells").iterdir()]
    again = [attempts for attempts in runs if len(attempts) > 1]
    for first, *rest in again:
        assert all((a["epoch"], a["step"]) > (first["epoch"], first["step"]) for a in rest)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_driver_leaves_no_job_behind(cluster_file, tmp_path, how):
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.changed({"recipe.epochs": "40"}).to_yaml())
    arguments = ["--study", study, "--out", tmp_path / "run", "--workers", "2", "--deploy", "slurm"]
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *arguments, "--cluster", cluster_file(**{"death-timeout": 60})],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if "cells to train" in line:
            break
    assert jobs()
    process.send_signal(how)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), output
    # Without a driver, workers leave when they miss the scheduler.
    until(lambda: not jobs(), f"jobs were left after {how!r}", 120 if how == signal.SIGKILL else 20)


def test_the_page_of_the_grid_is_the_first_in_the_menu_beside_queued_jobs(cluster_file, tmp_path):
    with open_client(1, cluster=cluster_file(), deployment="slurm") as client:
        show_page(client, partial(page_of, tmp_path / "run"), origins_with([]))
        port = client.cluster.scheduler.http_server.port
        for name in ("grid", "status"):
            assert menu_of(port, name)[:2] == ["grid", "status"]
        assert [worker["name"] for worker in crew_of(client.cluster.scheduler)] == [
            "SLURMCluster-0"
        ]


WHOLE_NODE = {"processes": 2, "cores": 2, "job-cpu": 2, "memory": "4GB"}


def processes_and_gpus(client):
    """The process of each worker, and the devices it sees, by its name."""
    found = client.run(
        lambda dask_worker: (dask_worker.name, os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]),
        on_error="ignore",
    )
    return {name: pid for name, pid, _ in found.values()}, {n: gpu for n, _, gpu in found.values()}


def test_each_worker_of_a_whole_node_job_has_a_gpu_of_its_own_whatever_dies(cluster_file):
    path = cluster_file(**WHOLE_NODE, **{"job-extra-directives": ["--gres=gpu:2"]})
    each = {"SLURMCluster-0-0": "0", "SLURMCluster-0-1": "1"}
    said = []
    with open_client(1, cluster=path, deployment="slurm", say=said.append) as client:

        def replaced(lost):
            there = set(processes_and_gpus(client)[0].values())
            return len(there) == 2 and not lost & there

        client.wait_for_workers(2, timeout=90)
        pids, gpus = processes_and_gpus(client)
        assert gpus == each
        assert set(client.nthreads().values()) == {1}
        os.kill(pids["SLURMCluster-0-1"], signal.SIGKILL)
        until(lambda: replaced({pids["SLURMCluster-0-1"]}), "the worker was not replaced")
        pids, gpus = processes_and_gpus(client)
        assert gpus == each
        subprocess.run(["scancel", *jobs()], check=True)
        until(lambda: replaced(set(pids.values())), "the job was not replaced")
        assert processes_and_gpus(client)[1] == each
        assert len(jobs()) == 1
    assert "2 workers in place of 1, because a job has 2 (processes)" in said


def test_a_job_with_more_gpus_than_workers_is_said(cluster_file):
    said = []
    path = cluster_file(**{"job-extra-directives": ["--gres=gpu:2"]})
    with open_client(1, cluster=path, deployment="slurm", say=said.append):
        pass
    assert "some GPUs are idle: a job has 2 of them, but processes is 1" in said


def test_jobs_of_several_workers_come_and_go_whole(cluster_file):
    path = cluster_file(**WHOLE_NODE | {"job-cpu": 1}, **{"job-extra-directives": []})
    with open_client((1, 3), cluster=path, deployment="slurm") as client:
        ask_for_workers(client, 40)
        tasks = client.map(lambda i: time.sleep(1), range(200), pure=False)
        until(lambda: len(client.nthreads()) == 4, "three workers are two jobs of two")
        both, began = jobs("RUNNING"), sum(task.done() for task in tasks)
        until(lambda: sum(task.done() for task in tasks) > began + 30, "no task ends")
        assert (jobs("RUNNING"), len(client.nthreads())) == (both, 4)
        client.cancel(tasks)
        until(lambda: len(client.nthreads()) == 2, "the idle job is still there")
        (left,) = jobs("RUNNING")
        assert left in both


def test_paths_in_job_scripts_are_taken_as_they_are(cluster_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    strange = tmp_path / "b $(touch owned) c"
    folders = {"log-directory": strange / "logs", "shared-temp-directory": strange / "tls"}
    path = cluster_file(**{key: str(folder) for key, folder in folders.items()})
    with open_client(1, cluster=path, deployment="slurm") as client:
        assert client.nthreads()
    assert not list(tmp_path.rglob("owned"))
    assert len(list((strange / "logs").glob("*.err"))) == 1


def test_traffic_is_encrypted_and_a_client_without_the_certificate_is_refused(cluster_file):
    with open_client(1, cluster=cluster_file(), deployment="slurm") as client:
        address = client.scheduler.address
        assert address.startswith("tls://")
        assert all(worker.startswith("tls://") for worker in client.nthreads())
        for other in (address, address.replace("tls://", "tcp://")):
            with pytest.raises((OSError, TypeError, ValueError)):
                Client(other, timeout="5s")
        files = list((cluster_file().parent / "tls").iterdir())
        assert files
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_what_listens_is_tls_or_on_the_loopback_interface(cluster_file):
    listening = "ss -Hltnp | awk '{print $4, $6}'"
    with open_client(1, cluster=cluster_file(), deployment="slurm"):
        lines = subprocess.run(listening, shell=True, capture_output=True, text=True).stdout
    ours = [line for line in lines.splitlines() if "python" in line]
    assert ours
    assert all(line.startswith("127.0.0.1:") for line in ours), ours


def test_the_end_of_patience_is_a_clear_error_and_the_job_is_cancelled(cluster_file):
    path = cluster_file(
        patience="6s", **{"job-extra-directives": ["--gres=gpu:1", "--begin=now+1hour"]}
    )
    said = []
    problem = r"no worker has started within .*\(1 PENDING \(BeginTime\)\)"
    with pytest.raises(InputError, match=problem):
        open_client(1, cluster=path, deployment="slurm", say=said.append)
    assert any("waiting for the queue: 1 PENDING" in line for line in said)
    until(lambda: not jobs(), "the job is still in the queue", 20)


def test_a_job_that_fits_nowhere_is_said_not_to_start(cluster_file):
    path, said = cluster_file(patience="3s", **{"job-cpu": 64}), []
    with pytest.raises(InputError, match="no worker has started"):
        open_client(1, cluster=path, deployment="slurm", say=said.append)
    assert any("(PartitionConfig); such a job does not start: compare" in line for line in said)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_of_a_login_node_trains_in_jobs_and_leaves_none(cluster_file, tmp_path):
    """It is kept as it ran, for the documentation that is built next."""
    notebook = nbformat.read(DOCS / "notebooks" / "cluster.ipynb", 4)
    cluster_file()
    path = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, resources=path).execute()
    assert not jobs()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert "lthdask-" in outputs["queue"][0].text
    assert outputs["place"][0].data["text/html"].count("cpu job ") == 6
    assert "done, 6/6 cells in " in outputs["grow"][0].data["text/plain"]
    (DOCS / "_build").mkdir(exist_ok=True)
    nbformat.write(notebook, DOCS / "_build" / "cluster.ipynb")
