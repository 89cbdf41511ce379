"""How a command ends, and where it may begin: signals, terminals, odd surroundings."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

import lthdask
from lthdask.checks.folder import check
from lthdask.cluster.settings import Settings
from lthdask.driver.opening import open_study
from lthdask.errors import InputError
from lthdask.storage.folder import Folder
from tests.test_faults import INTERVAL, STUDY, until
from tests.test_flow import TINY

LTHDASK = [sys.executable, "-m", "lthdask"]


def test_a_plan_and_a_printed_job_script_start_nothing_and_write_nothing(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.to_yaml())
    section = "memory: 1GB, log-directory: logs, shared-temp-directory: tls"
    (tmp_path / "cluster.yaml").write_text(f"jobqueue: {{slurm: {{{section}}}}}")
    code = """
import os, psutil, threading
from click.testing import CliRunner
from lthdask.commands.main import main
for words in (["plan"], ["run", "--print-job-script"]):
    done = CliRunner().invoke(main, [*words, "--study", "tiny.yaml", "--deploy", "slurm"])
    assert done.exit_code == 0, done.output
links = (f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd"))
sockets = [n for n in links if os.path.lexists(n) and os.readlink(n).startswith("socket")]
print(sockets, psutil.Process().children())
"""
    before = sorted(tmp_path.rglob("*"))
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(tmp_path))
    environment = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "[] []\n", done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("o" * 5000, "'o{100}...' is no path: File name too long"),
        ("a\0b", "is no path: embedded null byte"),
        ("~nobody-of-this-name/r", "is no path: there is no such user"),
        (3, "3 is no path: "),
        ("file", "file is not a folder"),
        ("file/inside", "file is not a folder"),
        ("link", "link is not a folder"),
        ("loop/inside", "is no path: Too many levels of symbolic links"),
        ("results.zarr", "has the name of the results in a study's folder"),
    ],
)
def test_what_cannot_be_a_folder_is_one_sentence(tmp_path, monkeypatch, out, problem):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("link").symlink_to("nowhere/at/all")
    Path("loop").symlink_to("loop")
    with pytest.raises(InputError, match=problem):
        open_study(TINY, out)


@pytest.mark.parametrize("file", ["~nobody-of-this-name/r.yaml", "o" * 5000, "o" * 300 + ".py"])
@pytest.mark.parametrize(
    "read",
    [
        lthdask.open_results,
        lambda file: lthdask.open_mask(file, 0.5),
        lthdask.load_ticket,
        lthdask.Study.read,
        lambda file: lthdask.Study.read("digits", [file]),
        lambda file: TINY.changed({"pruning.masks": file}),
        lambda file: lthdask.open_client(cluster=file),
        check,
        lambda file: Folder(Path(file)),
    ],
)
def test_what_cannot_be_a_path_is_one_sentence_wherever_it_is_given(read, file):
    with pytest.raises(InputError, match="is no path: (there is no such user|File name too long)"):
        read(file)


def test_a_file_in_the_home_is_found_wherever_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "study.yaml").write_text(TINY.to_yaml())
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "cluster.yaml").write_text("lthdask: {patience: 7s}")
    assert lthdask.Study.read("~/study.yaml", ["~/mine.py"]) == TINY
    assert Settings.read(Path("~/cluster.yaml")).patience == 7


def test_every_measurement_inside_an_epoch_is_counted():
    recipe = TINY.changed({"recipe.measure_every": "3", "recipe.epochs": "4"}).recipe
    iterations = [at for at in range(3, 41, 3) if at % 10]  # 10 steps an epoch, whose end is apart
    assert recipe.looks(10) == len(iterations) / 4
    assert TINY.recipe.looks(10) == 0


def test_a_command_says_that_its_working_directory_is_gone(tmp_path):
    (tmp_path / "gone").mkdir()
    words = " ".join([*LTHDASK, "plan"])
    done = subprocess.run(
        ["bash", "-c", f"cd gone; rmdir ../gone; {words}"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "error: the working directory cannot be used: No such file or directory; change into "
        "another one\n"
    )


@pytest.fixture(scope="module")
def borrowed():
    """The address of a scheduler that runs already, with two workers."""
    with LocalCluster(
        2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        yield cluster


def begun(tmp_path, address):
    """A command that trains on a borrowed scheduler, and has saved a checkpoint."""
    (tmp_path / "study.yaml").write_text(STUDY.changed({"recipe.epochs": "3000"}).to_yaml())
    (tmp_path / "c.yaml").write_text(f"lthdask: {{checkpoint-interval: {INTERVAL}s}}")
    where = ["--scheduler", address, "--cluster", "c.yaml", "--study", "study.yaml", "--out", "run"]
    process = subprocess.Popen(
        [*LTHDASK, "run", *where], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: len(checkpoints(tmp_path)) > 3, "nothing is trained", 240)
    return process


def checkpoints(tmp_path):
    return sorted(tmp_path.glob("run/checkpoints/**/*.safetensors"))


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_the_driver_ends_what_trains_on_a_borrowed_scheduler(
    borrowed, tmp_path, number
):
    process = begun(tmp_path, borrowed.scheduler_address)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    killed = number == signal.SIGKILL
    assert process.returncode == (-number if killed else 130)
    assert killed or "the same command picks up where it left off" in output
    assert "Traceback" not in output + errors
    idle = lambda dask_scheduler: not dask_scheduler.tasks  # noqa: E731
    with borrowed.get_client() as client:
        until(lambda: client.run_on_scheduler(idle), "it trains on", 30)
        until(lambda: not any(client.processing().values()), "it trains on", 30)
    assert list(tmp_path.glob("run/cells/dense-r0/state-*")), "its state was not saved"
    count = len(checkpoints(tmp_path))
    time.sleep(2)  # in which it would have made dozens
    assert len(checkpoints(tmp_path)) == count


@pytest.mark.faults
def test_a_borrowed_scheduler_that_is_lost_is_one_sentence_and_loses_nothing(tmp_path):
    code = (
        "import distributed, signal\n"
        "if __name__ == '__main__':\n"
        "    cluster = distributed.LocalCluster(1, dashboard_address='127.0.0.1:0')\n"
        "    print(cluster.scheduler_address, flush=True)\n"
        "    signal.pause()"
    )
    (tmp_path / "cluster.py").write_text(code)
    words = [sys.executable, tmp_path / "cluster.py"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as scheduler:
        process = begun(tmp_path, scheduler.stdout.readline().strip())
        scheduler.kill()
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 2, output + errors
    assert "error: the scheduler is gone, and its workers with it; what is done is kept" in errors
    assert "Traceback" not in output + errors
    assert list(tmp_path.glob("run/cells/dense-r0/state-*"))


SCRIPT = """
import lthdask
client = lthdask.open_client(1, deployment="local")
print(lthdask.run(lthdask.Study.read("study.yaml"), client, "run").sizes["threshold"])
client.close()
"""


@pytest.mark.faults
def test_a_script_without_a_main_guard_trains_beside_modules_named_as_pythons(tmp_path):
    place, script = tmp_path / "place", tmp_path / "script.py"
    place.mkdir()
    for name in ("random", "types", "torch", "numpy", "dask", "distributed", "signal"):
        (place / f"{name}.py").write_text("raise SystemExit('imported ' + __file__)")
    (place / "study.yaml").write_text(TINY.to_yaml())
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "imported" not in done.stdout
    assert done.stdout.splitlines()[-1] == "2"


@pytest.mark.faults
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a name")
def test_a_user_without_a_name_and_a_home_can_begin(tmp_path):
    """As in a container, under a number; where such a user may read this environment."""
    code = "import lthdask, os; print(os.environ['HOME']); from lthdask import open_client, run"
    begun = [
        *["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "env", "-u", "HOME"]
    ]
    words = [*begun, sys.executable, "-c", code]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True)
    if "No module named" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip("this environment is its owner's alone")
    assert (done.stdout, done.stderr) == ("/\n", "")


@pytest.mark.faults
def test_a_full_standard_output_ends_no_run(tmp_path):
    (tmp_path / "study.yaml").write_text(TINY.to_yaml())
    words = " ".join([*LTHDASK, "run --deploy local --workers 1 --study study.yaml --out run"])
    done = subprocess.run(
        ["bash", "-c", f"{words} > /dev/full"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr == "cannot write to standard output: No space left on device; it goes on\n"
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.faults
def test_a_terminal_that_is_closed_ends_a_local_run_in_order(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY.changed({"recipe.epochs": "3000"}).to_yaml())
    pid, terminal = os.forkpty()
    if pid == 0:
        os.chdir(tmp_path)
        where = ["--deploy", "local", "--workers", "2", "--study", "study.yaml", "--out", "run"]
        os.execv(sys.executable, [*LTHDASK, "run", *where])
    reader = subprocess.Popen(["cat"], stdin=terminal, stdout=subprocess.DEVNULL)
    until(lambda: len(checkpoints(tmp_path)) > 3, "nothing is trained", 240)
    children = psutil.Process(pid).children(recursive=True)
    reader.kill()
    reader.wait()
    os.close(terminal)  # as sshd does when the connection is gone
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert list(tmp_path.glob("run/cells/dense-r0/state-*")), "its state was not saved"
    assert "stopped after" in (tmp_path / "run" / "log.txt").read_text()
    with suppress(psutil.NoSuchProcess):
        _, alive = psutil.wait_procs(children, 30)
        assert not alive
