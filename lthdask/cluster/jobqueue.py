"""dask-jobqueue's clusters, whose jobs may have several workers, and with paths as they are.

Dask replaces a job that is one worker, but never one of several; it counts workers, and to be rid
of one, it ends their whole job. Importing dask-jobqueue changes what Ctrl-C does, so this file is
imported by `jobs` alone, which undoes that.
"""

import asyncio
import copy
import math
import os
import pickle
import re
import shlex
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import dask_jobqueue
from dask.utils import parse_timedelta
from dask_jobqueue.core import Job, JobQueueCluster
from dask_jobqueue.lsf import LSFJob
from distributed.core import Status
from distributed.deploy.adaptive import Adaptive

from lthdask.cluster.places import QUEUES
from lthdask.cluster.workers import job_of

STEP = re.compile(r"^step (\d+)$", re.MULTILINE)
"""What a step says of itself."""


class WholeJobs(Adaptive):  # type: ignore[misc]
    """Adapt the number of jobs, not of workers, to the work."""

    @property
    def plan(self) -> set[str]:
        """Names of the jobs there should be."""
        return set(self.cluster.worker_spec)

    @property
    def requested(self) -> set[str]:
        """Names of the jobs that were submitted."""
        return set(self.cluster.workers)

    @property
    def observed(self) -> set[str]:
        """Names of the jobs with a worker."""
        return {job_of(name) for name in self.cluster.observed}

    async def safe_target(self) -> int:
        """Return how many jobs there should be."""
        workers: int = await super().safe_target()
        return math.ceil(workers / int(self.cluster.workers_of_a_job))

    async def scale_up(self, n: int) -> None:
        """Submit jobs, until there are `n`."""
        self.cluster.scale(jobs=n)

    async def workers_to_close(self, target: int) -> list[str]:
        """Return the jobs without which there are still `target`."""
        names = await self.scheduler.workers_to_close(
            target=target * self.cluster.workers_of_a_job,
            key=pickle.dumps(job_of),
            attribute="name",
        )
        return list({job_of(name) for name in names})

    async def scale_down(self, workers: list[str]) -> None:
        """End jobs; their workers pass on what they hold."""
        names = [name for name in self.cluster.observed if job_of(name) in workers]
        await self.scheduler.retire_workers(names=names, remove=True, close_workers=True)
        await self.cluster.scale_down(workers)


class _Cluster(JobQueueCluster):  # type: ignore[misc]
    @property
    def workers_of_a_job(self) -> int:
        return len(self.new_spec.get("group", [""]))

    def adapt(self, *, minimum: int, maximum: int) -> Any:
        return super().adapt(Adaptive=WholeJobs, minimum=minimum, maximum=maximum)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        gone = self.scheduler_info["workers"][msg]["name"] if op == "remove" else None
        super()._update_worker_status(op, msg)
        if gone is not None:
            self.replace_if_lost(job_of(gone))

    def replace_if_lost(self, name: str) -> None:
        """Replace a job, unless one of its workers is there again in time."""
        if name not in self.workers:
            return
        job = weakref.ref(self.workers[name])  # a closed cluster must not find it alive

        def replace() -> None:
            there = {job_of(worker["name"]) for worker in self.scheduler_info["workers"].values()}
            if job() is not None and job() is self.workers.get(name) and name not in there:
                self._futures.add(asyncio.ensure_future(self.workers.pop(name).close()))

        delay = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        asyncio.get_running_loop().call_later(delay, replace)

    def _get_worker_security(self, security: Any) -> Any:
        """Return where the certificates are, as it stands in the job's script."""
        security = copy.copy(super()._get_worker_security(security))
        for field in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
            setattr(security, field, shlex.quote(getattr(security, field)))
        return security


def cluster_class(queue: str) -> Any:
    """Return the class of a queue's clusters; workers are named after it."""
    theirs = getattr(dask_jobqueue, QUEUES[queue])
    own = {"job_cls": _FromStdin} if queue == "lsf" else {}
    return type(theirs.__name__, (_Cluster, theirs), own)


class _FromStdin(LSFJob):  # type: ignore[misc]
    """A job of LSF, whose script a shell hands over; its path may have spaces."""

    async def _submit_job(self, script_filename: str) -> Any:
        name = shlex.quote(script_filename) if self.use_stdin else script_filename
        return await super()._submit_job(name)


class _Step(Job):  # type: ignore[misc]
    """The workers of one node, as a step of the Slurm job that this process runs in."""

    config_name = "slurm"

    def __init__(self, scheduler: str, name: str, job: str, nodes: list[str], **given: Any) -> None:
        super().__init__(scheduler, name, **given)
        self.job_header, self.job, self.nodes = "", job, nodes
        self.process: Any = None
        self.watched: Any = None
        self.output: Any = None

    async def start(self) -> None:
        node = self.nodes[int(self.name.rpartition("-")[2]) % len(self.nodes)]
        if self.log_directory:
            file = Path(self.log_directory) / f"{self.job_name}-{self.job}-{node}.out"
            self.output = file.open("ab+")
        else:
            self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the step
        # The batch step has all that the job has, and so do steps that overlap it; options that
        # srun would take from the variables of the job are meant for other steps.
        self.process = await asyncio.create_subprocess_exec(
            *("srun", f"--jobid={self.job}", f"--nodelist={node}", "--nodes=1", "--ntasks=1"),
            *("--overlap", "--mpi=none", "--cpu-bind=none"),
            *("bash", "-c", f"echo step $SLURM_STEP_ID\n{self.job_script()}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            start_new_session=True,  # Ctrl-C in a terminal is for the driver
            env={k: v for k, v in os.environ.items() if k == "SLURM_CONF" or k[:6] != "SLURM_"},
        )
        self.watched = asyncio.ensure_future(self._watch())
        self.status = Status.running

    async def _watch(self) -> None:
        await self.process.wait()
        if cluster := self._cluster():
            cluster.replace_if_lost(self.name)

    def why_it_ended(self) -> str:
        """Return the last line of a step that has ended, and nothing before."""
        if self.process is None or self.process.returncode is None or self.output.closed:
            return ""
        lines = self._said().strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.returncode}"

    def _said(self) -> str:
        self.output.seek(0)
        return str(self.output.read(), errors="replace")

    async def close(self) -> None:
        if self.process is None:  # it could not be started
            self.status = Status.closed
            return
        self.watched.cancel()
        found = STEP.findall(self._said())
        if self.process.returncode is None and found:
            # srun, when it is told to end, kills its tasks at once.
            with suppress(RuntimeError, TimeoutError):
                await self._call(["scancel", "--signal=TERM", f"{self.job}.{found[-1]}"])
                await asyncio.wait_for(self.process.wait(), 20)
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        self.output.close()
        self.status = Status.closed


class StepCluster(_Cluster):
    """Workers that are steps of the Slurm job that this process runs in."""

    job_cls = _Step
