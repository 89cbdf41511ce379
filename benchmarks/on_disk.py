"""100,000 cells on disk: uv run python benchmarks/on_disk.py [--cells N] [--keep DIR].

Dense runs are trained, and one cell of each, by `lthdask.run`. The cube grows by what a run
calls. All other cells are written as bytes, which is quicker; the first of them is written by
`Cube.write` as well, and the bytes are compared. Then every command runs in a process of its own:
seconds, CPU seconds, and the most memory that it held, its workers not counted. Files were just
written, so they come from the system's cache.
"""

import argparse
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from math import sin
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from lthdask import Study, open_client, run
from lthdask.driver.opening import driving_study
from lthdask.driver.preparing import write_down
from lthdask.events import TaskContext
from lthdask.grid import Cell
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.identity import digests, run_of
from lthdask.storage.meanings import CURVES, LAYERS, METRICS, RECORD
from lthdask.storage.schema import Status
from lthdask.worker.tasks import look_around
from lthdask.worker.work import Work

EPOCHS, REPLICATES, ARMS, WORKERS = 100, 5, ("ticket", "random_mask"), 16
LIMIT = 10, 500
"""What a command may take: seconds, and MB."""
COMMAND = """
import atexit, sys
from pathlib import Path

def tell():
    lines = Path("/proc/self/status").read_text().splitlines()
    most = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    Path(told).write_text(str(most / 1000))

told = sys.argv.pop(1)
sys.argv[0] = "lthdask"
atexit.register(tell)
from lthdask.commands.main import main
main()
"""
"""A command that tells, as it ends, the most memory it held, in MB. What the system keeps for who
waits counts the process that it was forked from, too."""
SMALL = {
    "network.name": "lenet_300_100",
    "data.image_size": "8",
    "recipe.epochs": str(EPOCHS),
    "keep_until": str(EPOCHS - 1),
    "engine.device": "cpu",
    "engine.precision": "float32",
    "grid.replicates": str(REPLICATES),
}


def changes(thresholds: int) -> dict[str, str]:
    """Return what makes the study whose cells fill the folder, of so many thresholds."""
    values = (f"{0.5 + 0.49 * row / (thresholds + 1):.6f}" for row in range(thresholds))
    return SMALL | {
        "grid.thresholds": ",".join(values),
        "grid.rewind_epochs": ",".join(map(str, range(EPOCHS))),
        "grid.arms": ",".join(ARMS),
    }


def make(place: Path, thresholds: int) -> None:
    """Make the folder of a study in which every cell is done."""
    digits = Study.read("digits")
    one = {"grid.rewind_epochs": str(EPOCHS - 1), "grid.thresholds": "0.5", "grid.arms": ARMS[0]}
    with open_client(2, deployment="local", say=lambda line: None) as client:
        run(digits.changed(SMALL | one), client, place)
    with driving_study(digits.changed(changes(thresholds)), place) as opened:
        work = Work(opened.study, opened.engine, opened.folder, recorded=opened.data)
        with opened.folder.probe() as probe:
            around = look_around(work, probe, TaskContext(print, lambda: False))
        _, cube = write_down(opened, around)
        left = [cell for cell, status in opened.cells.items() if status != Status.DONE]
        _require_same_bytes(cube, left[0])
        for number, cell in enumerate(left):
            write(cube, opened.folder, cell, number)


def write(cube: Cube, folder: Folder, cell: Cell, number: int) -> None:
    """Write a cell, and its attempt."""
    for file, content in chunks(cube, cell, number).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    about = {"run": str(cell), "started": 1.7e9, "place": "made", "pid": 1, "driver": "0"}
    folder.runs.of(cell).mkdir(parents=True, exist_ok=True)
    attempt = about | {"epoch": cell.rewind_epoch, "step": 0, "beside": 1}
    (folder.runs.of(cell) / "attempt-1.json").write_text(json.dumps(attempt))


