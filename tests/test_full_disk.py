"""What is said, and done, where a folder cannot be used any more, as tables."""

import errno
import os
import resource
from dataclasses import replace

import pytest

from lthdask.driver.attempts import Attempts
from lthdask.driver.full_disk import is_unusable, raise_if_full, said_when_full
from lthdask.errors import InputError
from lthdask.options import Options
from lthdask.storage.folder import Folder
from lthdask.worker.work import Work
from tests.test_cells import Written
from tests.test_tasks import STUDY


def problem(name, file=None):
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), file and str(file))


SAID = {
    "ENOSPC": "cannot write to {}: No space left on device; make room, and run",
    "EDQUOT": "cannot write to {}: Disk quota exceeded; make room, and run",
    "EROFS": "{} may not be read or written: Read-only file system; allow it, and run",
    "EACCES": "{} may not be read or written: Permission denied; allow it, and run",
    "EIO": "cannot use {}: Input/output error; once it can be used again, run",
    "ESTALE": "cannot use {}: Stale file handle; once it can be used again, run",
    "EHOSTDOWN": "cannot use {}: Host is down; once it can be used again, run",
}


@pytest.mark.parametrize("name", SAID)
def test_a_folder_that_cannot_be_used_is_one_sentence_that_says_what_to_do(tmp_path, name):
    for file in (None, tmp_path / "cells"):
        with pytest.raises(InputError) as error, said_when_full(tmp_path):
            raise problem(name, file)
        rest = " the same command again; what is done is kept"
        assert str(error.value) == SAID[name].format(file or tmp_path) + rest


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOMEM", "ENOTDIR"])
def test_what_a_process_lacks_is_not_said_of_the_folder(tmp_path, name):
    assert not is_unusable(tmp_path, problem(name, tmp_path / "cells"))
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))), said_when_full(tmp_path):
        raise problem(name)


def test_a_folder_that_only_a_worker_has_lost_does_not_stop_the_run(tmp_path):
    raise_if_full(tmp_path, problem("ESTALE", tmp_path / "cells"))
    assert not list(tmp_path.iterdir())
    raise_if_full(tmp_path / "lost", problem("ENOSPC", "/tmp/another/disk"))
    with pytest.raises(FileNotFoundError):  # here, as there is nothing at all
        raise_if_full(tmp_path / "lost", problem("ESTALE", tmp_path / "lost" / "cells"))


def test_a_limit_of_files_that_workers_have_inherited_stops_the_run(tmp_path):
    raise_if_full(tmp_path, problem("EFBIG", tmp_path / "cells"))  # one worker's alone
    now, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, most))
    try:
        with pytest.raises(InputError) as error, said_when_full(tmp_path):
            raise_if_full(tmp_path, problem("EFBIG", tmp_path / "cells"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (now, most))
    assert str(error.value) == (
        f"cannot write to {tmp_path / 'cells'}: a process may write no larger file; raise the "
        f"limit, which `ulimit -f` shows as 1048576; run the same command again; what is done is "
        f"kept"
    )


@pytest.mark.parametrize(
    ("outcome", "ends"), [(problem("ESTALE"), "raised"), (RuntimeError("CUDA"), "failed")]
)
def test_no_cell_is_failed_because_workers_cannot_use_the_folder(tmp_path, outcome, ends):
    work = Work(STUDY, STUDY.engine.chosen(), Folder(tmp_path), options=Options(max_attempts=3))
    attempts = Attempts(work, Written(1))
    assert [attempts.again("a-cell", outcome) for _ in range(2)] == [True, True]
    if ends == "failed":
        assert not attempts.again("a-cell", outcome)
    else:
        with pytest.raises(OSError, match="Stale file handle"):
            attempts.again("a-cell", outcome)


def test_data_that_cannot_be_read_for_a_while_fail_no_cell_either(tmp_path):
    work = Work(STUDY, STUDY.engine.chosen(), Folder(tmp_path), data=tmp_path / "data")
    work = replace(work, options=Options(max_attempts=1))
    attempts = Attempts(work, Written(1))
    with pytest.raises(OSError, match="Input/output error"):
        attempts.again("a-cell", problem("EIO", tmp_path / "data" / "5.jpg"))
