"""What cluster.yaml and opening a client promise, on a machine without any queue."""

import gc
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import dask
import psutil
import pytest
import yaml
from distributed import Client

from lthdask.cluster.allocation import Allocation
from lthdask.cluster.calls import FailedError
from lthdask.cluster.client import collecting_rarely, open_client
from lthdask.cluster.deployment import choose
from lthdask.cluster.excluding import exclude_node
from lthdask.cluster.job_script import SCRATCH
from lthdask.cluster.jobs import _queue_cluster, ask_for_workers, job_script, order_workers
from lthdask.cluster.places import tunnel
from lthdask.cluster.settings import Settings, _known
from lthdask.cluster.sick_places import SickPlaces
from lthdask.cluster.values import problem_of, seconds
from lthdask.cluster.workers import Prepare, devices
from lthdask.errors import InputError

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "cluster.yaml"


def test_the_shipped_file_is_valid_and_every_key_has_a_comment():
    assert Settings.read(SHIPPED).deployment == "auto"
    lines = [line.strip() for line in SHIPPED.read_text().splitlines()]
    sections = {"lthdask:", "jobqueue:", "slurm:", "distributed:", "comm:", "timeouts:"}
    for before, line in pairwise(lines):
        if ":" in line and line not in sections and not line.startswith("#"):
            assert before.startswith("#") or line.startswith(("account", "memory", "tcp")), line


WRONG = [
    (
        "lthdask: {deploiment: local}",
        1,
        "unknown key 'lthdask.deploiment'; did you mean 'lthdask.deployment'?",
    ),
    ("lthdask: {deployment: slum}", 1, "lthdask.deployment must be one of auto, local"),
    (
        "\njobqueue:\n  slrum: {cores: 1}",
        3,
        "unknown key 'jobqueue.slrum'; did you mean 'jobqueue.slurm'?",
    ),
    ("jobqueue:\n  slurm:\n    walltme: '01:00:00'", 3, "did you mean 'jobqueue.slurm.walltime'?"),
    (
        "jobqueue:\n  slurm:\n    walltime: 4 hours",
        3,
        "a wall-time must be [days-]hours:minutes:seconds",
    ),
    ("jobqueue:\n  slurm:\n    walltime: 43200", 3, 'must be text such as "04:00:00"'),
    (
        "jobqueue:\n  pbs:\n    cores: many",
        3,
        "jobqueue.pbs.cores must be a whole number above 0; got 'many'",
    ),
    (
        "jobqueue:\n  pbs:\n    memory: lots",
        3,
        "memory must be a size, such as 32GiB; got 'lots'",
    ),
    ("jobqueue:\n  slurm:\n    job-extra-directives: --gres=gpu:1", 3, "must be a list"),
    ("jobqueue:\n  my-gpus: {cores: 1}", 2, "unknown key 'jobqueue.my-gpus'; known: slurm, pbs"),
    ("jobqueue:\n  slurm: 3", 2, "jobqueue.slurm must be a section of keys and values"),
    ("distributed:\n  schedular: {}", 2, "did you mean 'distributed.scheduler'?"),
    ("distributed:\n  comm:\n    timeout: {}", 3, "did you mean 'distributed.comm.timeouts'?"),
    ("lthdask: {patience: for ever}", 1, "lthdask.patience must be a time, such as 30 seconds"),
    ("lthdask: {checkpoint-interval: often}", 1, "checkpoint-interval must be a time"),
    (
        "lthdask: {checkpoint-interval: 9 minutes}\njobqueue:\n  slurm: {walltime: '00:10:00'}",
        None,
        "every 540 s (lthdask.checkpoint-interval) is never saved by workers that may leave "
        "after 510 s (jobqueue.slurm: 600 s of wall-time - 60 s - 30 s of staggering)",
    ),
    (
        "jobqueue:\n  pbs: {worker-extra-args: [--lifetime, 60s, --lifetime-stagger, 5s]}",
        None,
        "leave after 55 s (jobqueue.pbs: 60 s - 5 s of staggering)",
    ),
    ("a: [", 1, "expected the node content"),
    ("distributed: &a {}\ndask: *a", 2, "write out the value of the alias *a"),
    *(
        ("jobqueue:\n  slurm:\n    " + line, 3, problem)
        for line, problem in {
            "memory: []": "must be one value; got []",
            "memory: -5GB": "must be a size, such as 32GiB, more than 0; got '-5GB'",
            "memory: 0": "more than 0; got 0",
            "job-script-prologue: [[a]]": "must hold texts, not ['a']",
            "interface: 3": "must be text; got 3",
            "death-timeout: 0": "must be a time, such as 30 seconds, more than 0",
            "processes: yes": "must be a whole number above 0; got 'yes'",
        }.items()
    ),
    *(
        (f"lthdask: {{{value}}}", 1, problem)
        for value, problem in {
            "patience: []": "must be one value",
            "patience: .inf": "must be a time",
            "checkpoint-interval: 0": "more than 0; got 0",
            "scheduler: 5": "must be text; got 5",
            "scheduler: ''": "must not be empty",
        }.items()
    ),
    *(
        (f"distributed:\n  {line}", 2, problem)
        for line, problem in {
            "scheduler: {worker-ttl: soon}": "worker-ttl must be a time",
            "scheduler: {work-stealing: no}": "must be true or false; got 'no'",
            "scheduler: {allowed-failures: -1}": "must be a number, 0 or more",
            "adaptive: {maximum: .nan}": "must be a number, 0 or more",
            "comm: {timeouts: {connect: -3}}": "connect must be a time",
            "worker: {memory: {spill: most}}": "must be a number, 0 or more; got 'most'",
            "worker: {preload: mine}": "must be a list",
            "nanny: {environ: 3}": "must be a section of keys and values",
        }.items()
    ),
    *(
        (f"jobqueue:\n  slurm:\n    {line}", 3, problem)
        for line, problem in {
            "queue: 008": "jobqueue.slurm.queue is a name; put quotes around it, as in '008'",
            "account: 00123": "as in '00123'",
            "memory: 32": "with a unit; this one is 32 bytes",
            "job-mem: 40 GB": "stands in the job script as it is, where no space may be",
        }.items()
    ),
    (
        "lthdask:\n  checkpoint-interval: 9\n  checkpoint_interval: 8",
        3,
        "lthdask.checkpoint-interval is given twice, with - and with _",
    ),
    (
        "jobqueue:\n  pbs: {worker-extra-args: [--lifetime, soon]}",
        None,
        "jobqueue.pbs.worker-extra-args has a lifetime that is no time",
    ),
    ("[]", None, "a cluster file must be a mapping of sections"),
]


