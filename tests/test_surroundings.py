"""What surrounds a command: limits, umask, temporary files, other modules, variables of others.

Each does no harm, or is one sentence before anything is queued.
"""

import errno
import os
import re
import resource
import subprocess
import sys
import tempfile
from multiprocessing.process import current_process

import dask
import pytest
import torch
import zarr
from click.testing import CliRunner
from distributed.comm.addressing import parse_host_port

from lthdask.cluster.client import open_client
from lthdask.cluster.local import start_forkserver
from lthdask.cluster.security import own_scratch
from lthdask.commands.main import main
from lthdask.errors import InputError, permitted
from lthdask.storage import checkpoints
from lthdask.storage.results import open_results
from lthdask.surroundings import hidden_by, told_by
from lthdask.training.checkpoint import Checkpoint
from tests.test_flow import TINY
from tests.trained import STUDY, trained

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may mount, or become another user")
CODE = """
import os, resource, tempfile
from resource import *
from lthdask.limits import few_threads, lacking, require_files
try:
    {}
except BaseException as error:
    try:
        raise RuntimeError("it did not start") from error
    except RuntimeError as error:
        print(lacking(error) or error.__cause__)
"""
LIMITED = {
    "files": (
        "setrlimit(RLIMIT_NOFILE, (20, 20)); held = [open('/dev/null') for _ in range(20)]",
        "a process may open no more files; raise the limit, which `ulimit -n` shows as 20",
    ),
    "files of a run": (
        "setrlimit(RLIMIT_NOFILE, (20, 20)); require_files(30)",
        "a process may open no more files; raise the limit, which `ulimit -n` shows as 20; a run "
        "needs 30",
    ),
    "files, as long as more are allowed": (
        "setrlimit(RLIMIT_NOFILE, (20, 40)); require_files(30); print(getrlimit(RLIMIT_NOFILE))",
        "(40, 40)",
    ),
    "memory": (
        "setrlimit(RLIMIT_AS, (2**30, 2**30)); bytes(2**31)",
        "there is no more memory for a process; raise the limit, which `ulimit -v` shows as "
        "1048576",
    ),
    "memory for a library": (
        "raise ImportError('libtorch_cpu.so: failed to map segment from shared object')",
        "there is no more memory for a process; end what else runs here",
    ),
    "the size of a file": (
        "setrlimit(RLIMIT_FSIZE, (4096, 4096)); file = tempfile.TemporaryFile();"
        "os.pwrite(file.fileno(), b'1', 4096)",
        "a process may write no larger file; raise the limit, which `ulimit -f` shows as 4",
    ),
    "temporary files": (
        "setrlimit(RLIMIT_FSIZE, (0, 0)); tempfile.gettempdir()",
        "No usable temporary directory found in {}; give a folder with the environment variable "
        "TMPDIR",
    ),
    "threads": (
        "os.setuid(65533); setrlimit(RLIMIT_NPROC, (5, 5)); print(few_threads(9))",
        "no more threads or processes may be started; raise the limit, which `ulimit -u` shows as "
        "5; a run needs 9",
    ),
    "nothing": ("print(few_threads(9)); raise ValueError('else')", "None\nelse"),
}


@pytest.mark.parametrize("what", LIMITED)
def test_what_a_process_may_not_have_is_named_with_its_limit(what):
    if what == "threads" and os.getuid() != 0:
        pytest.skip("only root may become another user, whom no other process counts against")
    act, says = LIMITED[what]
    done = subprocess.run([sys.executable, "-c", CODE.format(act)], capture_output=True, text=True)
    said = re.sub(r"\[.*\]", "{}", done.stdout)
    assert (said.strip(), done.stderr) == (says, "")


def typed(*words):
    done = CliRunner().invoke(main, [*map(str, words)], prog_name="lthdask")
    return done.exit_code, done.output


def test_a_mask_that_keeps_users_from_their_own_files_is_refused():
    before = os.umask(0o277)
    try:
        assert typed("status") == (
            2,
            "error: the umask 0277 keeps you from the files that you make; set another, such as "
            "umask 0022\n",
        )
        with pytest.raises(InputError, match="the umask 0277 keeps you from"):
            open_client()
    finally:
        os.umask(before)


@pytest.mark.parametrize("place", ["absent", "file"])
def test_a_folder_of_temporary_files_that_cannot_be_used_is_one_sentence(tmp_path, place):
    (tmp_path / "file").touch()
    with (
        dask.config.set({"temporary-directory": tmp_path / place}),
        pytest.raises(InputError, match=f"Dask's temporary-directory, .*{place}, cannot be used"),
        own_scratch(),
    ):
        pass


