"""What the command `lthdask` and its parts promise, whatever they compute."""

import io
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner
from rich.console import Console

from lthdask.cluster.settings import Settings
from lthdask.commands.main import main
from lthdask.commands.shared import exit_with, say
from lthdask.errors import OPTIONS, InputError, on_command_line
from lthdask.storage.driver import driving
from tests.test_flow import TINY

ROOT = Path(__file__).parent.parent
PARTS = list(main.commands)
SCRIPTS = sorted(script.stem for script in (ROOT / "scripts").glob("*.py"))
PLAIN = {name: value for name, value in os.environ.items() if "COLOR" not in name}


def typed(*arguments, **kwargs):
    """Run the command as a user does."""
    command = [sys.executable, "-m", "lthdask", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **{"env": PLAIN, **kwargs})


def invoked(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)], prog_name="lthdask")


@pytest.fixture
def tiny_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.to_yaml())
    return path


def test_a_file_of_dasks_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("distributed: [1, 2")
    done = typed("run", "--print-job-script", env=PLAIN | {"DASK_CONFIG": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    file = tmp_path / "mine.yaml"
    expected = (
        f"error: A dask config file at {str(file)!r} is malformed; mend it, or move it away\n"
    )
    assert done.stderr == expected


@pytest.mark.parametrize("part", [None, *PARTS])
def test_help_answers_without_importing_anything_heavy(part):
    arguments = [part, "--help"] if part else ["--help"]
    code = (
        f"import sys; sys.argv = ['lthdask', *{arguments!r}]; import runpy\n"
        "try: runpy.run_module('lthdask', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'dask', 'distributed', 'zarr', 'xarray', 'pydantic', 'numpy', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_in_a_pipe_is_plain_text_in_which_each_option_begins_a_line():
    text = typed("run", "--help").stdout
    assert "\x1b" not in text
    assert not re.search("[─-╿]", text), "a frame"
    panels = ["Study:", "Where to train:", "What is done:", "Output:"]
    lines = [line.rstrip() for line in text.splitlines()]
    assert [line for line in lines if line in panels] == panels
    options = {option for given in main.commands["run"].params for option in given.opts}
    assert options <= {line.split()[0] for line in lines if line.startswith("  --")}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["train"], "No such command 'train'"),
        (["run", "--theads", "1"], "No such option '--theads'"),
        (["run", "--max-attempts", "0"], "0 is not in the range"),
        (["check"], "Missing argument 'DIR'"),
        (["status", "here", "--out", "there"], "as DIR, or with --out"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_in_plain_text_what_was_wrong(arguments, problem):
    done = typed(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_the_command_of_its_name_and_is_called_as_it_was_typed(name):
    script = [sys.executable, ROOT / "scripts" / f"{name}.py", "--help"]
    door = subprocess.run(script, capture_output=True, text=True, env=PLAIN, check=True).stdout
    usage, rest = door.split("\n", 1)
    assert usage.startswith(f"Usage: python scripts/{name}.py [OPTIONS]")
    assert rest == typed(name, "--help").stdout.split("\n", 1)[1]


def test_the_module_and_the_command_are_one():
    assert SCRIPTS == ["check", "reproduce", "run", "selfcheck"]
    command = Path(sys.executable).parent / "lthdask"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == typed("--version").stdout == f"lthdask, version {version('lthdask')}\n"


def test_plan_does_what_a_dry_run_does_and_takes_what_describes_the_study(tiny_file, tmp_path):
    arguments = ["--study", tiny_file, "--out", tmp_path / "run", "--seed", "3", "--workers", "3"]
    arguments += ["--deploy", "slurm", "--retry-failed"]  # where nothing is measured
    for way in ([], ["--json"]):
        plan = invoked("plan", *arguments, *way)
        dry = invoked("run", *arguments, *way, "--dry-run")
        assert plan.exit_code == dry.exit_code == 0
        assert plan.stdout == dry.stdout
    values = json.loads(plan.stdout)
    assert (values["workers"], values["wall_epochs"], values["plain_epochs"]) == (3, 6, 15)
    shown, of = invoked("plan", *arguments).stdout, values["network"]
    assert (of["input"], of["classes"], of["multiply_adds"]) == ([1, 8, 8], 10, of["prunable"])
    assert shown.startswith(
        "tiny: 4 cells to train, 0 done\n"
        f"network lenet_300_100: {of['parameters']:,} parameters, {of['prunable']:,} of them "
        f"prunable, {of['prunable']:,} multiply-adds for an input of 1×8×8\n"
        "epochs  11, with 1 dense run of 3; the plain nested loop trains 15: sharing saves 27 %\n"
    )
    rows = [tuple(line.split()) for line in shown.splitlines() if line.endswith("%  ")]
    assert rows == [
        tuple(f"{s['workers']} {s['wall_epochs']} {100 * s['busy']:.0f} %".split())
        for s in values["schedules"]
    ]
    assert not (tmp_path / "run").exists()
    of = {name: {given.name for given in main.commands[name].params} for name in ("plan", "run")}
    assert of["plan"] < of["run"]


def test_a_run_leaves_a_report_and_says_where_after_masks_only_too(tiny_file, tmp_path, running):
    page = tmp_path / "run" / "report.html"
    arguments = ["--study", tiny_file, "--out", page.parent, "--scheduler", running]
    for more, shown in (
        (["--masks-only"], "<p>Threshold 0.5: its masks suggest running k = "),
        ([], "<p>Cells: 4 done"),
    ):
        done = invoked("run", *arguments, *more)
        assert (done.exit_code, done.output.splitlines()[-1]) == (0, f"report: {page}")
        text = page.read_text()
        assert shown in text
        assert "an epoch&#39;s mask differs from the last one" in text
        assert "Distance of the masks" in text
        page.unlink()


def test_status_does_what_run_status_does_however_the_folder_is_given(
    tiny_file, tmp_path, running, monkeypatch
):
    out = tmp_path / "runs" / TINY.name
    trained = invoked("run", "--study", tiny_file, "--out", out, "--scheduler", running)
    assert trained.exit_code == 0, trained.output
    shown = invoked("run", "--status", "--out", out)
    assert shown.exit_code == 0
    assert "4 done; 1 of 1 dense run trained\nnobody runs it now\n" in shown.stdout
    assert invoked("status", out).stdout == invoked("status", "--out", out).stdout == shown.stdout
    monkeypatch.chdir(tmp_path)
    usual = invoked("status", "--study", tiny_file, "--json")
    assert json.loads(usual.stdout)["folder"] == str(out)
    nothing = invoked("status", tmp_path)
    assert (nothing.exit_code, nothing.stdout) == (2, "")
    assert nothing.stderr.endswith("; give the folder of one\n")


@pytest.mark.parametrize("command", ["status", "watch"])
def test_a_study_that_waits_for_its_first_worker_is_said_to_be_prepared(command, tmp_path):
    with driving(tmp_path):
        looked = invoked(command, tmp_path)
    assert looked.exit_code == 2
    assert "it is being prepared by process " in looked.stderr
    assert looked.stderr.endswith("look again once its first worker has started\n")


def test_the_cluster_file_is_written_once_and_replaced_when_forced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cluster.yaml"
    shipped = (ROOT / "cluster.yaml").read_text()
    assert invoked("cluster-file", "-").stdout == shipped
    assert not file.exists()
    assert invoked("cluster-file").exit_code == 0
    assert file.read_text() == shipped
    assert Settings.read(file).deployment == "auto"
    file.write_text("mine")
    refused = invoked("cluster-file")
    assert (refused.exit_code, file.read_text()) == (2, "mine")
    assert refused.stderr == "error: cluster.yaml is there already; --force replaces it\n"
    assert invoked("cluster-file", "--force").exit_code == 0
    assert file.read_text() == shipped
    nowhere = invoked("cluster-file", "nowhere/cluster.yaml")
    assert nowhere.exit_code == 2
    assert nowhere.stderr.startswith("error: cannot write nowhere/cluster.yaml: ")


def completed(*words):
    """What the shell offers for the last of the words, as (kind, value)."""
    *before, begun = words
    found = BashComplete(main, {}, "lthdask", "_LTHDASK_COMPLETE").get_completions(before, begun)
    return [(item.type, item.value) for item in found]


def test_known_values_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def offered(*words):
        return [value for kind, value in completed(*words) if kind == "plain"]

    assert offered("ru") == ["run"]
    assert offered("run", "--deploy", "s") == ["srun", "scheduler", "slurm", "sge"]
    assert offered("plan", "--pruning", "") == ["one_shot", "iterative"]
    assert offered("run", "--device", "cu") == ["cuda"]
    assert offered("run", "--arms", "re") == ["reinit"]
    assert offered("run", "--arms", "ticket,reinit,") == [
        f"ticket,reinit,{arm}"
        for arm in (
            "random_mask",
            "constant_signs",
            "equal_epochs",
            "lr_rewind",
            "fine_tune",
            "lr_rewind_iterated",
            "fine_tune_iterated",
            "trained_ticket",
            "dense_pretrained",
        )
    ]
    assert offered("reproduce", "") == ["cifar10-resnet20", "fashion-lenet"]
    assert "--rewind-epochs" in offered("plan", "--re")
    for folder in (["run", "--out"], ["run", "--data"], ["status"], ["check"]):
        assert completed(*folder, "ru") == [("dir", "ru")]


def test_a_study_is_completed_by_name_or_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for file in ("my.yaml", "my.txt", "digits-mine.yml", "sub/deep.yaml"):
        (tmp_path / file).touch()
    plain = [("plain", name) for name in ("digits", "digits-mine.yml")]
    assert completed("run", "--study", "dig") == plain
    assert completed("status", "--study", "m") == [("plain", "mnist-lenet"), ("plain", "my.yaml")]
    assert completed("run", "--study", "sub/") == [("plain", "sub/deep.yaml")]
    assert completed("run", "--study", "./m") == [("plain", "./my.yaml")]
    assert completed("run", "--study", f"{tmp_path}/m") == [("plain", f"{tmp_path}/my.yaml")]
    assert completed("run", "--study", "su") == [("file", "su")]  # the shell walks through folders


def test_bash_completes_once_it_has_read_what_the_command_prints():
    program = (
        'eval "$(_LTHDASK_COMPLETE=bash_source lthdask)"\n'
        "COMP_WORDS=(lthdask run --study cifar10-r); COMP_CWORD=3\n"
        "_lthdask_completion lthdask\n"
        'echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{PLAIN['PATH']}"
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, env=PLAIN | {"PATH": path}
    )
    assert done.stdout == "cifar10-resnet20\n"


def test_a_message_names_parameters_in_python_and_options_on_the_command_line():
    error = InputError("`deployment` is `odd`; see `lthdask status`, `out` and `retry_failed`")
    line = "--deploy is `odd`; see `lthdask status`, --out and --retry-failed"
    assert on_command_line(str(error)) == line
    console = Console(file=io.StringIO(), width=20)
    say(console, str(error))
    assert console.file.getvalue() == f"{line}\n"


def test_only_a_command_that_resumes_says_so_when_it_is_stopped():
    def stopped():
        raise KeyboardInterrupt

    for resumes, more in ((False, ""), (True, "; the same command picks up where it left off")):
        console = Console(file=io.StringIO())
        with pytest.raises(SystemExit, match="130"):
            exit_with(console, stopped, resumes)
        assert console.file.getvalue() == f"stopped{more}\n"


def test_what_the_library_says_is_told_with_options(tiny_file, tmp_path):
    (tmp_path / "c.yaml").write_text("lthdask: {deployment: scheduler}")
    done = invoked("plan", "--study", tiny_file, "--cluster", tmp_path / "c.yaml")
    problem = "--deploy is scheduler, but no address is given; give one with --scheduler"
    assert (done.exit_code, done.stderr) == (2, f"error: {problem}\n")


def test_every_option_that_a_message_can_name_is_one_of_a_command():
    commands = [main.commands[name] for name in ("run", "reproduce", "watch", "report", "export")]
    options = {option for which in commands for given in which.params for option in given.opts}
    assert set(OPTIONS.values()) <= options
