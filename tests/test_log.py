"""What the log of a study promises: it has what was said, and never stands in the way of a run."""

import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner

from lthdask.commands.main import main
from lthdask.commands.training import _end_in
from lthdask.errors import InputError
from lthdask.storage.folder import Folder
from lthdask.storage.log import StudyLog
from tests.test_flow import TINY

WARNED = """
import logging, sys
from pathlib import Path
from lthdask.storage.log import StudyLog
with StudyLog().kept() as log:
    log.lines.info("it begins")
    logging.getLogger("lthdask.flow").warning("of a %s", "worker")
    log.write(Path(sys.argv[1]))
    log.lines.info("50 % → done")
logging.getLogger("lthdask.flow").warning("later")
"""


def lines(file):
    """The level and the message of each line; all begin with a time."""
    found = [re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} (.*)", line) for line in file]
    return [line[1] for line in found]


def test_a_log_has_what_was_said_before_it_was_opened_and_warnings_are_still_on_the_console(
    tmp_path,
):
    file = tmp_path / "log.txt"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", WARNED, file], capture_output=True, text=True, check=True
        )
        assert done.stderr == "of a worker\nlater\n"
    told = ["INFO it begins", "WARNING of a worker", "INFO 50 % → done"]
    assert lines(file.read_text(encoding="utf-8").splitlines()) == 2 * told


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (InputError("`out` is full"), ["ERROR ended: --out is full"]),
        (KeyboardInterrupt(), ["WARNING stopped after 0 s"]),
        (KeyError("odd"), ["CRITICAL ended by an unexpected error"]),
        (None, ["INFO ended after 0 s"]),
    ],
)
def test_a_log_tells_how_a_run_ended(tmp_path, error, ends):
    file = tmp_path / "log.txt"
    raised = pytest.raises(type(error)) if error else nullcontext()
    with raised, StudyLog().kept() as log, _end_in(log):
        log.write(file)
        if error:
            raise error
    first, end, *traceback = file.read_text().splitlines()
    assert re.search(r" INFO .*: process \d+ on .*, lthdask .*, torch .*, python 3", first)
    assert lines([end]) == ends
    unexpected = isinstance(error, KeyError)
    assert (traceback[-1:] == ["KeyError: 'odd'"]) == unexpected
    assert bool(traceback) == unexpected


def test_a_full_disk_under_the_log_is_said_once_and_nothing_is_raised(caplog):
    with StudyLog().kept() as log:
        log.write(Path("/dev/full"))
        for number in range(3):
            log.lines.info("%d", number)
    said = "cannot write /dev/full: No space left on device; the run goes on without it"
    assert caplog.messages == [said]


def test_a_quiet_run_says_what_went_wrong_and_goes_on_without_a_log(tmp_path, running, caplog):
    (tmp_path / "tiny.yaml").write_text(TINY.changed({"recipe.optimizer.rate": "1e30"}).to_yaml())
    log = tmp_path / "run" / "log.txt"
    log.mkdir(parents=True)
    arguments = ["run", "--study", tmp_path / "tiny.yaml", "--out", log.parent, "--quiet"]
    done = CliRunner().invoke(main, [*map(str, arguments), "--scheduler", running])
    assert (done.exit_code, done.stdout) == (1, "")
    failed = [f"ticket-r0-t{t}-k{k} failed" for t in ("0.5", "0.95") for k in (0, 2)]
    *went_wrong, why = done.stderr.splitlines()
    assert sorted(went_wrong) == ["dense run 0 failed", *failed]
    assert re.fullmatch(r"failed: .*the loss is nan in epoch 1; see .*traceback.txt", why)
    said = [record.message for record in caplog.records if record.name.startswith("lthdask")]
    assert said == [f"cannot write {log}: Is a directory; the run goes on without it"]


def test_a_log_alone_keeps_no_study_out_of_a_folder(tmp_path):
    (tmp_path / "log.txt").touch()
    Folder(tmp_path).check()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="such as notes.txt"):
        Folder(tmp_path).check()
