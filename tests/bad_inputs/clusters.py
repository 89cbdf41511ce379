"""Cluster files, and values of their keys."""

import os
from functools import partial
from pathlib import Path

from lthdask.cluster.settings import Settings
from tests.bad_inputs.trying import Bad

KEYS = [
    "lthdask.deployment",
    "lthdask.patience",
    "lthdask.scheduler",
    "lthdask.checkpoint-interval",
    "temporary-directory",
    "dataframe.backend",
    "array.chunk-size",
    "distributed.scheduler.allowed-failures",
    "distributed.scheduler.bandwidth",
    "distributed.scheduler.blocked-handlers",
    "distributed.scheduler.default-data-size",
    "distributed.scheduler.idle-timeout",
    "distributed.scheduler.work-stealing",
    "distributed.scheduler.work-stealing-interval",
    "distributed.scheduler.worker-saturation",
    "distributed.scheduler.worker-ttl",
    "distributed.scheduler.preload",
    "distributed.scheduler.validate",
    "distributed.scheduler.http.routes",
    "distributed.worker.multiprocessing-method",
    "distributed.worker.connections.outgoing",
    "distributed.worker.lifetime.duration",
    "distributed.worker.lifetime.stagger",
    "distributed.worker.profile.interval",
    "distributed.worker.memory.target",
    "distributed.worker.memory.spill",
    "distributed.worker.memory.terminate",
    "distributed.nanny.preload",
    "distributed.client.heartbeat",
    "distributed.deploy.lost-worker-timeout",
    "distributed.adaptive.interval",
    "distributed.comm.retry.count",
    "distributed.comm.retry.delay.min",
    "distributed.comm.shard",
    "distributed.comm.offload",
    "distributed.comm.default-scheme",
    "distributed.comm.socket-backlog",
    "distributed.comm.timeouts.connect",
    "distributed.comm.timeouts.tcp",
    "distributed.comm.require-encryption",
    "distributed.comm.tls.ca-file",
    "distributed.admin.tick.interval",
    "distributed.admin.log-length",
    "distributed.admin.event-loop",
    "distributed.dashboard.link",
    "jobqueue.slurm.cores",
    "jobqueue.slurm.memory",
    "jobqueue.slurm.processes",
    "jobqueue.slurm.walltime",
    "jobqueue.slurm.queue",
    "jobqueue.slurm.job-extra-directives",
    "jobqueue.slurm.job-script-prologue",
    "jobqueue.slurm.interface",
    "jobqueue.slurm.death-timeout",
    "jobqueue.slurm.log-directory",
    "jobqueue.pbs.walltime",
    "jobqueue.lsf.walltime",
    "jobqueue.sge.memory",
    "jobqueue.htcondor.cores",
]
ODD = ("{a: [1]}", "[[1], {a: 2}]")
"""Neither is a value of any key."""

