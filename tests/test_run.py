"""What the command promises, run as its users run it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from click.testing import CliRunner

from lthdask.commands.run import command as run_command
from lthdask.study import Study
from tests.test_flow import TINY, attempts

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "run.py"


@pytest.fixture
def tiny_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.to_yaml())
    return path


@pytest.fixture(scope="session")
def command():
    return run_command


def start(*arguments, **kwargs):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "--deploy", "local", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


@pytest.fixture
def again(command, running):
    """The same command once more, with the workers of the tests: those take long to start."""

    def invoke(*arguments):
        where = ["--scheduler", running]
        return CliRunner().invoke(command, [*map(str, arguments), *where])

    return invoke


def children(process):
    """The command lines of what it has started, and still runs: pid → text."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # also of a zombie
            found[child.pid] = " ".join(child.cmdline())
    return found


def test_help_answers_without_importing_torch_and_explains_every_option():
    code = (
        "import sys; sys.argv = ['run.py', '--help']; import runpy\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'dask', 'zarr', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    options = [
        "study",
        "thresholds",
        "rewind-epochs",
        "epochs",
        "replicates",
        "out",
        "workers",
        "seed",
        "device",
        "set",
        "data",
        "download",
        "dry-run",
        "json",
        "retry-failed",
    ]
    assert all(f"--{option} " in done.stdout for option in options)


def test_the_command_fills_a_cube_and_prints_the_map(tiny_file, tmp_path, command):
    out = tmp_path / "run"
    first = start("--study", tiny_file, "--out", out, "--workers", "64")
    output, errors = first.communicate(timeout=120)
    assert (first.returncode, errors) == (0, "")
    assert f"cluster file: {Path.cwd() / 'cluster.yaml'}\n" in output  # nobody has named it
    assert "64 workers are too many; this machine has room for " in output
    assert "dashboard: http://127.0.0.1:" in output
    assert "4/4 cells" in output
    assert "dense" in output
    assert "one replicate" in output or "no cell is within" in output
    assert f"results in {out}" in output
    assert len(attempts(out)) == 4
    log = (out / "log.txt").read_text()
    assert f"run.py --deploy local --study {tiny_file} --out {out} --workers 64: process " in log
    began = output[: output.index("4/4 cells")]
    said = [line.partition(" cells, ")[0] for line in began.splitlines()]  # the rest is of a clock
    assert [line for line in said if line not in log] == []
    arguments = ["--study", str(tiny_file), "--out", str(out), "--json"]
    second = CliRunner().invoke(command, arguments)
    assert second.exit_code == 0
    assert "every cell is done" in second.stderr
    values = json.loads(second.stdout)
    assert {cell["status"] for cell in values["cells"]} == {"done"}
    assert values["folder"] == str(out)
    again = (out / "log.txt").read_text()
    assert again.startswith(log)
    assert "INFO tiny: every cell is done\n" in again.removeprefix(log)
    assert len(attempts(out)) == 4


BAD = [
    (["--study", "digit"], "unknown study 'digit'; did you mean 'digits'?"),
    (["--set", "network.name=vgg"], "unknown network 'vgg'; did you mean 'vgg16'? known: "),
    (["--set", "data.name=coco"], "unknown data set 'coco'; known: "),
    (["--thresholds", "1.5"], "between 0 and 1; got 1.5"),
    (["--thresholds", "0.9,0.5"], "thresholds must increase"),
    (["--thresholds", "0.5,0.5"], "a value twice"),
    (["--thresholds", "-0.5", "--set", "pruning.by=cutoff"], "a number above 0; got -0.5"),
    (["--rewind-epochs", "6"], "rewind epoch 6 leaves nothing to train"),
    (["--rewind-epochs", "-1"], "rewind_epochs must be 0 or more"),
    (["--epochs", "three"], "should be a valid integer"),
    (["--workers", "0"], "--workers must be 1 or more, and MIN not above MAX; got 0"),
    (["--workers", "4..2"], "MIN not above MAX; got 4..2"),
    (["--workers", "many"], "--workers must be a number, or MIN..MAX; got 'many'"),
    (["--deploy", "slum"], "unknown deployment 'slum'; did you mean 'slurm'? known: "),
    (["--deploy", "scheduler"], "no address is given; give one with --scheduler"),
    (["--cluster", "nowhere.yaml"], "cannot read the cluster file nowhere.yaml"),
    (["--replicates", "9" * 20], "a grid can have 1,000,000 cells at most"),
    (["--set", "seed"], "--set takes KEY=VALUE; got 'seed'"),
    (["--set", "sed=1"], "unknown key 'sed'; did you mean 'seed'?"),
]