def test_every_default_of_dask_and_its_queues_may_be_written_into_the_file():
    def values(known, prefix=""):
        for key, default in known.items():
            if isinstance(default, dict) and default:
                yield from values(default, f"{prefix}{key}.")
            else:
                yield prefix + key, default

    refused = {
        key: problem
        for key, default in values(_known())
        if (problem := problem_of(key, default, default))
    }
    assert refused == {}


def test_what_another_kind_of_value_means_to_dask_is_taken(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "jobqueue:\n"
        "  slurm: {walltime: 12:00:00, queue: 5, worker-extra-args: [--nthreads, 2]}\n"
        "  lsf: {walltime: '00:30'}\n"
        "distributed:\n"
        "  scheduler: {bandwidth: 100MB}\n"
        "  worker: {memory: {target: false}, resources: {GPU: 1}}\n"
        "  comm: {compression: zlib, offload: false, zstd: {threads: -1}}\n"
    )
    for line in ("scheduler: {worker-saturation: inf}", "adaptive: {maximum: .inf}"):
        (tmp_path / "d.yaml").write_text(f"distributed:\n  {line}\n")
        Settings.read(tmp_path / "d.yaml")
    settings = Settings.read(tmp_path / "c.yaml")
    assert settings.queue("slurm")["walltime"] == "12:00:00"
    assert settings.queue("slurm")["worker_extra_args"] == ["--nthreads", "2"]


def test_nothing_in_a_section_of_a_queue_is_dropped(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "lthdask: {checkpoint-interval: null, patience: null, deployment: null}\n"
        "jobqueue:\n"
        "  slurm:\n"
        "    memory: 4GiB\n"
        "    walltime: 04:00:00\n"
        "    account: 123\n"
        "    env-extra: [export OLD=1]\n"
        "    job-script-prologue: [export NEW=1]\n"
        "    job-extra: [--gres=gpu:1]\n"
        "    worker-extra-args: [--lifetime=30m]\n"
        "    scheduler-options: {idle_timeout: 1h}\n"
        f"    shared-temp-directory: {tmp_path}\n"
        f"    log-directory: {tmp_path}\n"
    )
    settings = Settings.read(tmp_path / "c.yaml")
    assert settings == replace(Settings(), file=tmp_path / "c.yaml", values=settings.values)
    assert settings.lifetime("slurm") == (1800, 0)
    script = job_script(settings, "slurm")
    for line in ("export OLD=1", "export NEW=1", "#SBATCH --gres=gpu:1", "#SBATCH -A 123"):
        assert line in script.splitlines()


