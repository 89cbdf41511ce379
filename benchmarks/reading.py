"""What reading results costs: CPU seconds for a cube of 4,800 cells, and for one look at a study.

    uv run python benchmarks/reading.py

Cells are synthetic, and written once; reading is measured in processes of their own, the imports
apart. Every figure is the least of five.
"""

import argparse
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from lthdask.grid import Cell
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.meanings import CURVES, LAYERS, LEARNING, METRICS, RECORD
from lthdask.storage.schema import OF_CELLS, Extent, Status

ROOT = Path(__file__).parent.parent
EPOCHS, STEPS, EVERY, LAYER_COUNT = 50, 100, 100, 53
READ = """
import json, sys, time
from pathlib import Path
from lthdask.storage.results import follow, open_results
from lthdask.storage.schema import GROUPS
from lthdask.storage.cube import Cube
from lthdask.grid import Cell
folder, what = Path(sys.argv[1]), sys.argv[2]
if what == "look":
    looks = follow(folder)
    next(looks)
    cube = Cube(folder / "results.zarr")
    cell = Cell(**json.loads(sys.argv[3]))
    status = cube.status(cell)
    cube.erase(cell)
    next(looks)
    cube.mark(cell, status)
    start = time.process_time()
    next(looks)
else:
    start = time.process_time()
    open_results(folder, *(GROUPS if what == "all" else ()))
print(time.process_time() - start)
"""


def made(folder: Path, size: int, replicates: int) -> Cell:
    """Write a cube of `size` thresholds by as many rewind epochs; return one of its cells."""
    thresholds = [round(0.5 + 0.49 * i / size, 6) for i in range(size)]
    axes = {"arm": ["ticket"], "threshold": thresholds}
    axes |= {"replicate": range(replicates), "rewind_epoch": range(size)}
    layers = [f"layer{i}.weight" for i in range(LAYER_COUNT)]
    iterations = range(EVERY, EPOCHS * STEPS + 1, EVERY)
    extent = Extent(axes, EPOCHS, layers, steps=STEPS, iterations=iterations)
    about = {"study": {"name": "made"}, "steps": STEPS}
    create_cube(folder / "results.zarr", extent, about)
    cube = Cube(folder / "results.zarr")
    by_epoch = {e: dict.fromkeys(CURVES, 0.5) for e in range(1, EPOCHS + 1)}
    inside = {i: dict.fromkeys(LEARNING, 0.5) for i in iterations}
    for replicate in range(replicates):
        cube.write_dense(replicate, by_epoch, inside)
    first = Cell("ticket", 0, thresholds[0], 0)
    cube.write(
        first,
        Status.DONE,
        dict.fromkeys(METRICS, 0.5),
        by_epoch,
        {layer: dict.fromkeys(LAYERS, 0.5) for layer in layers},
        dict.fromkeys(RECORD, 1.0),
        "node1 cuda:0",
        inside,
    )
    copied = {name: content(cube, name, first) for name in OF_CELLS}
    for replicate in range(replicates):
        for threshold in thresholds:
            for k in range(size):
                cell = Cell("ticket", replicate, threshold, k)
                for name, bytes_ in copied.items():
                    chunk = cube._chunk(name, cube._index(cell))
                    if bytes_ is not None:
                        chunk.parent.mkdir(parents=True, exist_ok=True)
                        chunk.write_bytes(bytes_)
    return first


def content(cube: Cube, name: str, cell: Cell) -> bytes | None:
    """Return the chunk of a cell, if it has one: `line` has none but for children."""
    chunk = cube._chunk(name, cube._index(cell))
    return chunk.read_bytes() if chunk.exists() else None


def least(command: list[str], times: int = 5) -> float:
    """Return the least that a command prints."""
    run = (
        subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(times)
    )
    return min(float(done.stdout) for done in run)


def status(folder: Path, times: int = 5) -> float:
    """Return the least CPU seconds of `lthdask status`, its start included."""
    found = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "lthdask", "status", str(folder)]
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def main() -> None:
    """Write the cube, read it in every way, and say what each took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=40, help="thresholds, and rewind epochs")
    parser.add_argument("--replicates", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "made"
        folder.mkdir()
        cell = made(folder, given.size, given.replicates)
        with tarfile.open(ROOT / "tests/formats/format-3.tar.xz") as packed:
            packed.extractall(place, filter="data")
        read = [sys.executable, "-c", READ, str(folder)]
        print(f"{given.size}×{given.size}×{given.replicates} cells, CPU seconds:")
        print(f"  status and metrics   {least([*read, 'metrics']):6.3f}")
        print(f"  all groups           {least([*read, 'all']):6.3f}")
        new = json.dumps(vars(cell))
        print(f"  a look, one cell new {least([*read, 'look', new]):6.3f}")
        print("a study of 16 cells:")
        print(f"  lthdask status       {status(Path(place) / 'small'):6.3f}")


if __name__ == "__main__":
    main()