VALUES = [
    ("lthdask.deployment=cloud", "must be one of auto, local"),
    ("lthdask.deployment=Slurm", "must be one of"),
    ("lthdask.deployment=3", "must be one of"),
    ("lthdask.patience=soon", "must be a time"),
    ("lthdask.patience=-1h", "must be a time"),
    ("lthdask.patience=0", "more than 0"),
    ("lthdask.patience=.nan", "must be"),
    ("lthdask.patience=.inf", "must be"),
    ("lthdask.patience=1e400 s", "must be"),
    ("lthdask.patience=5 fortnights", "must be a time"),
    ("lthdask.patience=true", "must be a time"),
    ("lthdask.patience=90", None),
    ("lthdask.checkpoint-interval=0", "more than 0"),
    ("lthdask.checkpoint-interval=1:30", "must be a time"),
    ("lthdask.scheduler=5", "must be text"),
    ("lthdask.scheduler=''", "empty"),
    ("lthdask.workers=4", "unknown key 'lthdask.workers'"),
    ("jobqueue.slurm.memory=-5GB", "more than 0"),
    ("jobqueue.slurm.memory=32", "with a unit"),
    ("jobqueue.slurm.memory=lots", "must be a size"),
    ("jobqueue.slurm.memory=0GB", "more than 0"),
    ("jobqueue.slurm.memory=.inf", "must be a size"),
    ("jobqueue.slurm.memory=1e400GB", "must be a size"),
    ("jobqueue.slurm.memory=32 GiB", None),
    ("jobqueue.slurm.cores=0", "whole number above 0"),
    ("jobqueue.slurm.cores=1.5", "whole number above 0"),
    ("jobqueue.slurm.cores='4'", "whole number above 0"),
    ("jobqueue.slurm.cores=0x4", "whole number above 0"),
    ("jobqueue.slurm.processes=-1", "whole number above 0"),
    ("jobqueue.slurm.walltime=4:00:00", None),
    ("jobqueue.slurm.walltime=4h", "wall-time must be"),
    ("jobqueue.slurm.walltime=14400", "must be text"),
    ("jobqueue.slurm.walltime='00:00:10'", "at least a minute"),
    ("jobqueue.slurm.walltime='04:00:00:00'", "wall-time must be"),
    ("jobqueue.slurm.walltime=''", "wall-time must be"),
    ("jobqueue.slurm.wall-time='04:00:00'", "did you mean 'jobqueue.slurm.walltime'"),
    ("jobqueue.slurm.queue=008", "put quotes around it"),
    ("jobqueue.slurm.queue='008'", None),
    ('jobqueue.slurm.queue="a\\n#SBATCH --x"', "one line"),
    ('jobqueue.slurm.queue="a\\n"', "one line"),
    ("jobqueue.slurm.account=''", "empty"),
    ('jobqueue.slurm.job-extra-directives=["--x\\nrm"]', "single lines"),
    ("jobqueue.slurm.job-extra-directives=--gres=gpu:1", "must be a list"),
    ("jobqueue.slurm.job-extra-directives=[1]", None),
    ("jobqueue.slurm.job-extra-directives=[true]", "must hold texts"),
    ("jobqueue.slurm.job-extra-directives=[null]", "must hold texts"),
    ("jobqueue.slurm.job-script-prologue=[[a]]", "must hold texts"),
    ("jobqueue.slurm.interface=5", "must be text"),
    ("jobqueue.slurm.death-timeout=0", "more than 0"),
    ("jobqueue.slurm.job-mem=4 GB", "no space"),
    ("jobqueue.slurm.worker-extra-args=[--lifetime, soon]", "no time"),
    ("jobqueue.slrm.cores=4", "did you mean 'jobqueue.slurm'"),
    ("jobqueue.oar.cores=4", "unknown key 'jobqueue.oar'"),
    ("jobqueue.slurm=4", "must be a section"),
    ("jobqueue=[slurm]", "must be a section"),
    ("distributed=3", "must be a section"),
    ("distributed.comm=3", "must be a section"),
    ("distributed.com.compression=3", "did you mean 'distributed.comm'"),
    ("distributed.comm.compression=foo", "must be one of"),
    ("distributed.comm.compression=auto", None),
    ("distributed.comm.compression=zlib", None),
    ("distributed.comm.compression=false", None),
    ("distributed.comm.compression=true", "must be one of"),
    ("distributed.comm.compression=3", "must be one of"),
    ("distributed.worker.memory.spill-compression=foo", "must be one of"),
    ("distributed.comm.default-scheme=http", "must be one of"),
    ("distributed.comm.default-scheme=tls", None),
    ("distributed.comm.timeouts.connect=soon", "must be a time"),
    ("distributed.comm.timeouts.connect=-1s", "must be a time"),
    ("distributed.comm.timeouts.connect=.nan", "must be a time"),
    ("distributed.comm.shard=0", "more than 0"),
    ("distributed.comm.shard=64 pixels", "must be a size"),
    ("distributed.comm.retry.count=-1", "0 or more"),
    ("distributed.comm.retry.count=1.5", "whole number"),
    ("distributed.comm.retry.count=many", "must be a"),
    ("distributed.comm.socket-backlog=1.5", "whole number"),
    ("distributed.comm.zstd.level=99999", "must be"),
    ("distributed.comm.require-encryption=maybe", "true or false"),
    ("distributed.comm.tls.min-version=1.7", "must be one of"),
    ("distributed.comm.tls.min-version=1.3", None),
    ("distributed.comm.tls.ca-file=5", "must be text"),
    ("distributed.comm.tls.ca-file=/nowhere/ca.pem", "/nowhere/ca.pem"),
    ("distributed.worker.multiprocessing-method=thread", "must be one of"),
    ("distributed.worker.multiprocessing-method=fork", None),
    ("distributed.worker.memory.target=60", "0 to 1"),
    ("distributed.worker.memory.target=-0.1", "0 or more"),
    ("distributed.worker.memory.target=false", None),
    ("distributed.worker.memory.pause=60%", "must be a number"),
    ("distributed.worker.memory.rebalance.measure=guess", "must be one of"),
    ("distributed.scheduler.active-memory-manager.measure=guess", "must be one of"),
    ("distributed.scheduler.active-memory-manager.policies=[{class: os.system}]", "policies"),
    ("distributed.scheduler.worker-saturation=inf", None),
    ("distributed.scheduler.worker-saturation=fast", "must be a number"),
    ("distributed.scheduler.worker-saturation=0", "more than 0"),
    ("distributed.scheduler.worker-ttl=soon", "must be a time"),
    ("distributed.scheduler.allowed-failures=-1", "0 or more"),
    ("distributed.scheduler.allowed-failures=1.5", "whole number"),
    ("distributed.scheduler.work-stealing=1", "true or false"),
    ("distributed.scheduler.http.routes=[nowhere.module]", "nowhere.module"),
    ("distributed.scheduler.preload=[nowhere.py]", None),
    ("distributed.admin.event-loop=fast", "must be one of"),
    ("distributed.admin.log-length=1.5", "whole number"),
    ("distributed.admin.log-format='%(nothing'", "log-format"),
    ("distributed.admin.log-format='%(nothing)s'", "log-format"),
    ("distributed.logging={distributed: debug}", "unknown key 'distributed.logging'"),
    ("logging={distributed: loud}", "logging"),
    ("distributed.dashboard.link=http://{nothing}/", "link"),
    ("distributed.dashboard.link=http://{host}:{port}/", None),
    ("distributed.dashboard.link=http://{host", "link"),
    ("distributed.adaptive.interval=0 s", "more than 0"),
    ("distributed.worker.resources={GPU: many}", "must hold"),
    ("distributed.worker.resources={GPU: 1}", None),
    ("distributed.nanny.pre-spawn-environ={A: [1]}", "pre-spawn-environ"),
    ("distributed.nanny.pre-spawn-environ={A: 1}", None),
    ("distributed.version=3", "must be"),
    ("dataframe.backend=polars", None),
    ("temporary-directory=/nowhere/x", None),
    ("array.slicing.split-large-chunks=1", None),
]

