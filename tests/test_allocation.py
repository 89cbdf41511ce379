"""What a run promises inside an allocation of a real Slurm: bash tests/slurm.sh up first.

Batch scripts on one or two nodes with two stand-in GPUs each; the driver runs in the script.
"""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from lthdask.cluster.allocation import Allocation
from tests.conftest import everything
from tests.test_slurm import STUDY, assert_equal, cluster_file, pytestmark, undisturbed, until

__all__ = ["cluster_file", "pytestmark", "undisturbed"]

TEXT = (
    "JobId=17 JobName=grid UserId=me(7) JobState={} Reason=None TimeLimit=1-00:00:00 "
    "StartTime=2026-11-25T17:16:59 EndTime={} NodeList=node[01-02,07] NumNodes=3 "
    "TRES=cpu=160,mem=960G,node=3,gres/gpu=12 JOB_GRES=gpu:a100:12 "
    "Nodes=node[01-02] CPU_IDs=0-63 Mem=320000 GRES=gpu:a100:4(IDX:0-3) "
    "Nodes=node07 CPU_IDs=0-15,32-47 Mem=320000 GRES=gpu:a100:4(IDX:0-3),nvme:1 "
    "MinCPUsNode=1 Command=./Nodes=3 TresPerNode=gres:gpu:4"
)


def test_an_allocation_is_what_slurm_says_of_it():
    nodes = ("node01", "node02", "node07")
    unlimited = Allocation("17", nodes, cpus=32, gpus=4, ends=None)
    assert Allocation.parse("17", TEXT.format("RUNNING", "Unknown")) == unlimited
    limited = Allocation.parse("17", TEXT.format("RUNNING", "2026-11-26T17:16:59"))
    started = Allocation.parse("17", TEXT.format("RUNNING", "2026-11-25T17:16:59"))
    assert limited.ends - started.ends == 86400
    assert Allocation.parse("17", TEXT.format("COMPLETED", "Unknown")) is None


@pytest.fixture
def batch(tmp_path):
    """Return a function that submits a batch script, and waits for nothing."""

    def submit(*command, minutes=10, nodes=1):
        script = tmp_path / "run.sh"
        script.write_text(
            f"#!/bin/bash\n#SBATCH --gres=gpu:2 --cpus-per-task=2 --mem=4G --time={minutes}\n"
            f"#SBATCH --nodes={nodes} --ntasks-per-node=1\n"
            f"#SBATCH --job-name=lthdask-{os.getpid()}\n#SBATCH --output={tmp_path}/said\n"
            f"exec {' '.join(map(str, command))}\n"
        )
        return subprocess.Popen(["sbatch", "--wait", script], cwd=tmp_path)

    return submit


def said(tmp_path):
    return (tmp_path / "said").read_text()


def workers_of(name):
    """The processes that train in the jobs of this name."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = process.environ().get("SLURM_JOB_NAME") == "bash"
            if (
                inside
                and "spawn_main" in str(process.cmdline())
                and name in str(process.parent().cmdline())
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_batch_script_trains_a_study_to_its_end_though_a_worker_is_killed(
    batch, cluster_file, tmp_path, undisturbed
):
    (tmp_path / "study.yaml").write_text(STUDY.to_yaml())
    command = [sys.executable, "-m", "lthdask", "run", "--study", "study.yaml", "--out", "run"]
    running = batch(*command, "--deploy", "srun", "--cluster", cluster_file())
    until(lambda: list(tmp_path.glob("run/cells/ticket*")), "no cell has begun", 180)
    (log,) = (tmp_path / "logs").glob("*.out")
    killed, *_ = workers_of(str(tmp_path / "tls"))
    killed.send_signal(signal.SIGKILL)
    assert running.wait(300) == 0, said(tmp_path)
    assert "Restarting worker" in log.read_text()
    assert log.read_text().count("Start worker at:      tls://") == 3
    assert "Killed" not in log.read_text()  # all others left in order
    results = everything(tmp_path / "run")
    assert len({str(place) for place in results.place.values.ravel()}) == 1  # nothing was queued
    assert_equal(results, undisturbed)


def test_a_driver_and_its_workers_end_before_the_allocation(batch, cluster_file, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY.changed({"recipe.epochs": "500"}).to_yaml())
    command = [sys.executable, "-m", "lthdask", "run", "--study", "study.yaml", "--out", "run"]
    running = batch(*command, "--deploy", "srun", "--cluster", cluster_file(), minutes=1)
    assert running.wait(180) == 130, said(tmp_path)
    assert "the allocation ends in " in said(tmp_path)
    assert "stopped; the same command picks up where it left off" in said(tmp_path)
    assert "Killed" not in next((tmp_path / "logs").iterdir()).read_text()
    assert not list((tmp_path / "tls").iterdir())


DRIVER = """
import json, os, signal, sys, time
import lthdask

def workers(client):
    ask = lambda dask_worker: (
        dask_worker.name,
        [os.environ["SLURMD_NODENAME"], os.environ["CUDA_VISIBLE_DEVICES"]],
        os.getppid(),
    )
    return sorted(client.run(ask, on_error="ignore").values())

with lthdask.open_client(say=print) as client:
    client.wait_for_workers(4)
    before = workers(client)
    assert all(address.startswith("tls://") for address in client.nthreads())
    os.kill(before[-1][2], signal.SIGKILL)  # it has started all workers of the second node
    while len(client.nthreads()) > 2:
        time.sleep(0.1)
    client.wait_for_workers(4, timeout=90)
    after = workers(client)
print(json.dumps([{name: of for name, of, _ in some} for some in (before, after)]))
print(before[0][2] == after[0][2], before[-1][2] == after[-1][2])
"""


def test_every_gpu_of_every_node_has_a_worker_and_a_step_that_dies_is_replaced(batch, tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    assert batch(sys.executable, "driver.py", nodes=2).wait(180) == 0, said(tmp_path)
    assert "training in this allocation, because the Slurm job" in said(tmp_path)  # auto
    each = {f"StepCluster-{i}-{j}": [f"n{i + 1}", str(j)] for i in (0, 1) for j in (0, 1)}
    *_, seen, same = said(tmp_path).splitlines()
    assert json.loads(seen) == [each, each]
    assert same == "True False"


def test_the_reason_why_srun_starts_nothing_is_told(batch, cluster_file, tmp_path):
    path = cluster_file(python="/nowhere/python")
    command = [sys.executable, "-m", "lthdask", "run", "--deploy", "srun", "--cluster", path]
    assert batch(*command).wait(120) == 2, said(tmp_path)
    assert "error: srun has ended before a worker was there: " in said(tmp_path)