@pytest.mark.parametrize(("text", "line", "problem"), WRONG, ids=[w[2] for w in WRONG])
def test_a_cluster_file_is_checked_whole_with_the_line_and_the_nearest_key(
    tmp_path, text, line, problem
):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Settings.read(path)
    assert problem in str(error.value)
    if line:
        assert f"c.yaml, line {line}: " in str(error.value)


def test_free_sections_take_any_key(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("distributed: {nanny: {pre-spawn-environ: {OMP_NUM_THREADS: 2, MINE: 1}}}")
    assert Settings.read(path).values["distributed"]["nanny"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("04:00:00", 14400), ("2-12:00:00", 216000), ("90:00", 5400), ("00:00:59", 59)],
)
def test_wall_times_are_read_as_slurm_reads_them(text, expected):
    assert seconds(text) == expected


def test_the_slurm_job_is_one_gpu_one_worker_one_thread_with_tls_and_a_lifetime():
    script = job_script(Settings.read(SHIPPED), "slurm")
    for line in (
        "#SBATCH -J lthdask",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=32G",
        "#SBATCH -t 04:00:00",
        "#SBATCH --no-requeue",
        f"export DASK_CONFIG={SHIPPED}",
        "export MALLOC_TRIM_THRESHOLD_=",
        "export DASK_DISTRIBUTED__WORKER__PROFILE__INTERVAL='100 ms'",
    ):
        assert line in script.splitlines() or line in script
    command = script.splitlines()[-1] or script.splitlines()[-2]
    assert "--nthreads 1 " in command
    assert "--tls-cert" in command
    assert "--death-timeout 600" in command
    # 4 h less a tenth, at most ten minutes; give or take five.
    assert "--lifetime 13800s --lifetime-stagger 300s" in command
    assert command.rindex("--memory-limit 0") > command.index("--memory-limit 32.00GiB")


def test_a_whole_node_is_one_job_whose_cores_and_memory_its_workers_share(tmp_path):
    path = tmp_path / "c.yaml"
    section = f"processes: 4, memory: 128GiB, shared-temp-directory: {tmp_path}"
    path.write_text(f"jobqueue: {{slurm: {{{section}}}}}")
    script = job_script(Settings.read(path), "slurm", threads=8)
    assert "#SBATCH --cpus-per-task=32\n#SBATCH --mem=128G" in script
    assert "--nthreads 1 --memory-limit 32.00GiB --nworkers 4 " in script
    path.write_text(f"jobqueue: {{slurm: {{cores: 64, {section}}}}}")
    assert "--nworkers 4 " in (script := job_script(Settings.read(path), "slurm"))
    assert script.split("--nthreads ")[-1].startswith("1 ")
    path.write_text(f"jobqueue: {{slurm: {{cores: 1, {section}}}}}")
    with pytest.raises(InputError, match="cores is 1, but each of its 4 .* set cores: 4, or leave"):
        job_script(Settings.read(path), "slurm")


HOSTILE = "b $(touch owned) `touch owned` 'c'; touch owned #\" d"