TEXTS: list[tuple[str, bytes | str, str | None]] = [
    ("empty", "", "must be a mapping of sections"),
    ("a list", "- a", "must be a mapping of sections"),
    ("a number", "5", "must be a mapping of sections"),
    ("a text", "slurm", "must be a mapping of sections"),
    ("two documents", "lthdask: {}\n---\nlthdask: {}", "another document"),
    ("an alias", "a: &a {b: 1}\nc: *a", "alias"),
    ("a key twice", "lthdask: {patience: 1h}\nlthdask: {patience: 2h}", "given twice"),
    ("- and _", "lthdask: {checkpoint-interval: 5s, checkpoint_interval: 6s}", "with - and with _"),
    ("UTF-16", "lthdask: {}".encode("utf-16"), "UTF-8"),
    ("Latin-1", "# é".encode("latin-1"), "UTF-8"),
    ("binary", bytes(range(256)), "UTF-8"),
    ("a BOM", b"\xef\xbb\xbflthdask: {patience: 1h}", None),
    ("deep nesting", "lthdask: " + "[" * 5_000, "nested too deeply"),
    ("too large", "# " + "x" * 2_000_000, "1,000,000"),
    ("a tag", "lthdask: !!python/object/apply:os.getpid []", "constructor"),
    ("a study", "name: digits\nseed: 0", "unknown key 'name'"),
    ("a number as a key", "1: 2", "unknown key '1'"),
    ("null as a key", "~: 2", "unknown key"),
    ("a list as a key", "[1]: 2", "line 1"),
    ("a section that is empty", "lthdask:\njobqueue:\n", "must be a section"),
    ("a dotted key", "lthdask.patience: 1h", "unknown key 'lthdask.patience'"),
]


def _read(content: bytes | str, folder: Path) -> None:
    file = folder / "cluster.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    Settings.read(file)


def _key(text: str, folder: Path) -> None:
    key, _, value = text.partition("=")
    *above, last = key.split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(above)]
    _read("\n".join([*lines, f"{'  ' * len(above)}{last}: {value}"]), folder)


def _no_file(make: str, folder: Path) -> None:
    file = folder / "cluster.yaml"
    if make == "pipe":
        os.mkfifo(file)
    elif make == "directory":
        file.mkdir()
    else:
        file = Path(make)
    Settings.read(file)


PLACES = [
    ("pipe", "no regular file"),
    ("directory", "no regular file"),
    ("/dev/zero", "no regular file"),
    ("nowhere.yaml", "No such file"),
    ("a\0b", "null"),
    ("x" * 5000, "too long"),
]


def rows() -> list[Bad]:
    """Return every bad input of this kind."""
    odd = [(f"{key}={value}", key.rpartition(".")[2]) for key in KEYS for value in ODD]
    return [
        *(Bad("cluster value", text, partial(_key, text), told) for text, told in odd + VALUES),
        *(Bad("cluster file", name, partial(_read, text), told) for name, text, told in TEXTS),
        *(Bad("cluster file", name, partial(_no_file, name), told) for name, told in PLACES),
    ]
