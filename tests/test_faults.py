"""What a run promises when something dies: uv run pytest -m faults.

Each test breaks one thing in a real run, lets the same study finish, and compares its
results with those of an undisturbed run, bit for bit. Files of attempts are the event log:
no cell is begun again once it is done.
"""

import functools
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
import yaml
from distributed import Client, LocalCluster, WorkerPlugin

from lthdask.cluster.client import open_client
from lthdask.cluster.overrides import SETTINGS
from lthdask.errors import InputError
from lthdask.flow import run
from lthdask.options import Options
from lthdask.storage import checkpoints
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.driver import driver_of
from lthdask.storage.folder import Folder
from lthdask.storage.results import open_results
from lthdask.storage.schema import Extent, Status
from tests.conftest import everything, ran
from tests.test_flow import RESULTS, TINY
from tests.test_run import start

pytestmark = pytest.mark.faults
# About half a second a cell: long enough to be hit, and saved several times on the way.
STUDY = TINY.changed(
    {
        "name": "faults",
        "recipe.epochs": "40",
        "grid.thresholds": "0.5,0.8,0.95",
        "grid.rewind_epochs": "0,1,2",
    }
)
INTERVAL = 0.1


@pytest.fixture(scope="session")
def undisturbed(local_client, tmp_path_factory):
    """The results of the study when nothing happens."""
    return ran(STUDY, local_client, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def command(tmp_path):
    """Return a function that starts the command on the study, or a part of its grid."""
    study, cluster = tmp_path / "study.yaml", tmp_path / "cluster.yaml"
    study.write_text(STUDY.to_yaml())
    cluster.write_text(yaml.safe_dump({"lthdask": {"checkpoint-interval": f"{INTERVAL}s"}}))
    arguments = ["--study", study, "--cluster", cluster, "--out", tmp_path / "run"]
    arguments += ["--max-attempts", "20"]
    return lambda *more: start(*arguments, *more, start_new_session=True)


def assert_equal(folder, undisturbed):
    """Check that nothing was lost, nothing changed, and nothing was done twice."""
    results = everything(folder)
    assert (results.status == Status.DONE).all()
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, undisturbed[name].values)
    for cell in Cube(folder / "results.zarr").cells():
        at = results.sel(vars(cell))
        started = [attempt["started"] for attempt in Folder(folder).runs.attempts(cell) if attempt]
        last = np.datetime64(int(1000 * max(started)), "ms")
        assert last <= at.ended, f"{cell} was begun again after it was done"
        assert at.attempts <= len(Folder(folder).runs.attempts(cell))
    assert not list(folder.glob("cells/ticket-*/state-*"))


def done(folder):
    """The cells that are done."""
    path = folder / "results.zarr"
    cells = Cube(path).cells() if path.exists() else {}
    return {cell for cell, status in cells.items() if status is Status.DONE}


def begun(folder):
    """Every attempt so far, with the name of its run."""
    names = [place.name for place in folder.glob("cells/*")]
    return [attempt | {"run": n} for n in names for attempt in Folder(folder).runs.attempts(n)]


def training(folder, driver=None):
    """The attempts whose process lives, as a child of this driver, and whose run is not done."""
    children = {child.pid for child in psutil.Process(driver).children(recursive=True)}
    finished = {str(cell) for cell in done(folder)}
    return [a for a in begun(folder) if a.get("pid") in children and a["run"] not in finished]


def saved(folder, driver=None):
    """Those of them that have saved a state."""

    def newest(run):
        times = [0.0]
        for file in (folder / "cells" / run).glob("state-*"):
            with suppress(FileNotFoundError):  # it is removed when the run is done
                times.append(file.stat().st_mtime)
        return max(times)

    return [a for a in training(folder, driver) if newest(a["run"]) > a["started"]]


def until(condition, otherwise="it did not happen", seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)  # a look opens the cube, which takes the time of a step
    return found


@contextmanager
def meanwhile(act):
    """Act in a thread while the body runs; its failure fails the test."""
    failed = []

    def guarded():
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join(60)
    assert not failed, failed