@pytest.mark.parametrize("queue", ["slurm", "pbs", "sge", "lsf"])
def test_no_path_or_value_in_a_job_script_runs_a_command(tmp_path, monkeypatch, queue):
    """The script is run as a node would, with a Python that notes its arguments."""
    strange = tmp_path / HOSTILE
    strange.mkdir()
    python = strange / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$DASK_CONFIG" > "$NOTES"\n')
    python.chmod(0o700)
    folders = {f"{key}-directory": str(strange / key) for key in ("log", "local", "shared-temp")}
    names = dict.fromkeys(("name", "queue"), f"7 {HOSTILE}")
    extra = {"worker-extra-args": ["--preload", "'$(touch owned);'", "--resources", "$SOME=1"]}
    section = {"memory": "1GB", **folders, **names, **extra}
    file = strange / "c.yaml"
    file.write_text(yaml.safe_dump({"jobqueue": {queue: section}}))
    monkeypatch.setattr(sys, "executable", str(python))
    environment = os.environ | {"NOTES": str(tmp_path / "notes"), "SOME": "a"}
    arguments = {"cwd": tmp_path, "env": environment, "check": True}
    scripts = [job_script(Settings.read(file), queue)]
    file.write_text(yaml.safe_dump({"jobqueue": {queue: {**section, "python": str(python)}}}))
    scripts.append(job_script(Settings.read(file), queue))
    for script in scripts:
        subprocess.run(["bash", "-c", script], **arguments)
        noted = (tmp_path / "notes").read_text().splitlines()
        taken = dict(pairwise(noted))
        assert taken["--local-directory"] == folders["local-directory"]
        assert Path(taken["--tls-cert"]).parent == strange / "shared-temp"
        assert taken["--preload"] == "$(touch owned);"
        assert taken["--resources"] == "a=1"
        assert noted[-1] == str(file)
    assert not list(tmp_path.rglob("owned"))


def test_what_would_begin_a_new_line_of_a_job_script_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "c.yaml"
    for key in ("name", "queue", "account", "log-directory", "shebang"):
        path.write_text(yaml.safe_dump({"jobqueue": {"slurm": {key: "a\ntouch owned"}}}))
        with pytest.raises(InputError, match=f"jobqueue.slurm.{key} must be one line"):
            Settings.read(path)
    path.write_text('jobqueue: {slurm: {job-extra-directives: ["-x a\\ntouch owned"]}}')
    with pytest.raises(InputError, match="job-extra-directives must hold single lines"):
        Settings.read(path)
    path.write_text("jobqueue: {slurm: {memory: 1GB, log-directory: logs}}")
    (tmp_path / "a\nb").mkdir()
    monkeypatch.chdir(tmp_path / "a\nb")
    with pytest.raises(InputError, match="cannot hold a path with a line break"):
        job_script(Settings.read(path), "slurm")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder for another user")
def test_a_job_uses_no_folder_that_another_user_has_made(tmp_path):
    script = "\n".join([*SCRATCH, 'echo "$DASK_TEMPORARY_DIRECTORY"'])

    def taken() -> Path:
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        done = subprocess.run(["bash", "-c", script], env=environment, stdout=subprocess.PIPE)
        return Path(done.stdout.decode().strip())

    first = taken()
    assert first.stat().st_mode & 0o777 == 0o700
    assert taken() == first
    os.chown(first, 65534, -1)
    assert taken() != first
    assert taken().stat().st_uid == 0
    assert "DASK_TEMPORARY_DIRECTORY" in job_script(Settings.read(SHIPPED), "slurm")