@pytest.mark.parametrize(("arguments", "problem"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(command, tmp_path, arguments, problem):
    done = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert problem in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    command, tiny_file, tmp_path, as_json
):
    out = tmp_path / "run"
    arguments = ["--study", str(tiny_file), "--out", str(out), "--dry-run", "--workers", "2"]
    arguments += ["--deploy", "local"]
    done = CliRunner().invoke(command, [*arguments, *as_json])
    assert done.exit_code == 0
    assert not out.exists()
    if as_json:
        values = json.loads(done.stdout)
        assert (values["cells"], values["epochs"], values["dense_runs"]) == (4, 11, 1)
    else:
        assert "4 cells to train, 0 done" in done.stdout
        assert "judged by" in done.stdout


def test_a_dry_run_does_not_judge_a_queue_by_this_machine(command, tiny_file, tmp_path):
    arguments = ["--study", str(tiny_file), "--out", str(tmp_path / "run"), "--dry-run", "--json"]
    for workers, count in ((["--workers", "2..999"], 999), ([], 1)):
        done = CliRunner().invoke(command, [*arguments, "--deploy", "slurm", *workers])
        values = json.loads(done.stdout)
        assert (values["deployment"], values["workers"], values["seconds"]) == (
            "slurm",
            count,
            None,
        )


@pytest.mark.parametrize("deploy", ["local", "slurm"])
@pytest.mark.parametrize("way", [[], ["--dry-run"]])
def test_data_that_are_not_given_are_refused_before_any_worker_or_job_starts(
    command, tmp_path, deploy, way
):
    arguments = ["--study", "cifar10-resnet20", "--out", str(tmp_path / "run"), *way]
    done = CliRunner().invoke(command, [*arguments, "--deploy", deploy])
    assert done.exit_code == 2
    sentence = "error: the data set 'cifar10' is read from disk; give its folder with --data\n"
    assert done.stderr.endswith(sentence)
    assert "dashboard" not in done.stdout


def test_another_study_in_the_folder_is_refused_before_any_worker_starts(command, tmp_path):
    (tmp_path / "study.yaml").write_text(Study.read("digits").to_yaml())
    done = CliRunner().invoke(command, ["--seed", "5", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "seed: 0 in the folder, 5 given" in done.stderr


def test_a_folder_that_cannot_be_written_is_refused_before_any_worker_starts(command, tmp_path):
    (tmp_path / "file").touch()
    for out, problem in (
        (tmp_path / "file" / "run", "is not a folder"),
        (tmp_path, "such as file"),
    ):
        done = CliRunner().invoke(command, ["--out", str(out)])
        assert done.exit_code == 2
        assert problem in done.stderr


def test_a_device_that_is_not_there_is_refused_by_the_worker(tiny_file, tmp_path, again):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = again("--study", tiny_file, "--out", tmp_path / "run", "--device", "cuda")
    assert done.exit_code == 2
    assert "no CUDA device on" in done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1].removeprefix("error: ")
    assert f" ERROR ended: {said}\n" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.faults
@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_stopping_is_quick_and_the_same_command_goes_on(tiny_file, tmp_path, again, how):
    study = yaml.safe_load(tiny_file.read_text())
    study["grid"]["thresholds"] = [i / 20 for i in range(1, 13)]
    tiny_file.write_text(yaml.safe_dump(study))
    out = tmp_path / "run"
    process = start("--study", tiny_file, "--out", out, start_new_session=True)
    for line in process.stdout:
        if " done: 1/" in line:
            break
    if how == "ctrl-c":  # a terminal sends it to the workers, too
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command picks up where it left off" in output
    assert "Traceback" not in output + errors
    from lthdask.storage.cube import Cube
    from lthdask.storage.schema import Status

    done = [c for c, s in Cube(out / "results.zarr").cells().items() if s is Status.DONE]
    assert len(done) >= 1
    finished = again("--study", tiny_file, "--out", out, "--json", "--quiet")
    assert (finished.exit_code, finished.stderr) == (0, "")
    cells = json.loads(finished.stdout)["cells"]
    assert {cell["status"] for cell in cells} == {"done"}
    counted = attempts(out)
    for cell in done:
        assert sum(name.startswith(f"{cell}/") for name in counted) == 1


@pytest.mark.faults
def test_ctrl_c_while_the_workers_start_is_quiet_too(tiny_file, tmp_path):
    process = start("--study", tiny_file, "--out", tmp_path / "run", start_new_session=True)
    # The process that workers are forked from, and one of them.
    while sum("multiprocessing.forkserver" in c for c in children(process).values()) < 2:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output + errors


def test_a_study_with_failed_cells_ends_with_1_and_says_why(command, again, tiny_file, tmp_path):
    from lthdask.storage.cube import Cube
    from lthdask.storage.folder import Folder
    from lthdask.storage.schema import Status

    out = tmp_path / "run"
    assert again("--study", tiny_file, "--out", out).exit_code == 0
    cube = Cube(out / "results.zarr")
    head = "Traceback (most recent call last):\n"
    reasons = "OSError: the disk is full", "OSError: the disk is full", "ValueError: [odd]", None
    for cell, reason in zip(cube.cells(), reasons, strict=True):
        cube.mark(cell, Status.FAILED)
        if reason:
            Folder(out).runs.write_traceback(cell, f"{head}  File 'a.py'\n{reason}\n\n")
    arguments = ["--study", str(tiny_file), "--out", str(out)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 1
    assert "4 failed: threshold 0.5 k=0 replicate 0" in done.stdout
    first, other = (
        f"{out}/cells/ticket-r0-t{place}/traceback.txt" for place in ("0.5-k0", "0.95-k0")
    )
    assert done.stdout.count("failed: OSError") == 1
    assert f"failed: OSError: the disk is full; see {first}" in done.stdout
    assert f"failed: ValueError: [odd]; see {other}" in done.stdout
    values = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).stdout)
    assert values["reasons"] == {reasons[0]: first, reasons[2]: other}
    quiet = CliRunner().invoke(command, [*arguments, "--quiet"])
    failed = "tiny: nothing left to train, 4 failed; --retry-failed trains them again"
    why = [f"failed: {reason}; see {file}" for reason, file in values["reasons"].items()]
    assert (quiet.exit_code, quiet.stdout) == (1, "")
    assert quiet.stderr.splitlines() == [failed, *why]