def test_a_driver_that_is_killed_again_and_again_finishes_and_never_goes_back(
    command, tmp_path, undisturbed
):
    dice, before, kills = random.Random(1), set(), 0
    while True:
        process = command("--thresholds", "0.5")
        if kills % 4:  # else while it starts
            # In turn, as it begins, or on a slow machine it would never get any further.
            reached = saved if kills % 2 else training
            ready = lambda p, reached: p.poll() is not None or reached(tmp_path / "run", p.pid)  # noqa: E731
            until(functools.partial(ready, process, reached))
        try:
            process.wait(dice.uniform(0, 1.5))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        _, errors = process.communicate()
        now = done(tmp_path / "run")
        assert now >= before
        before = now
        if process.returncode != -signal.SIGKILL:
            break
        assert kills < 40
    assert (process.returncode, errors) == (0, "")
    assert kills >= 3
    assert_equal(tmp_path / "run", undisturbed.sel(threshold=[0.5]))


def test_workers_that_are_killed_all_the_time_cost_nothing_that_is_done(tmp_path, undisturbed):
    dice, killed, over = random.Random(2), [], threading.Event()

    def kill():
        while not over.is_set() and len(killed) < 8:  # each costs seconds, of imports
            if busy := training(tmp_path):
                over.wait(dice.uniform(0.3, 1.5))
                os.kill(pid := dice.choice(busy)["pid"], signal.SIGKILL)
                killed.append(pid)
                until(lambda pid=pid: not psutil.pid_exists(pid))
            over.wait(0.05)

    with open_client(2, deployment="local") as client, meanwhile(kill):
        try:
            run(
                STUDY,
                client,
                tmp_path,
                options=Options(checkpoint_interval=INTERVAL, max_attempts=50),
            )
        finally:
            over.set()
    assert len(killed) >= 5
    assert_equal(tmp_path, undisturbed)


@pytest.mark.parametrize("workers", [1, 2])  # one alone holds tasks that it has not begun
def test_a_worker_that_is_told_to_go_loses_no_step(tmp_path, undisturbed, workers):
    told, stepped = [], set()  # before its first step, a run has nothing to save

    def watch(event):
        if event.kind == "epoch":
            stepped.add(event.name)

    def terminate():
        runs = lambda: {a["run"] for a in told} | {"dense-r0"}  # noqa: E731
        cells = lambda: [a for a in training(tmp_path) if a["run"] in stepped - runs()]  # noqa: E731
        for number in (1, 2, 3):
            (attempt, *_) = until(cells)
            told.append(attempt)
            os.kill(attempt["pid"], signal.SIGTERM)
            gone = lambda pid=attempt["pid"]: not psutil.pid_exists(pid)  # noqa: E731
            until(gone, f"worker {number} did not go")

    # So rarely saved that only those that are told to go save at all.
    with open_client(workers, deployment="local") as client, meanwhile(terminate):
        run(STUDY, client, tmp_path, watch=watch, options=Options(checkpoint_interval=1000))
    assert_equal(tmp_path, undisturbed)
    for attempt in told:
        attempts = Folder(tmp_path).runs.attempts(attempt["run"])
        after = attempts[attempts.index(attempt) + 1 :]
        if after:  # it may have been done in that very moment
            assert (after[0]["epoch"], after[0]["step"]) > (attempt["epoch"], attempt["step"])


def test_the_only_holder_of_a_checkpoint_dies_and_no_innocent_cell_is_blamed(tmp_path, undisturbed):
    killed = []

    with open_client(2, deployment="local") as client:
        pids = client.run(os.getpid)

        def kill():
            until(lambda: [a for a in training(tmp_path) if a["run"].startswith("ticket")])
            (holder, *_), *_ = (w for k, w in client.who_has().items() if "checkpoint" in k and w)
            killed.append(pids[holder])
            os.kill(killed[0], signal.SIGKILL)

        with meanwhile(kill):
            run(STUDY, client, tmp_path, options=Options(checkpoint_interval=INTERVAL))
    assert_equal(tmp_path, undisturbed)
    again = [attempt for attempt in begun(tmp_path) if attempt["pid"] == killed[0]]
    assert len(begun(tmp_path)) <= 10 + len(again)


class KilledAtStatus(WorkerPlugin):
    """Kills each worker once, as it is about to write a status."""

    def __init__(self, folder):
        self.folder = folder

    def setup(self, worker):
        mark = Path(self.folder) / f"killed-{worker.name}"

        def hook(event, arguments):
            opened = str(arguments[0]) if event == "open" else ""
            if "results.zarr/status/c" in opened and "partial" in opened and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)


