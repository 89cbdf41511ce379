"""Before anything is trained: what the folder holds, what is left to do, and on what engine."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from lthdask.cluster.queue import Queue, Task
from lthdask.errors import InputError
from lthdask.grid import Cell, is_applicable, longest_first
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status, create_cube
from lthdask.study import Study
from lthdask.training.engine import Engine
from lthdask.worker.tasks import Surroundings, look_around
from lthdask.worker.work import Work

PACKAGES = ("lthdask", "torch", "torchvision", "numpy", "dask", "distributed", "zarr")

log = logging.getLogger(__name__)


def existing(study: Study, out: str | Path | None = None) -> Folder:
    """Return the folder of a study, which need not exist, if it can be gone on with.

    Raises
    ------
    InputError
        If it cannot be written, or holds another study, or one that cannot grow to this.
    """
    folder = Folder(Path(out or Path("runs") / study.name))
    folder.check()
    text = folder.study()
    if text is None:
        return folder
    before = Study.parse(text, str(folder.path / "study.yaml"))
    if lines := before.differences(study):
        raise InputError(
            f"the folder {folder.path} holds another study; give another one with --out, or "
            f"the same settings: " + "; ".join(lines)
        )
    kept, last = before.kept_until, study.grid.rewind_epochs[-1]
    if last > kept:
        raise InputError(
            f"the grid cannot grow to rewind epoch {last}: the folder {folder.path} keeps "
            f"complete states of its dense runs until epoch {kept}; give another one with --out"
        )
    engine_for(study, folder)
    return folder


@dataclass(frozen=True)
class Remaining:
    """What a run of a study would train.

    Attributes
    ----------
    cells : list of Cell
        Longest first.
    dense_runs : set of int
        Replicates whose dense run these cells need, or trained cells have lost.
    """

    cells: list[Cell]
    dense_runs: set[int]


def remaining(study: Study, folder: Folder, retry_failed: bool = False) -> Remaining:
    """Return what a run of the study would train."""
    cube = Cube(folder.cube) if folder.cube.exists() else None
    axes = _axes(study, cube)
    cells = dict.fromkeys((Cell(*at) for at in product(*axes.values())), Status.PENDING)
    cells |= cube.cells() if cube else {}
    applicable = {cell: s for cell, s in cells.items() if is_applicable(cell, axes)}
    return remaining_of(applicable, study, folder, retry_failed)


def remaining_of(
    cells: Mapping[Cell, Status], study: Study, folder: Folder, retry_failed: bool
) -> Remaining:
    """Return what is left of these cells.

    With the cells whose final weights are needed by what is left, and are not there.
    """
    wanted = {Status.PENDING, Status.SKIPPED} | ({Status.FAILED} if retry_failed else set())
    unfinished = {cell for cell, status in cells.items() if status in wanted}
    for cell in list(unfinished):
        awaited = study.waits_for(cell)
        while (
            awaited
            and awaited not in unfinished
            and not checkpoints.holds_ticket(folder.final(awaited))
        ):
            unfinished.add(awaited)
            awaited = study.waits_for(awaited)
    # Failed cells need none: theirs may be what failed.
    needing = wanted | {Status.DONE, Status.DIVERGED}
    replicates = {cell.replicate for cell, status in cells.items() if status in needing}
    trained = {int(replicate) for replicate in folder.manifest().get("checkpoints", {})}
    return Remaining(longest_first(unfinished), replicates - trained)


def epochs_to_train(study: Study, cells: list[Cell], dense_runs: int) -> int:
    """Return how many epochs it takes to train so many dense runs and these cells."""
    epochs = study.recipe.epochs
    return dense_runs * epochs + sum(epochs - cell.first_epoch for cell in cells)


def engine_for(study: Study, folder: Folder) -> Engine:
    """Return the engine to ask a worker for: the one that was used before, if any."""
    before = folder.manifest().get("engine")
    if before is None:
        return study.engine
    try:
        engine = Engine(**before)
    except (TypeError, ValueError) as error:
        raise InputError(f"the manifest of {folder.path} is damaged: {error}") from None
    # How many are trained side by side, and by what, may change on the way.
    now = study.engine
    engine = replace(engine, cohort=now.cohort, graphs=now.graphs, kernels=now.kernels)
    for name, used in asdict(engine).items():
        asked = getattr(study.engine, name)
        if asked not in ("auto", used):
            raise InputError(
                f"the folder {folder.path} was computed with engine.{name} {used}, and "
                f"{asked} is asked for; give another one with --out, or the same engine"
            )
    return engine


def prepared(queue: Queue, work: Work) -> tuple[Work, Cube]:
    """Have a worker look around; then write down what the study is, and make its cube."""
    study, folder, found = work.study, work.folder, list[Any]()
    with folder.word() as word:
        queue.add(Task("look-around", look_around, (work, word), then=found.append))
        queue.run()
    if isinstance(found[0], Exception):
        raise found[0]
    around: Surroundings = found[0]
    engine = around.choice.engine
    versions = {package: version(package) for package in PACKAGES}
    versions["python"] = platform.python_version()
    manifest = folder.manifest() or {
        "versions": versions,
        "host": platform.node(),
        "engine": asdict(engine),
        "checkpoints": {},
    }
    manifest["engine"] = asdict(engine)
    manifest.setdefault("engine_reason", around.choice.reason)
    manifest["study_digest"] = sha256(study.to_yaml().encode()).hexdigest()
    if (before := manifest["versions"]) != versions:
        old = {name: before.get(name) for name in versions}
        changes = (f"{n} {old[n]} → {v}" for n, v in versions.items() if old[n] != v)
        log.warning("computed in part with other versions, bits may differ: %s", ", ".join(changes))
        manifest["versions"] = versions
        manifest["earlier_versions"] = [*manifest.get("earlier_versions", []), before]
    cube = Cube(folder.cube) if folder.cube.exists() else None
    manifest["axes"] = _axes(study, cube)
    manifest["steps"] = around.steps
    manifest["majority"] = around.majority
    folder.write_study(study.to_yaml())
    folder.write_manifest(manifest)
    if cube:
        cube.grow(manifest["axes"])
        cube.annotate(_about(study, manifest))
    else:
        cube = empty_cube(folder.cube, study, manifest, around.layers)
    for cell, status in cube.cells().items():
        if status is Status.PENDING and not is_applicable(cell, manifest["axes"]):
            cube.mark(cell, Status.NOT_APPLICABLE)
    return replace(work, engine=engine), cube


def empty_cube(path: Path, study: Study, manifest: Mapping[str, Any], layers: list[str]) -> Cube:
    """Make the cube of a study as it is before any cell is trained."""
    every, epochs = study.recipe.measure_every, study.recipe.epochs
    iterations = range(every, epochs * manifest["steps"] + 1, every) if every else ()
    create_cube(
        path,
        manifest["axes"],
        epochs,
        layers,
        _about(study, manifest),
        study.pruning.meaning,
        iterations,
    )
    return Cube(path)


def _about(study: Study, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept with the cube."""
    kept = ("versions", "engine", "majority")
    return {"study": study.to_dict()} | {name: manifest[name] for name in kept if name in manifest}


def _axes(study: Study, cube: Cube | None) -> dict[str, list[Any]]:
    """Return the axes of the study; new values come last: what is in the cube keeps its place."""
    return {
        name: sorted(values, key=[*(cube.axis(name) if cube else []), *values].index)
        for name, values in study.grid.axes().items()
    }