def test_what_the_file_says_of_sampling_reaches_the_workers_of_a_queue(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(SHIPPED.read_text() + "\n  worker: {profile: {interval: 1 s}}\n")
    script = job_script(Settings.read(path), "slurm")
    assert "export DASK_DISTRIBUTED__WORKER__PROFILE__INTERVAL='1 s'" in script


def test_local_workers_are_sampled_rarely(local_client):
    every = local_client.run(dask.config.get, "distributed.worker.profile.interval")
    assert set(every.values()) == {"100 ms"}


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """Scripts in the order in which they are submitted, to a Slurm that starts none of them."""
    for name, does in (
        (
            "sbatch",
            f'if [ "$1" = --test-only ]; then test ! -e {tmp_path}/refuses; exit; fi\n'
            f"cat $1 >> {tmp_path}/scripts; echo ------ >> {tmp_path}/scripts; echo job 7",
        ),
        ("scancel", f"echo $1 >> {tmp_path}/cancelled"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return lambda: (tmp_path / "scripts").read_text().split("------\n")[:-1]


@pytest.mark.parametrize(
    ("given", "excluded"),
    [([], "node7"), (["-x node[1-4]"], "node[1-4],node7"), (["--exclude=a,b"], "a,b,node7")],
)
def test_no_job_starts_on_a_node_that_was_left_out(tmp_path, submitted, given, excluded):
    path = tmp_path / "c.yaml"
    section = {"memory": "1GB", "job-extra-directives": given, "interface": "lo"}
    section["shared-temp-directory"] = str(tmp_path)
    path.write_text(yaml.safe_dump({"jobqueue": {"slurm": section}}))
    settings = Settings.read(path)
    with settings.applied(), _queue_cluster("slurm", settings, 1) as cluster:
        order_workers(cluster, 1)
        cluster.scale(1)
        cluster.sync(cluster._correct_state)
        (first,) = submitted()
        assert "node7" not in first

        class Holder:
            pass

        Holder.cluster = cluster
        assert exclude_node(Holder, "node7", list(cluster.workers))
        assert (tmp_path / "cancelled").read_text() == "7\n"
        cluster.scale(1)
        cluster.sync(cluster._correct_state)
        assert f"#SBATCH --exclude={excluded}\n" in submitted()[1]
        assert submitted()[1].count("--exclude") + submitted()[1].count("-x ") == 1
        assert exclude_node(Holder, "node7", [])  # a job that was queued before has come there
        assert f"--exclude={excluded}\n" in cluster.job_script()


def test_a_queue_replaces_the_only_node_there_is_but_once(tmp_path, submitted):
    path = tmp_path / "c.yaml"
    section = {"memory": "1GB", "interface": "lo", "shared-temp-directory": str(tmp_path)}
    path.write_text(yaml.safe_dump({"jobqueue": {"slurm": section}}))
    settings = Settings.read(path)
    problem = RuntimeError("CUDA error")
    with (
        settings.applied(),
        _queue_cluster("slurm", settings, 1) as cluster,
        Client(cluster) as client,
    ):
        order_workers(cluster, 1)
        ask_for_workers(client, 1)
        places = SickPlaces(client)
        for _ in range(3):
            assert places.outcome("dense-r0", FailedError(problem, "10.0.0.7", "node7")) is problem
        (tmp_path / "refuses").touch()  # Slurm has no other node
        assert not places.leave_out_the_only_one("dense-r0")
        assert "--exclude" not in cluster.job_script()
        (tmp_path / "refuses").unlink()
        assert places.leave_out_the_only_one("dense-r0")
        assert places.forgiven("dense-r0", most=3) == 3
        (tmp_path / "scripts").touch()
        while not any("--exclude=node7" in script for script in submitted()):
            time.sleep(0.1)
        for _ in range(3):
            places.outcome("dense-r0", FailedError(problem, "10.0.0.8", "node8"))
        assert not places.leave_out_the_only_one("dense-r0")
        assert places.forgiven("dense-r0", most=3) == 3


def test_the_only_worker_of_a_machine_is_never_left_out(local_client):
    places = SickPlaces(local_client)
    places.outcome("a", FailedError(RuntimeError(), "worker 0", "worker 0"))
    assert not places.leave_out_the_only_one("a")


SITES = {
    "pbs": (
        "walltime: '02:00:00', resource-spec: 'select=1:ncpus=8:ngpus=1:mem=32gb'",
        "#PBS -l select=1:ncpus=8:ngpus=1",
    ),
    "sge": ("walltime: '02:00:00', resource-spec: 'gpu=1'", "#$ -l gpu=1"),
    "lsf": ("walltime: '02:00', job-extra-directives: ['-gpu num=1']", "#BSUB -gpu num=1"),
    "htcondor": ("disk: 4GB, job-extra-directives: {request_gpus: 1}", "request_gpus = 1"),
}


@pytest.mark.parametrize("queue", SITES)
def test_other_queues_come_by_name(tmp_path, queue):
    extra, line = SITES[queue]
    path = tmp_path / "c.yaml"
    section = f"name: lth, cores: 1, memory: 32GiB, {extra}, shared-temp-directory: {tmp_path}"
    path.write_text(f"jobqueue: {{{queue}: {{{section}}}}}")
    script = job_script(Settings.read(path), queue)
    assert line in script
    assert "dask_worker tls://" in script
    if "walltime" in extra:
        assert "--lifetime 6600s" in script


def test_the_prologue_loads_what_the_documentation_says(tmp_path):
    """The examples of docs/how-to-run.md, as text."""
    page = (ROOT / "docs" / "how-to-run.md").read_text()
    examples = [block for block in page.split("```")[1::2] if block.startswith("yaml")]
    assert len(examples) == 4  # a whole node, a module, a conda environment, an Apptainer image
    for example in examples:
        path = tmp_path / "c.yaml"
        values = yaml.safe_load(example.removeprefix("yaml"))
        section = {"memory": "32GiB", "shared-temp-directory": str(tmp_path)}
        values["jobqueue"]["slurm"] |= section
        path.write_text(yaml.safe_dump(values))
        script = job_script(Settings.read(path), "slurm")
        for line in values["jobqueue"]["slurm"].get("job-script-prologue", []):
            assert line in script.splitlines()
        if python := values["jobqueue"]["slurm"].get("python"):
            assert f"exec {python} -m distributed.cli.dask_worker" in script


def test_the_deployment_is_what_is_given_then_what_the_file_says_then_what_is_there(monkeypatch):
    said = []
    file = Settings(deployment="pbs", scheduler="tcp://x:1")
    assert choose(file, "local", None) == "local"
    assert choose(file, None, None) == "pbs"
    assert choose(file, None, "tcp://y:1") == "scheduler"
    for answers, expected in ((True, "slurm"), (False, "local")):
        monkeypatch.setattr("lthdask.cluster.deployment.slurm_answers", lambda a=answers: a)
        assert choose(Settings(), None, None, said.append) == expected
    assert "sbatch answers here; set `deployment` to local" in said[0]
    assert "no Slurm answers here; set `deployment` to slurm" in said[1]
    with pytest.raises(InputError, match="`scheduler` is an address, .*; got nothing"):
        choose(Settings(), None, "")
    with pytest.raises(InputError, match="no address is given; give one with `scheduler`"):
        choose(Settings(), "scheduler", None)


def test_inside_an_allocation_its_gpus_are_trained_on_and_outside_srun_is_refused(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(InputError, match="there is no SLURM_JOB_ID here, so srun has no"):
        choose(Settings(), "srun", None)
    said = []
    monkeypatch.setattr("lthdask.cluster.deployment.slurm_answers", lambda: True)
    for gpus, expected, hint in ((4, "srun", "to slurm to queue"), (0, "slurm", "to srun to")):
        here = Allocation("17", ("a", "b"), cpus=64, gpus=gpus, ends=None)
        monkeypatch.setattr("lthdask.cluster.deployment.allocation", lambda here=here: here)
        assert choose(Settings(), None, None, said.append) == expected
        assert hint in said[-1]
    assert choose(Settings(), "local", None) == "local"


@pytest.mark.parametrize(
    ("gpus", "threads", "asked", "nodes", "each"),
    [
        (4, 1, None, 2, 4),
        (4, 8, None, 2, 4),
        (4, 1, 1, 1, 1),
        (4, 1, 2, 2, 1),
        (4, 1, 5, 2, 3),
        (4, 1, 99, 2, 4),
        (0, 1, None, 2, 16),
        (0, 4, None, 2, 4),
        (0, 32, None, 2, 1),
    ],
)
def test_workers_are_spread_over_the_nodes_of_an_allocation(gpus, threads, asked, nodes, each):
    here = Allocation("17", ("a", "b"), cpus=16, gpus=gpus, ends=None)
    assert here.spread(asked, threads) == (nodes, each)
    assert here.room(threads) == 2 * here.spread(None, threads)[1]


def test_a_queue_without_a_section_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"slurm needs a cluster file with a section jobqueue"):
        job_script(Settings(), "slurm")
    path = tmp_path / "c.yaml"
    path.write_text("jobqueue: {slurm: {cores: 1}}")
    with pytest.raises(InputError, match=r"jobqueue\.slurm\.memory is missing; set it, e.g. "):
        job_script(Settings.read(path), "slurm")


def test_a_scheduler_that_runs_already_is_used_and_left_running(local_client, running, tmp_path):
    from lthdask.flow import run
    from tests.test_flow import TINY

    said = logging.getLogger("distributed.client")
    before = said.level
    with open_client(scheduler=running) as client:
        assert (run(TINY, client, tmp_path).status == 1).all()
    assert len(local_client.nthreads()) == 2
    assert said.level == before


def test_a_scheduler_that_does_not_answer_is_refused_after_the_patience_of_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("distributed: {comm: {timeouts: {connect: 500ms}}}")
    where = f"scheduler='tcp://127.0.0.1:9', cluster={str(path)!r}"
    code = f"import lthdask\nwith lthdask.open_client({where}): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InputError: no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr


def test_garbage_is_collected_as_before_once_the_client_is_closed():
    before = gc.get_threshold()
    with collecting_rarely():
        assert gc.get_threshold() == tuple(3 * threshold for threshold in before)
    assert gc.get_threshold() == before


@pytest.mark.parametrize(
    ("visible", "there"),
    {
        "0, 1": ["0", "1"],
        "GPU-aa,MIG-GPU-bb/1/0": ["GPU-aa", "MIG-GPU-bb/1/0"],
        "": [],
        "-1": [],
        "1,-1,0": ["1"],  # as CUDA reads it
        "NoDevFiles": [],
    }.items(),
)
def test_gpus_are_counted_as_cuda_counts_them(monkeypatch, visible, there):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices() == there


def test_a_user_without_a_name_is_shown_the_way_to_the_dashboard(monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert tunnel(8787, 80) == f"ssh -N -L 8787:127.0.0.1:80 {os.uname().nodename}"


def test_an_interface_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    (tmp_path / "c.yaml").write_text("jobqueue:\n  pbs: {interface: nope0, memory: 1GB, cores: 1}")
    with pytest.raises(InputError, match="has no network interface 'nope0', .*; it has lo"):
        job_script(Settings.read(tmp_path / "c.yaml"), "pbs")


DEVICES = [
    (1, "4,7", "7"),
    (5, "GPU-aa,GPU-bb,GPU-cc", "GPU-cc"),
    ("SLURMCluster-7-2", "0,1,2,3", "2"),
    ("SLURMCluster-0-1", "MIG-5c89-aa,MIG-5c89-bb", "MIG-5c89-bb"),
    ("PBSCluster-0-3", "0,1", "1"),  # more workers than devices share them
    ("SLURMCluster-7", "0,1", "0,1"),  # the only worker of its job
    ("SLURMCluster-0-1", "3", "3"),
]


@pytest.mark.parametrize(("name", "visible", "taken"), DEVICES)
def test_every_worker_takes_a_gpu_of_its_own(monkeypatch, name, visible, taken):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    worker, handler = type("Worker", (), {"name": name})(), signal.getsignal(signal.SIGTERM)
    try:
        Prepare().setup(worker)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == taken
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_workers_are_asked_for_as_there_is_work_and_never_taken_back():
    asked = []

    class Elastic:
        def adapt(self, minimum, maximum):
            asked.append((minimum, maximum))

    class Holder:
        cluster = Elastic()

    order_workers(Holder.cluster, (4, 16))
    for tasks in (1, 3, 3, 40, 2):
        ask_for_workers(Holder(), tasks)
    assert asked == [(1, 1), (3, 3), (4, 16)]


def test_local_workers_are_forked_from_a_process_with_torch_that_outlives_sigterm(local_client):
    (parent,) = {psutil.Process(pid).ppid() for pid in local_client.run(os.getpid).values()}
    assert parent != os.getpid()
    assert any("libtorch" in part.path for part in psutil.Process(parent).memory_maps())
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{parent}/status").read_text().splitlines()
    )
    assert int(status["SigIgn"], 16) & 1 << signal.SIGTERM - 1
    assert status["Threads"] == "1", "it is not safe to fork a process with threads"


def test_nothing_of_a_local_run_listens_beyond_this_machine(local_client):
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
    if not listening:
        pytest.skip("ss is not installed here, so nobody can say what listens")
    pids = {f"pid={pid}," for pid in local_client.run(os.getpid).values()}
    pids.add(f"pid={os.getpid()},")
    ours = [line for line in listening.splitlines() if any(pid in line for pid in pids)]
    assert ours
    assert all(line.split()[3].startswith("127.0.0.1:") for line in ours), ours


def test_ctrl_c_stays_what_it_was_when_a_queue_is_opened(tmp_path):
    """Its import makes Ctrl-C end the process in silence, with exit code 0."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    job_script(Settings.read(SHIPPED), "slurm")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("distributed.comm.timeouts.connect", "soon", "must be a time, such as 30 seconds"),
        ("distributed.worker", "nonsense", "must be a section of keys and values"),
        ("temporary-directory", 5, "must be text"),
    ],
)
def test_what_dask_is_told_elsewhere_is_checked_before_a_run(key, value, problem):
    with dask.config.set({key: value}), pytest.raises(InputError) as found:
        Settings.read(None)
    assert str(found.value).startswith(f"{key} {problem}; got {value!r}, which Dask is told by a")