def test_a_death_between_the_metrics_and_the_status_leaves_the_cell_pending(tmp_path, undisturbed):
    marks, half_done = tmp_path / "marks", []
    marks.mkdir()

    def look():
        until(lambda: list(marks.iterdir()))
        # Whatever was written, a cell without a status is not done.
        half_done.append(
            (
                len(list((tmp_path / "run/results.zarr/metrics/c").rglob("0/0/*/*/0"))),
                len(done(tmp_path / "run")),
            )
        )

    with open_client(2, deployment="local") as client, meanwhile(look):
        client.register_plugin(KilledAtStatus(str(marks)))
        run(STUDY, client, tmp_path / "run", options=Options(checkpoint_interval=INTERVAL))
    assert len(list(marks.iterdir())) == 2
    assert half_done[0][0] > half_done[0][1]
    assert_equal(tmp_path / "run", undisturbed)


def test_workers_that_live_shorter_than_a_cell_finish_it_all_the_same(
    local_client, tmp_path, undisturbed
):
    # A worker lives for at most 4 s; however fast this machine is, a cell takes longer.
    epoch = float(undisturbed.seconds.median()) / STUDY.recipe.epochs
    long = STUDY.changed(
        {
            "recipe.epochs": str(math.ceil(6 / epoch)),
            "grid.thresholds": "0.5",
            "grid.rewind_epochs": "0",
        }
    )
    whole = ran(long, local_client, tmp_path / "whole")
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            lifetime="3s",
            lifetime_stagger="1s",
            lifetime_restart=True,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        run(long, client, tmp_path / "run", options=Options(checkpoint_interval=0.5))
    lives = Counter(attempt["run"] for attempt in begun(tmp_path / "run"))
    assert min(lives.values()) > 1, lives
    assert_equal(tmp_path / "run", whole)


def begun_together(code, calls):
    """Start a process per call, and let all go on once each has said that it is ready."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *map(str, call)], **pipes) for call in calls
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


ZOMBIE = """
import sys
from lthdask.events import TaskContext
from lthdask.grid import Cell
from lthdask.options import Options
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.study import Study
from lthdask.worker.cells import train_cells
from lthdask.storage.schema import Status
from lthdask.worker.work import Work, cube_of
from pathlib import Path

path, cell = Path(sys.argv[1]), Cell("ticket", 0, 0.5, 0)
study = Study.parse((path / "study.yaml").read_text())
work = Work(
    study,
    study.engine.chosen(),
    Folder(path),
    options=Options(checkpoint_interval=0, max_attempts=100),
)
digests = work.folder.manifest().checkpoints[0]
last, first = (
    checkpoints.load(checkpoints.path_of(path, 0, e), digests[e]) for e in (40, 0)
)
print("ready", flush=True)
input()
for _ in range(3):
    cube_of(work).mark(cell, Status.PENDING)  # or there would be nothing to do
    train_cells(work, [cell], TaskContext(lambda event: None, lambda: False), last, first)
"""


def test_a_zombie_beside_its_replacement_writes_the_same_bytes(local_client, tmp_path, undisturbed):
    only = STUDY.changed({"grid.thresholds": "0.5", "grid.rewind_epochs": "0"})
    run(only, local_client, tmp_path)
    chunks = tmp_path / "results.zarr"
    arrays = {"metrics": "c/0/0/0/0/0", "curves": "c/0/0/0/0/0/0", "layers": "c/0/0/0/0/0/0"}
    before = {chunks / a / at: (chunks / a / at).read_bytes() for a, at in arrays.items()}
    for process in begun_together(ZOMBIE, [(tmp_path,), (tmp_path,)]):
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert {file: file.read_bytes() for file in before} == before
    assert (open_results(tmp_path).status == Status.DONE).all()


WRITER = """
import sys, random
from pathlib import Path
from lthdask.storage.cube import Cube
from lthdask.storage.schema import METRICS, CURVES, LAYERS, RECORD, Status

cube, number = Cube(Path(sys.argv[1])), int(sys.argv[2])
cells = list(cube.cells())
random.Random(number).shuffle(cells)
print("ready", flush=True)
input()
for cell in cells:
    value = cell.threshold + cell.rewind_epoch  # the same from every writer
    cube.write(
        cell,
        Status.DONE,
        dict.fromkeys(METRICS, value),
        {e: dict.fromkeys(CURVES, value) for e in cube.axis("epoch")},
        {name: dict.fromkeys(LAYERS, value) for name in cube.axis("layer")},
        dict.fromkeys(RECORD, number),
        str(number),
    )