def results_of(cube: Cube, cell: Cell, number: int) -> dict[str, Any]:
    """Return what a cell holds, by array; made up, but no two are the same."""
    k, noise = int(cell.epochs_before()), 0.005 * sin(number)
    accuracy = 0.9 + noise - 0.3 * max(0.0, cell.threshold - (0.7 + 0.002 * k))
    metrics = dict.fromkeys(METRICS, accuracy) | {"density": 1 - cell.threshold}
    metrics |= {"epochs_trained": EPOCHS - k, "parameters_left": 1 - cell.threshold}
    curves = np.full((EPOCHS, len(CURVES)), np.nan)
    curves[k:] = accuracy - 0.3 / np.arange(1, EPOCHS - k + 1)[:, None]
    layer = {"density": 1 - cell.threshold, "dead_channels": 0.0, "cutoff": 0.1}
    began = 1.7e9 + 2.0 * (number // WORKERS)
    record = {"seconds": 2.0, "attempts": 1.0, "started": began, "ended": began + 2.0}
    layers = np.array([[layer[name] for name in LAYERS]] * len(cube.axis("layer")))
    return {
        "metrics": np.array([metrics[name] for name in METRICS]),
        "curves": curves,
        "layers": layers,
        "record": np.array([record[name] for name in RECORD]),
        "place": f"made{number % WORKERS} cpu",
        "status": int(Status.DONE),
    }


def chunks(cube: Cube, cell: Cell, number: int) -> dict[Path, bytes]:
    """Return the chunks of a cell: file → what it holds."""
    values = results_of(cube, cell, number)
    values["digests"] = digests(run_of(cube.identity, str(cell)), values)
    index = cube._index(cell)
    return {cube._chunk(name, index): packed(of) for name, of in values.items()}


def packed(of: Any) -> bytes:
    """Return what Zarr writes of a value: as bytes, and their checksum."""
    if isinstance(of, str):
        content = struct.pack("<II", 1, len(of.encode())) + of.encode()
    else:
        content = bytes([of]) if isinstance(of, int) else np.asarray(of, "<f8").tobytes()
    return content + struct.pack("<I", google_crc32c.value(content))


def _require_same_bytes(cube: Cube, cell: Cell) -> None:
    """Write a cell as a worker does, and compare it."""
    of = results_of(cube, cell, 0)
    curves = {e + 1: dict(zip(CURVES, row, strict=True)) for e, row in enumerate(of["curves"])}
    layers = zip(cube.axis("layer"), of["layers"], strict=True)
    cube.write(
        cell,
        Status.DONE,
        dict(zip(METRICS, of["metrics"], strict=True)),
        curves,
        {name: dict(zip(LAYERS, row, strict=True)) for name, row in layers},
        dict(zip(RECORD, of["record"], strict=True)),
        of["place"],
    )
    for file, content in chunks(cube, cell, 0).items():
        assert file.read_bytes() == content, file


def counted(folder: Path, cells: int) -> str:
    """Return how many files and folders there are for a cell, and what they take on disk."""
    files = folders = taken = 0
    for place, inside, names in os.walk(folder):
        files, folders = files + len(names), folders + len(inside)
        every = (os.lstat(os.path.join(place, name)) for name in (*inside, *names))
        taken += sum(about.st_blocks * 512 for about in every)
    return (
        f"{files / cells:.2f} files and {folders / cells:.2f} folders a cell, "
        f"{taken / cells / 1000:.1f} kB of blocks"
    )


def measure(what: str, command: Sequence[str], until: str = "") -> None:
    """Run a command, and print what it took; one with `until` is stopped once it says this."""
    before = time.perf_counter()
    with tempfile.NamedTemporaryFile() as told:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, told.name, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        said, at = list[str](), dict[str, float]()
        for line in process.stdout:
            said.append(line)
            for word in ("to train", " done: "):
                if word in line:
                    at.setdefault(word.strip(" :"), time.perf_counter() - before)
            if until and until in line:
                process.send_signal(signal.SIGINT)
        _, code, usage = os.wait4(process.pid, 0)
        took, most = time.perf_counter() - before, float(told.read() or "nan")
    assert os.waitstatus_to_exitcode(code) == (130 if until else 0), "".join(said[-20:])
    parts = "".join(f", {word!r} after {passed:.1f}" for word, passed in at.items())
    over = " OVER" if took > LIMIT[0] or most > LIMIT[1] else ""
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{what:28} {took:6.1f} s, CPU {cpu:6.1f} s, {most:5.0f} MB{over}{parts}", flush=True)


def measure_all(place: Path, thresholds: int) -> None:
    """Measure each command on a folder in which every cell is done."""
    study, more = place.parent / "asked.yaml", place.parent / "more.yaml"
    digits = Study.read("digits").changed(changes(thresholds))
    study.write_text(digits.to_yaml())
    grown = f"{','.join(map(str, digits.grid.thresholds))},0.995"
    more.write_text(digits.changed({"grid.thresholds": grown}).to_yaml())
    again = ["run", "--out", str(place), "--workers", "1", "--deploy", "local", "--study"]
    measure("status", ["status", str(place)])
    measure("results", ["results", str(place)])
    measure("report", ["report", str(place)])
    measure("run, all is done", [*again, str(study)])
    cube = Cube(place / "results.zarr")
    last = Cell("ticket", REPLICATES - 1, digits.grid.thresholds[-1], EPOCHS - 1)
    cube.erase(last)
    measure("run, a cell is left", [*again, str(study)])
    measure("check", ["check", str(place)])
    measure("growth, until a cell is done", [*again, str(more)], until=" done:")


def main() -> None:
    """Make the folder, count its files, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="make the folder here, or take the one there")
    given = parser.parse_args()
    thresholds = max(2, given.cells // (EPOCHS * REPLICATES * len(ARMS)))
    with tempfile.TemporaryDirectory() as aside:
        place = (given.keep or Path(aside)) / "made"
        if not place.exists():
            before = time.perf_counter()
            make(place, thresholds)
            print(f"made in {time.perf_counter() - before:.0f} s")
        cells = thresholds * EPOCHS * REPLICATES * len(ARMS)
        print(f"{cells:,} cells: {counted(place, cells)}")
        measure_all(place, thresholds)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