def test_no_place_for_sockets_is_one_sentence(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    monkeypatch.setitem(current_process()._config, "tempdir", None)
    with pytest.raises(InputError, match="sockets .*'/nowhere/pymp-.*; give one with at most 75"):
        start_forkserver()


def test_what_is_forbidden_of_no_file_is_not_said_of_the_working_directory(monkeypatch):
    def refuse(*about):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with pytest.raises(PermissionError), permitted():
        refuse()
    monkeypatch.setattr("lthdask.commands.status.print_status", refuse)
    done = CliRunner().invoke(main, ["status"])
    assert isinstance(done.exception, PermissionError)


def lthdask(*words, **variables):
    return subprocess.run(
        [sys.executable, "-m", "lthdask", *words],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


HIDING = {
    "random.py": ("x = 1", ["--help"]),
    "yaml.py": ("x = 1", ["status"]),
    "queue.py": ("def broken(", ["status"]),
}


@pytest.mark.parametrize("name", HIDING)
def test_a_file_of_pythonpath_that_hides_another_module_is_named(tmp_path, name):
    text, words = HIDING[name]
    (tmp_path / name).write_text(text)
    done = lthdask(*words, PYTHONPATH=str(tmp_path))
    assert (done.returncode != 0, done.stderr) == (
        True,
        f"error: {tmp_path / name} hides a module of Python's, or of a package's, as its folder is "
        f"in PYTHONPATH; rename it, or take the folder out\n",
    )


def test_a_file_of_pythonpath_that_hides_nothing_is_not_blamed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, hides in (("nothing_else.py", False), ("queue.py", True)):
        with pytest.raises(ZeroDivisionError) as error:
            exec(compile("1 / 0", str(tmp_path / name), "exec"))
        assert bool(hidden_by(error.value)) == hides


def of_dask():
    parse_host_port("a:b:c")


def of_zarr():
    zarr.open_group("/nowhere", mode="r")


def of_python():
    int("garbage of nobody")


@pytest.mark.parametrize("ends", [of_dask, of_zarr, of_python])
def test_variables_are_named_that_tell_something_to_a_package_on_the_way(monkeypatch, ends):
    told = {
        of_dask: ("DASK_LOGGING", "garbage"),
        of_zarr: ("ZARR_BUFFER", "nope"),
        of_python: ("SOURCE_DATE_EPOCH", "garbage of nobody"),
    }
    for name, value in told.values():
        monkeypatch.setenv(name, value)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        ends()
    said = told_by(error.value)
    assert [name for name, _ in told.values() if name in said] == [told[ends][0]]
    assert said.startswith(f"{type(error.value).__name__}: ")
    assert told_by(ValueError("of nothing")) is None


def test_results_that_zarr_cannot_read_for_its_settings_are_not_called_damaged(
    tmp_path, monkeypatch
):
    trained(tmp_path, STUDY)
    monkeypatch.setenv("ZARR_BUFFER", "nope")
    with (
        zarr.config.set({"buffer": "nope"}),
        pytest.raises(InputError, match="Buffer class 'nope' not .* ZARR_BUFFER: run without"),
    ):
        open_results(tmp_path)


def test_a_checkpoint_that_a_process_has_no_room_for_is_not_called_damaged(tmp_path):
    file = tmp_path / "epoch-0000.safetensors"
    digest = checkpoints.save(file, Checkpoint(0, {"weight": torch.ones(3)}))
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            checkpoints.load(file, digest)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))
    assert checkpoints.load(file, digest).epoch == 0


SURROUNDED = {
    "a small /dev/shm": (
        "mount -t tmpfs -o size=4k none /dev/shm",
        "/dev/shm cannot be used for semaphores of processes: No space left on device; make room",
    ),
    "few temporary files": (
        "mkdir t; mount -t tmpfs -o nr_inodes=10 none t; export TMPDIR=$PWD/t",
        "no worker can be started on this machine: [Errno 28] No space left on device",
    ),
    "no temporary files": (
        "ulimit -f 0",
        "No usable temporary directory found in ",
    ),
    "no large files": (
        "ulimit -f 100",
        "a process may write no larger file; raise the limit, which `ulimit -f` shows as 100",
    ),
    "little memory": (
        "ulimit -v 2000000",
        "there is no more memory for a process; raise the limit, which `ulimit -v` shows as ",
    ),
    "a variable": (
        "export DASK_DISTRIBUTED__LOGGING__DISTRIBUTED=garbage",
        "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED: run without it",
    ),
}
HARMLESS = """
export PYTHONWARNINGS=error PYTHONOPTIMIZE=2 PYTHONIOENCODING=ascii LC_ALL=tr_TR LANG=xx COLUMNS=1
export TERM=dumb NO_COLOR=1 HOME=/proc XDG_CACHE_HOME=/proc/x XDG_CONFIG_HOME=/proc/y TZ=No/Where
export MPLBACKEND=garbage MPLCONFIGDIR=/proc/z http_proxy=http://127.0.0.1:9 ALL_PROXY=socks5://x
export OMP_NUM_THREADS=0 MKL_NUM_THREADS=garbage CUDA_VISIBLE_DEVICES=garbage TMPDIR=/nowhere
unset USER LOGNAME
umask 000
"""


@pytest.mark.faults
@as_root
def test_surroundings_in_which_nothing_can_be_trained_are_one_sentence_and_lose_nothing(tmp_path):
    (tmp_path / "study.yaml").write_text(TINY.to_yaml())
    command = f"{sys.executable} -m lthdask run --deploy local --workers 1 --study study.yaml"
    for what, (begin, says) in SURROUNDED.items():
        words = ["unshare", "-m", "bash", "-c", f"{begin}\n{command} --out run"]
        with subprocess.Popen(
            words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            said, error = process.communicate(timeout=240)
        assert (process.returncode, error.count("\n")) == (2, 1), (what, said, error)
        assert says in error
        assert "Traceback" not in said
    words = ["bash", "-c", f"{HARMLESS}\n{command} --out run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (open_results(tmp_path / "run").status == 1).all()