"""


def test_eight_writers_and_readers_beside_them_never_show_half_a_cell(tmp_path):
    axes = {
        "arm": ["ticket"],
        "replicate": [0],
        "threshold": [i / 32 for i in range(1, 32)],
        "rewind_epoch": list(range(4)),
    }
    create_cube(tmp_path / "results.zarr", Extent(axes, 3, ["a", "b"]), {})
    cube = Cube(tmp_path / "results.zarr")
    everything(cube.path)  # imports what reading needs, before the writers begin
    writers = begun_together(WRITER, [(cube.path, number) for number in range(8)])
    shown_by, seen = ["test_accuracy", "layer_density", "train_loss_curve"], set()
    while True:
        living = any(writer.poll() is None for writer in writers)
        results = everything(cube.path)
        status = results.status
        expected = (results.threshold + results.rewind_epoch).where(status == Status.DONE)
        for name in shown_by:
            shown = results[name].where(status == Status.DONE)
            wanted = expected.broadcast_like(shown).transpose(*shown.dims)
            wanted = 100 * wanted if name == "test_accuracy" else wanted
            np.testing.assert_array_equal(shown.values, wanted.values)
        seen.add(int((status == Status.DONE).sum()))
        for _ in range(3):  # quick looks between the whole ones
            seen.add(int((open_results(cube.path).status == Status.DONE).sum()))
        if not living:
            break
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert max(seen) == 124
    assert len(seen) > 1, f"the readers saw it fill: {seen}"
    assert set(results.place.values.ravel()) <= {str(number) for number in range(8)}
    assert not list(tmp_path.rglob("*.partial"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs root, to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_one_sentence_and_the_study_goes_on_after_room_is_made(
    local_client, small_disk, undisturbed
):
    folder, filler = small_disk / "run", small_disk / "filler"

    def fill(event):
        if event.kind == "cell" and not filler.exists():
            with open(filler, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass

    problem = r"cannot write to .*: No space left on device; make room, and run the same command"
    with pytest.raises(InputError, match=problem):
        run(STUDY, local_client, folder, watch=fill, options=Options(checkpoint_interval=INTERVAL))
    first = done(folder)
    assert 0 < len(first) < 9
    with pytest.raises(InputError, match="No space left on device"):
        run(STUDY, local_client, folder)
    assert done(folder) == first
    filler.unlink()
    run(STUDY, local_client, folder)
    assert_equal(folder, undisturbed)


def test_a_signal_to_the_whole_group_ends_in_order_and_loses_no_step(
    command, tmp_path, undisturbed
):
    process = command()
    folder = tmp_path / "run"
    until(lambda: [a for a in training(folder, process.pid) if "ticket" in a["run"]])
    for each in [process, *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGTERM)  # as a batch system does
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command picks up where it left off" in output
    assert "Traceback" not in output + errors
    assert driver_of(folder) is None
    again = command()
    output, errors = again.communicate(timeout=120)
    assert (again.returncode, errors) == (0, "")
    assert_equal(folder, undisturbed)


def test_of_two_drivers_at_once_one_is_refused_and_told_who_the_other_is(
    command, tmp_path, undisturbed
):
    both = [command(), command()]
    ends = [process.communicate(timeout=120) for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2]
    winner, loser = codes.index(0), codes.index(2)
    assert f"is being run by process {both[winner].pid} on " in ends[loser][1]
    assert "Traceback" not in ends[loser][1]
    assert_equal(tmp_path / "run", undisturbed)


def test_a_folder_of_temporary_files_that_was_emptied_is_no_error_at_the_end(tmp_path):
    code = (
        "import os, shutil; from lthdask.cluster.local import _make_folder_of_sockets\n"
        "_make_folder_of_sockets(); shutil.rmtree(os.environ['TMPDIR'])"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


class ClockSetBack(WorkerPlugin):
    """The clock of a worker goes back by four seconds while it trains.

    For as long, Dask itself sends nothing: its batches wait for a time of day.
    """

    def setup(self, worker):
        real, later = time.time, time.monotonic() + 2
        time.time = lambda: real() - (4 if time.monotonic() > later else 0)


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, undisturbed):
    with open_client(2, deployment="local") as client:
        client.register_plugin(ClockSetBack())
        results = ran(STUDY, client, tmp_path, options=Options(checkpoint_interval=INTERVAL))
        clocks = client.run(lambda: time.time())
    assert min(clocks.values()) < time.time() - 2
    assert (results.seconds > 0).all()
    for name in RESULTS:
        np.testing.assert_array_equal(results[name].values, undisturbed[name].values)
    assert len(begun(tmp_path)) == 10


def assert_others_equal(results, undisturbed, broken):
    """Check that all cells but the broken ones are as if nothing had happened."""
    for name in RESULTS:
        if "threshold" in results[name].dims:
            others = ~broken
            np.testing.assert_array_equal(
                results[name].where(others).values, undisturbed[name].where(others).values
            )


def test_a_nan_in_one_cell_is_that_cell_s_outcome_and_nobody_else_s(
    local_client, tmp_path, undisturbed
):
    run(STUDY.changed({"grid.thresholds": "0.5"}), local_client, tmp_path)
    folder = Folder(tmp_path)
    manifest, path = folder.manifest(), checkpoints.path_of(tmp_path, 0, 1)
    state = checkpoints.load(path, manifest.checkpoints[0][1])
    state.weights["5.bias"][:] = float("nan")
    digests = {**manifest.checkpoints[0], 1: checkpoints.save(path, state)}
    folder.write_manifest(manifest.with_dense_run(0, digests))
    results = ran(STUDY, local_client, tmp_path)
    broken = (results.rewind_epoch == 1) & (results.threshold > 0.5)
    assert (results.status.where(broken, Status.DIVERGED) == Status.DIVERGED).all()
    assert (results.status.where(~broken, Status.DONE) == Status.DONE).all()
    assert_others_equal(results, undisturbed, broken & (results.status == Status.DIVERGED))


def test_an_exception_in_one_cell_is_tried_again_and_then_kept_with_its_traceback(
    local_client, tmp_path, undisturbed
):
    run(STUDY.changed({"grid.thresholds": "0.5"}), local_client, tmp_path)
    chunk = tmp_path / "results.zarr/curves/c/0/0/2/0"
    chunk.parent.mkdir(parents=True)
    chunk.write_text("in the way")
    results = ran(STUDY, local_client, tmp_path, options=Options(max_attempts=2))
    broken = (results.threshold == 0.95) & (results.rewind_epoch == 0)
    assert (results.status.where(broken, Status.FAILED) == Status.FAILED).all()
    assert int((results.status == Status.DONE).sum()) == 8
    assert_others_equal(results, undisturbed, broken & (results.status == Status.FAILED))
    place = Folder(tmp_path).runs.of("ticket-r0-t0.95-k0")
    assert len(Folder(tmp_path).runs.attempts("ticket-r0-t0.95-k0")) == 2
    assert "NotADirectoryError" in (place / "traceback.txt").read_text()
    chunk.unlink()
    run(STUDY, local_client, tmp_path, options=Options(retry_failed=True))
    assert not (place / "traceback.txt").exists()
    assert_equal(tmp_path, undisturbed)


class Greedy(WorkerPlugin):
    """One cell asks for more memory than its worker may have."""

    def setup(self, worker):
        def hook(event, arguments):
            opened = str(arguments[0]) if event == "open" else ""
            if "ticket-r0-t0.8-k1/.state-" in opened:
                hoard.append(np.ones(300_000_000))
                time.sleep(60)

        hoard: list[object] = []
        sys.addaudithook(hook)


def test_a_cell_that_runs_out_of_memory_is_failed_and_blocks_no_other(tmp_path, undisturbed):
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            2,
            threads_per_worker=1,
            memory_limit="1.5GB",
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Greedy())
        results = ran(
            STUDY, client, tmp_path, options=Options(checkpoint_interval=INTERVAL, max_attempts=2)
        )
    broken = (results.threshold == 0.8) & (results.rewind_epoch == 1)
    assert (results.status.where(broken, Status.FAILED) == Status.FAILED).all()
    assert int((results.status == Status.DONE).sum()) == 8
    assert_others_equal(results, undisturbed, broken & (results.status == Status.FAILED))
    reason = Folder(tmp_path).runs.reason("ticket-r0-t0.8-k1")
    assert "2 attempts ended without getting further than epoch 1, step 0" in reason
    assert "because it ran out of memory" in reason
