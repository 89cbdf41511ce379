"""What other users of a machine may do with a study: read it, as far as its files let them."""

import errno
import fcntl
import json
import os
import pickle
import platform
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

import lthdask
from lthdask.commands.main import main
from lthdask.data.copies import Form, Header
from lthdask.data.inputs import inputs_of
from lthdask.data.readers import DataSource, load
from lthdask.driver.opening import driving_study
from lthdask.errors import InputError
from lthdask.options import Options
from lthdask.storage.driver import driver_of, driving
from lthdask.storage.log import StudyLog
from tests.trained import STUDY, trained

NOBODY = 65534
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")


def as_nobody(body, *arguments):
    """Return what a function returns, or the error that it raises, as another user."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
            try:
                found = body(*arguments)
            except BaseException as error:
                found = error
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(found, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(found)


def typed(*arguments):
    done = CliRunner().invoke(main, [*map(str, arguments)], prog_name="lthdask")
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def place():
    """A folder that everybody may look into, unlike those of pytest."""
    place = Path(tempfile.mkdtemp(prefix="lthdask-others-", dir="/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def whole(place):
    before = os.umask(0o022)
    trained(place / "whole", STUDY.changed({"grid.replicates": "1"}), Options(keep="all"))
    log = StudyLog()
    with log.kept():
        log.write(place / "whole" / "log.txt")
        log.lines.info("begun")
    assert typed("report", place / "whole")[0] == 0
    os.umask(before)
    return place / "whole"


@pytest.fixture
def folder(whole, place):
    yield shutil.copytree(whole, place / "copy")
    shutil.rmtree(place / "copy")


@pytest.fixture
def elsewhere(place):
    folder = place / "elsewhere"
    folder.mkdir()
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def contents(folder):
    return {f: (f.lstat().st_mtime_ns, f.lstat().st_mode) for f in (folder, *folder.rglob("*"))}


def test_whatever_a_study_writes_follows_the_mask_of_its_user(whole):
    modes = {(f.is_dir(), stat.S_IMODE(f.stat().st_mode)) for f in whole.rglob("*")}
    assert modes == {(True, 0o755), (False, 0o644)}
    assert not [*whole.glob(".*")]


@as_root
def test_a_reader_may_do_all_that_writes_nothing_there_and_leaves_nothing(whole, elsewhere):
    before = contents(whole)
    commands = [
        ("status", whole),
        ("check", whole),
        ("results", whole),
        ("report", whole, "-o", elsewhere / "page.html"),
        ("masks", whole, "--threshold", "0.5", "-o", elsewhere / "mask.safetensors"),
    ]
    for command in commands:
        ours = typed(*command)  # which also imports what another user may not read
        for file in elsewhere.iterdir():
            file.unlink()
        assert as_nobody(typed, *command) == ours
        assert ours[0] == 0
    ticket = next((whole / "tickets").iterdir())
    for look in (
        lambda: lthdask.open_results(whole, "records").status.values.tolist(),
        lambda: next(lthdask.follow(whole)).status.values.tolist(),
        lambda: lthdask.load_ticket(ticket).density,
        lambda: len(lthdask.open_mask(whole, 0.5)),
    ):
        assert as_nobody(look) == look()
    with driving(whole):
        theirs = as_nobody(typed, "status", whole)
        assert f"being run by process {os.getpid()} on {platform.node()}, since 2" in theirs[1]
    left = contents(whole)
    assert left.pop(whole)[1] == before.pop(whole)[1]  # a driver came and went
    assert left == before


UNREADABLE = {
    "study.yaml": ("status", "check"),
    "manifest.json": ("status", "check"),
    "results.zarr/zarr.json": ("status", "results", "check"),
    "results.zarr/metrics/c/0/0/0/0/0": ("results", "check"),
    "checkpoints/replicate-0/epoch-0002.safetensors": ("check", "masks"),
    "cells/ticket-r0-t0.5-k0/attempt-1.json": ("check",),
    "tickets/ticket-r0-t0.5-k0.safetensors": ("check",),
    "cells": ("check",),
    ".": ("status", "results", "check", "report", "masks"),
}


@as_root
@pytest.mark.parametrize("file", UNREADABLE)
def test_what_may_not_be_read_is_named_and_is_no_damage(folder, elsewhere, file):
    typed("check", folder)
    (folder / file).chmod(0o700 if (folder / file).is_dir() else 0o600)
    more = {
        "masks": ("--threshold", "0.5", "-o", elsewhere / "mask"),
        "report": ("-o", elsewhere / "page"),
    }
    for command in UNREADABLE[file]:
        code, said = as_nobody(typed, command, folder, *more.get(command, ()))
        assert (code, said.count("\n")) == (2, 1), said
        assert f"error: {folder / file}" in said
        assert "may not be read by this user; it is root who can allow it, with: chmod " in said
        assert "damage" not in said
        assert "anew" not in said


@as_root
def test_who_may_not_write_is_told_so_before_anything_starts(folder):
    def begun():
        with driving_study(STUDY, folder):
            pass

    typed("check", folder, "--repair")
    code, said = as_nobody(typed, "check", folder, "--repair")
    assert (code, f"{folder} may not be written by this user" in said) == (2, True), said
    code, said = as_nobody(typed, "report", folder)
    assert code == 2
    assert said == (
        f"error: {folder}/report.html cannot be written; write it elsewhere with -o FILE\n"
    )
    refused = as_nobody(begun)
    assert isinstance(refused, InputError), refused
    assert f"cannot write to the folder {folder}: {folder} is not writable" in str(refused)
    folder.chmod(0o777)
    refused = as_nobody(begun)
    assert isinstance(refused, InputError), refused
    assert "may not be written by this user" in str(refused)
    assert str(folder / "c") in str(refused)


@as_root
def test_a_prepared_copy_that_may_not_be_read_is_one_sentence(place):
    copy, source = place / "copy", DataSource("folder", 8, 2)
    copy.mkdir()
    header = copy / "prepared.json"
    header.write_bytes(Header(Form(source.view, False)).to_json())
    for path, mode in ((header, 0o600), (copy, 0o700)):
        path.chmod(mode)
        for ask in (inputs_of, load):
            refused = as_nobody(ask, source, copy)
            assert isinstance(refused, InputError), refused
            assert f"{header} may not be read by this user; it is root who" in str(refused)


@as_root
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o600), (0o002, 0o660), (0o077, 0o600)])
def test_nobody_holds_the_lock_who_may_not_write(place, elsewhere, mask, mode):
    before = os.umask(mask)
    try:
        with driving(elsewhere):
            lock = elsewhere / ".driver.lock"
            assert stat.S_IMODE(lock.stat().st_mode) == mode
            for how in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
                assert isinstance(as_nobody(os.open, lock, how), PermissionError)
    finally:
        os.umask(before)
    assert not [*elsewhere.iterdir()]


def killed(folder):
    """Have a driver die at its work."""
    if (child := os.fork()) == 0:
        at_work = driving(folder)
        at_work.__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_a_reader_that_holds_what_it_can_keeps_no_driver_out(tmp_path):
    killed(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {".driver.lock", ".driver.json"}
    with (tmp_path / ".driver.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with driving(tmp_path):
            assert f"process {os.getpid()} on" in driver_of(tmp_path)
            with pytest.raises(InputError, match="is being run by"), driving(tmp_path):
                pass
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_a_file_stands_for_one(tmp_path, monkeypatch, caplog, code):
    def refuse(file, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    name = tmp_path / ".driver.json"
    for _ in range(2):
        with driving(tmp_path):
            assert "has no locks; .driver.json stands for one" in caplog.text
            assert f"process {os.getpid()} on" in driver_of(tmp_path)
            refused = pytest.raises(InputError, match=f"has no locks: .* killed, remove {name}")
            with refused, driving(tmp_path):
                pass
        assert driver_of(tmp_path) is None
        killed(tmp_path)
        assert driver_of(tmp_path) is None  # it died here, which can be seen
    name.write_text(json.dumps({"host": "node9", "pid": 7, "since": "2026"}))
    assert driver_of(tmp_path) == "process 7 on node9, since 2026"
    with pytest.raises(InputError, match="by process 7 on node9"), driving(tmp_path):
        pass
    name.unlink()
    with driving(tmp_path):
        pass
    assert not name.exists()


def test_without_locks_only_one_of_two_that_begin_at_once_goes_on(tmp_path, monkeypatch):
    name, exists = tmp_path / ".driver.json", Path.exists

    def refuse(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def late(path):  # the other one writes its name after this one has looked for it
        found = exists(path)
        if path == name:
            name.write_text(json.dumps({"host": "node9", "pid": 7, "since": "2026"}))
        return found

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    monkeypatch.setattr(Path, "exists", late)
    with pytest.raises(InputError, match="is being run by process 7 on node9"), driving(tmp_path):
        pass


def test_a_check_and_a_run_can_do_without_what_another_version_left(tmp_path):
    (tmp_path / ".driver.lock").touch()
    with driving(tmp_path):
        assert stat.S_IMODE((tmp_path / ".driver.lock").stat().st_mode) == 0o600
    assert not [*tmp_path.iterdir()]
